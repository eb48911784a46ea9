"""A server's signing key: created when needed, stored encrypted, published in part, replaced for new hosts."""

from typing import Any

import jwt
import pytest
from django.core.exceptions import ValidationError

from brands.configuration_file import apply_configuration, read_configuration
from brands.models import AuthorizationServer, Brand
from infrastructure.columns import encrypted_columns
from infrastructure.crypto import DecryptionError
from tests.admin_pages import AdminBrowser, address
from tests.cast import Browser, make_server
from tests.stored import everything_stored

pytestmark = pytest.mark.django_db


@pytest.fixture
def server(acme: Brand) -> AuthorizationServer:
    return with_key(acme)


def with_key(brand: Brand, **values: Any) -> AuthorizationServer:
    server = make_server(brand, secret="", token_endpoint_auth_method="private_key_jwt", **values)
    server.update_signing_key()
    server.save()
    return server


def test_a_key_is_made_where_the_method_needs_one(acme: Brand, server: AuthorizationServer) -> None:
    """C7: a key of this server's own."""
    other = with_key(acme, key="other")
    assert server.signing_key_jwk is not None
    assert other.signing_key_jwk is not None
    assert server.signing_key_jwk["kid"] != other.signing_key_jwk["kid"]
    assert make_server(acme, key="secret").signing_key_jwk is None


def test_a_key_stays_until_another_method_is_chosen(server: AuthorizationServer) -> None:
    before = server.signing_key_jwk
    server.update_signing_key()
    assert server.signing_key_jwk == before
    server.token_endpoint_auth_method = "client_secret_basic"
    server.update_signing_key()
    assert (server.signing_key_ciphertext, server.signing_key_jwk, server.client_jwks_uri) == (None, None, "")


def test_the_private_key_is_stored_as_ciphertext_only(server: AuthorizationServer) -> None:
    """K1, K5: bound to its row; the public half stands beside it."""
    private_key = server.reveal_credentials().signing_key
    assert private_key is not None
    key = jwt.PyJWK.from_json(private_key.reveal())
    assert key.key_id == (server.signing_key_jwk or {})["kid"]
    assert private_key.reveal().split('"d": "')[1][:43] not in everything_stored()


def test_a_key_moved_to_another_server_cannot_be_read(acme: Brand, server: AuthorizationServer) -> None:
    """K1."""
    other = with_key(acme, key="other")
    AuthorizationServer.objects.filter(pk=other.pk).update(signing_key_ciphertext=server.signing_key_ciphertext)
    with pytest.raises(DecryptionError):
        AuthorizationServer.objects.get(pk=other.pk).reveal_credentials()


def test_a_key_moves_to_the_newest_encryption_key() -> None:
    """K4."""
    assert "signing_key_ciphertext" in {
        column.name for column in encrypted_columns() if column.model is AuthorizationServer
    }


def test_the_public_half_is_there_for_the_brand_to_fetch(server: AuthorizationServer) -> None:
    """C7, RFC 7517: nothing of the private half, and no other server's."""
    answer = Browser().get(server.client_jwks_uri)
    assert (answer.status_code, answer["Content-Type"]) == (200, "application/json")
    assert answer.json() == {"keys": [server.signing_key_jwk]}
    assert answer.json()["keys"][0].keys() == {"kty", "crv", "x", "y", "kid", "alg", "use"}


def test_a_server_that_is_switched_off_can_still_be_told_to_revoke(server: AuthorizationServer) -> None:
    AuthorizationServer.objects.update(is_active=False)
    assert Browser().get(server.client_jwks_uri).status_code == 200


def test_there_is_no_address_for_a_server_without_a_key(acme_server: AuthorizationServer) -> None:
    assert acme_server.client_jwks_uri == ""
    for callback_id in (acme_server.callback_id, "unknown"):
        assert Browser().get(f"https://delegation.test/callback/{callback_id}/jwks.json").status_code == 404


def test_without_an_issuer_the_method_is_refused(server: AuthorizationServer) -> None:
    """C7: the assertion is addressed to the issuer; there is no other audience that is safe."""
    server.issuer = ""
    with pytest.raises(ValidationError) as refused:
        server.full_clean()
    assert list(refused.value.message_dict) == ["issuer"]


def test_hs256_is_refused_where_there_is_no_secret(server: AuthorizationServer) -> None:
    """E16."""
    server.id_token_signing_alg_values = ["HS256"]
    with pytest.raises(ValidationError) as refused:
        server.full_clean()
    assert list(refused.value.message_dict) == ["id_token_signing_alg_values"]


def test_another_host_gets_another_key(server: AuthorizationServer, operator: AdminBrowser) -> None:
    """N8: as a secret, a key is used at the hosts only that it was made for."""
    form_url = address(AuthorizationServer, "change", server)
    assert operator.send_changed(form_url, token_endpoint="https://login.acme.example/v2/token").status_code == 302
    assert AuthorizationServer.objects.get().signing_key_jwk == server.signing_key_jwk
    assert operator.send_changed(form_url, token_endpoint="https://elsewhere.example/token").status_code == 302
    renewed = AuthorizationServer.objects.get().signing_key_jwk
    assert renewed is not None
    assert renewed["kid"] != (server.signing_key_jwk or {})["kid"]


def test_a_form_that_leaves_the_method_forgets_the_key(server: AuthorizationServer, operator: AdminBrowser) -> None:
    form_url = address(AuthorizationServer, "change", server)
    changes = {"token_endpoint_auth_method": "client_secret_basic", "client_secret": "a-secret"}
    assert operator.send_changed(form_url, **changes).status_code == 302
    stored = AuthorizationServer.objects.get()
    assert (stored.signing_key_ciphertext, stored.signing_key_jwk) == (None, None)


@pytest.mark.parametrize(
    ("token_endpoint", "renewed"),
    [("https://login.elsewhere.example/token", True), ("https://login.acme.example/v2/token", False)],
)
def test_a_file_with_another_host_renews_the_key(acme: Brand, token_endpoint: str, renewed: bool) -> None:
    """N8, C7: through apply_config too, or what was signed for the old host would be worth something at the new one."""

    def key_after(endpoint: str) -> tuple[Any, bytes]:
        text = f"""
            [brand]
            slug = "acme"
            name = "Acme"
            [[authorization_servers]]
            key = "orders"
            client_id = "acme-client"
            issuer = "https://login.acme.example"
            authorization_endpoint = "https://login.acme.example/authorize"
            token_endpoint = "{endpoint}"
            token_endpoint_auth_method = "private_key_jwt"
        """
        apply_configuration(read_configuration(text), {})
        server = AuthorizationServer.objects.get()
        return server.signing_key_jwk, bytes(server.signing_key_ciphertext or b"")

    before, after = key_after("https://login.acme.example/token"), key_after(token_endpoint)
    assert [old != new for old, new in zip(before, after, strict=True)] == [renewed, renewed]


def test_the_page_of_a_server_unfolds_our_keys_only_where_it_reads_them(
    acme: Brand, acme_admin: Any, server: AuthorizationServer
) -> None:
    """The bug: the first step of each set-up began with two rows that only `private_key_jwt` needs."""
    ada = AdminBrowser(acme_admin)
    others = [address(AuthorizationServer, "add"), address(AuthorizationServer, "change", make_server(acme, key="b"))]
    for page in others:
        assert part_with_our_keys(ada, page) == "collapse"
    assert part_with_our_keys(ada, address(AuthorizationServer, "change", server)) == ""


def part_with_our_keys(admin: AdminBrowser, page: str) -> str:
    """The classes of the part of a server's form that shows our keys, and nothing else."""
    parts = list(admin.get(page).context["adminform"])
    (part,) = [part for part in parts if part.fields == ("client_jwks_uri", "signing_keys")]
    return str(part.classes)
