"""An issuer is enough: `apply_config` and the admin's form complete the server from its metadata, once (C6)."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection

from brands.configuration_file import ConfigurationRefused, apply_configuration, read_configuration
from brands.models import AuthorizationServer, Brand
from brands.server_rules import issuer_of_address
from oauth_client import transport
from oauth_client.certificates import CertificateProblem
from tests.admin_pages import AdminBrowser, address
from tests.fake_authorization_server import mounted
from tests.modern_authorization_server import ModernAuthorizationServer

pytestmark = pytest.mark.django_db

ISSUER = "https://login.acme.example"


@pytest.fixture
def login() -> Iterator[ModernAuthorizationServer]:
    fake = ModernAuthorizationServer()
    with mounted(fake):
        yield fake


def file(**values: Any) -> str:
    settings: dict[str, Any] = {
        "issuer": ISSUER,
        "client_id": "acme-client",
        "client_secret": "a-secret",
        "prompt": "",
    } | values
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items() if value is not ...]
    return "\n".join(['[brand]\nslug = "acme"\nname = "Acme"\n[[authorization_servers]]\nkey = "orders"', *lines])


def apply(**values: Any) -> dict[str, Any]:
    return apply_configuration(read_configuration(file(**values)), {})


def problems_of(**values: Any) -> list[str]:
    with pytest.raises(ConfigurationRefused) as refused:
        apply(**values)
    assert not AuthorizationServer.objects.exists()
    return refused.value.problems


def test_an_issuer_alone_is_enough_for_a_file(login: ModernAuthorizationServer) -> None:
    """C6."""
    apply(scope="openid orders.read")

    server = AuthorizationServer.objects.get()
    assert server.authorization_endpoint == f"{ISSUER}/authorize"
    assert server.token_endpoint == f"{ISSUER}/token"
    assert server.jwks_uri == f"{ISSUER}/jwks"
    assert server.revocation_endpoint == f"{ISSUER}/revoke"
    assert server.pushed_authorization_request_endpoint == f"{ISSUER}/par"
    assert server.authorization_response_iss_parameter_supported


def test_a_file_that_names_both_endpoints_asks_nobody(login: ModernAuthorizationServer) -> None:
    apply(authorization_endpoint=f"{ISSUER}/a", token_endpoint=f"{ISSUER}/t")

    server = AuthorizationServer.objects.get()
    assert (server.authorization_endpoint, server.jwks_uri, login.metadata_requests) == (f"{ISSUER}/a", "", [])


def test_metadata_that_changed_later_changes_nothing_of_ours(login: ModernAuthorizationServer) -> None:
    """C6: never silently; whoever wants the new address types it."""
    apply()
    login.metadata_changes = {"token_endpoint": "https://other.example/token"}
    apply()
    assert AuthorizationServer.objects.get().token_endpoint == f"{ISSUER}/token"
    assert len(login.metadata_requests) == 1

    apply(token_endpoint="https://other.example/token")
    assert AuthorizationServer.objects.get().token_endpoint == "https://other.example/token"


def test_another_issuer_is_asked_anew(login: ModernAuthorizationServer) -> None:
    apply()
    login.metadata_changes = {"issuer": f"{ISSUER}/tenant", "token_endpoint": f"{ISSUER}/tenant/token"}
    login.metadata_path = "/tenant/.well-known/openid-configuration"
    apply(issuer=f"{ISSUER}/tenant")

    assert AuthorizationServer.objects.get().token_endpoint == f"{ISSUER}/tenant/token"


def test_a_typed_endpoint_has_to_agree(login: ModernAuthorizationServer) -> None:
    """C6: the error names the field."""
    assert problems_of(token_endpoint=f"{ISSUER}/typed") == [
        f"authorization_servers.orders.token_endpoint: The issuer's metadata says: {ISSUER}/token"
    ]


def test_a_document_of_another_issuer_is_refused(login: ModernAuthorizationServer) -> None:
    login.metadata_changes = {"issuer": "https://rival.example"}

    said = f"The issuer in the metadata differs: found https://rival.example, expected {ISSUER}."
    assert problems_of() == [f"authorization_servers.orders.issuer: {said}"]


def test_without_metadata_the_endpoints_have_to_be_typed(login: ModernAuthorizationServer) -> None:
    login.metadata_path = "/nowhere"

    assert problems_of() == [
        "authorization_servers.orders.issuer: No metadata was found for this issuer. Enter the endpoints yourself.",
    ]


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [
        (
            transport.EndpointBlocked("the address is not allowed"),
            " If it is in a private network, allow that first: manage.py private_networks.",
        ),
        (transport.EndpointTimeout("the server did not answer in time"), ""),
        (transport.CertificateNotAccepted(CertificateProblem.EXPIRED), ""),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_operator_reads_why_there_is_no_metadata_beside_all_else(
    login: ModernAuthorizationServer, reason: transport.OutboundError, remedy: str
) -> None:
    """The bug: it "could not be fetched", for whatever reason, and other mistakes were told the next time."""
    login.metadata_path, login.well_known_answers = "/nowhere", [reason, reason]

    not_fetched = "authorization_servers.orders.issuer: The metadata of this issuer could not be fetched."
    assert problems_of(challenge_lifetime=1) == [
        f"{not_fetched} The reason: {reason}.{remedy}",
        "authorization_servers.orders.challenge_lifetime: Ensure this value is greater than or equal to 300.",
    ]


def test_without_an_issuer_the_endpoints_have_to_be_typed(login: ModernAuthorizationServer) -> None:
    assert problems_of(issuer="") == [
        "authorization_servers.orders.authorization_endpoint: This field cannot be blank.",
        "authorization_servers.orders.token_endpoint: This field cannot be blank.",
    ]


def test_metadata_is_fetched_outside_any_transaction(
    login: ModernAuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    depth = len(connection.savepoint_ids)
    seen: list[int] = []
    send = ModernAuthorizationServer.send

    def watched(fake: ModernAuthorizationServer, request: Any, **options: Any) -> Any:
        seen.append(len(connection.savepoint_ids) - depth)
        return send(fake, request, **options)

    monkeypatch.setattr(ModernAuthorizationServer, "send", watched)
    apply()
    assert seen == [0]


def test_a_key_is_made_and_its_address_is_printed(login: ModernAuthorizationServer) -> None:
    """C7: and applying the file again makes no other one."""
    applied = apply(token_endpoint_auth_method="private_key_jwt", client_secret=...)
    server = AuthorizationServer.objects.get()
    assert applied["authorization_servers"]["orders"] == {
        "redirect_uri": server.redirect_uri,
        "jwks_uri": f"{server.redirect_uri}/jwks.json",
    }
    apply(token_endpoint_auth_method="private_key_jwt", client_secret=...)
    assert AuthorizationServer.objects.get().signing_key_jwk == server.signing_key_jwk


LINE: dict[str, Any] = {"id_token_signing_alg_values_supported": ["ES256"]}


@pytest.mark.parametrize("applied", [1, 2])
def test_a_file_can_choose_hs256_where_the_metadata_announces_another(
    applied: int, login: ModernAuthorizationServer
) -> None:
    """E16. The bug: LINE announces ES256 and signs with the channel secret: the file was refused."""
    login.metadata_changes = LINE
    for _ in range(applied):
        apply(scope="openid", id_token_signing_alg_values=["HS256"])

    server = AuthorizationServer.objects.get()
    assert (server.id_token_signing_alg_values, server.token_endpoint) == (["HS256"], f"{ISSUER}/token")


def test_nobody_gets_hs256_without_choosing_it(login: ModernAuthorizationServer) -> None:
    """E16."""
    login.metadata_changes = {"id_token_signing_alg_values_supported": ["HS256", "ES256"]}
    apply(scope="openid")

    assert AuthorizationServer.objects.get().id_token_signing_alg_values == ["ES256"]


# The admin's form.


def add(operator: AdminBrowser, brand: Brand, **values: str) -> Any:
    form = operator.get(address(AuthorizationServer, "add")).context["adminform"].form
    typed = {"brand": brand.pk, "key": "orders", "client_id": "acme-client", "client_secret": "a-secret"}
    data = {name: "" if form[name].value() is None else form[name].value() for name in form.fields}
    return operator.post(address(AuthorizationServer, "add"), data | typed | {"issuer": ISSUER} | values)


def errors_of(answer: Any) -> dict[str, list[str]]:
    assert answer.status_code == 200, answer
    return dict(answer.context["adminform"].form.errors)


def test_an_issuer_alone_is_enough_in_the_admin(
    acme: Brand, operator: AdminBrowser, login: ModernAuthorizationServer
) -> None:
    """C6: what was found is stored and shown."""
    assert add(operator, acme, scope="openid orders.read").status_code == 302

    server = AuthorizationServer.objects.get()
    assert (server.token_endpoint, server.jwks_uri) == (f"{ISSUER}/token", f"{ISSUER}/jwks")
    assert server.pushed_authorization_request_endpoint == f"{ISSUER}/par"
    assert server.authorization_response_iss_parameter_supported
    page = operator.get(address(AuthorizationServer, "change", server)).content.decode()
    assert f'value="{ISSUER}/revoke"' in page


def test_the_redirect_uri_is_known_before_the_first_save(
    acme: Brand, operator: AdminBrowser, login: ModernAuthorizationServer
) -> None:
    """Whoever has the provider's console open in another tab registers it there first."""
    page = operator.get(address(AuthorizationServer, "add")).content.decode()
    assert add(operator, acme).status_code == 302
    first = AuthorizationServer.objects.get()
    assert first.redirect_uri in page
    operator.get(address(AuthorizationServer, "changelist"))  # shows the message that names it once more
    # The next server has another one.
    assert first.redirect_uri not in operator.get(address(AuthorizationServer, "add")).content.decode()


PASTED = [f"{ISSUER}/.well-known/openid-configuration", f"{ISSUER}/.well-known/oauth-authorization-server"]


@pytest.mark.parametrize("pasted", PASTED)
def test_a_pasted_metadata_address_is_understood_in_the_admin(
    acme: Brand, operator: AdminBrowser, login: ModernAuthorizationServer, pasted: str
) -> None:
    """The bug: it was kept as the issuer, and every sign-in failed with `issuer_mismatch`."""
    assert add(operator, acme, issuer=pasted).status_code == 302
    server = AuthorizationServer.objects.get()
    assert (server.issuer, server.token_endpoint) == (ISSUER, f"{ISSUER}/token")


@pytest.mark.parametrize("pasted", PASTED)
def test_a_pasted_metadata_address_is_understood_in_a_file(login: ModernAuthorizationServer, pasted: str) -> None:
    apply(issuer=pasted)
    server = AuthorizationServer.objects.get()
    assert (server.issuer, server.token_endpoint) == (ISSUER, f"{ISSUER}/token")


@pytest.mark.parametrize(
    ("address", "issuer"),
    [
        ("https://acme.example/.well-known/oauth-authorization-server/tenant", "https://acme.example/tenant"),
        ("https://acme.example/tenant/.well-known/openid-configuration/", "https://acme.example/tenant"),
        ("https://acme.example/.well-known/openid-configuration-2", None),
        ("https://acme.example/", None),
        ("", None),
    ],
)
def test_the_issuer_of_a_metadata_address(address: str, issuer: str | None) -> None:
    """RFC 8414 section 3.1 puts the well-known part before the issuer's path, OpenID Connect behind it."""
    assert issuer_of_address(address) == (address if issuer is None else issuer)


def test_saving_again_asks_nobody(acme: Brand, operator: AdminBrowser, login: ModernAuthorizationServer) -> None:
    """C6."""
    add(operator, acme)
    login.metadata_changes = {"token_endpoint": "https://other.example/token"}
    server = AuthorizationServer.objects.get()
    assert operator.send_changed(address(AuthorizationServer, "change", server), scope="orders.read").status_code == 302

    server.refresh_from_db()
    assert (server.scope, server.token_endpoint) == ("orders.read", f"{ISSUER}/token")
    assert len(login.metadata_requests) == 1


def test_a_mistake_is_shown_at_its_field(acme: Brand, operator: AdminBrowser, login: ModernAuthorizationServer) -> None:
    """C6."""
    assert errors_of(add(operator, acme, token_endpoint=f"{ISSUER}/typed")) == {
        "token_endpoint": [f"The issuer's metadata says: {ISSUER}/token"]
    }
    login.metadata_changes = {"revocation_endpoint": "http://login.acme.example/revoke"}
    errors = errors_of(add(operator, acme))
    assert list(errors) == ["revocation_endpoint"]
    login.metadata_changes = {"issuer": "https://rival.example"}
    assert errors_of(add(operator, acme)) == {
        "issuer": [f"The issuer in the metadata differs: found https://rival.example, expected {ISSUER}."]
    }


def test_the_form_takes_hs256_where_the_metadata_announces_another(
    acme: Brand, operator: AdminBrowser, login: ModernAuthorizationServer
) -> None:
    """E16: and still says of any other algorithm that the server does not announce it."""
    login.metadata_changes = LINE
    wrong = add(operator, acme, scope="openid", id_token_signing_alg_values="RS256")
    assert errors_of(wrong) == {"id_token_signing_alg_values": ["The issuer's metadata lists ES256."]}
    assert add(operator, acme, scope="openid", id_token_signing_alg_values="HS256").status_code == 302

    assert AuthorizationServer.objects.get().id_token_signing_alg_values == ["HS256"]


def test_without_an_issuer_the_form_asks_for_the_endpoints(
    acme: Brand, operator: AdminBrowser, login: ModernAuthorizationServer
) -> None:
    asked = ["Type it, or give an issuer that publishes its metadata."]
    assert errors_of(add(operator, acme, issuer="")) == {"authorization_endpoint": asked, "token_endpoint": asked}


def test_the_admin_fetches_before_django_opens_its_transaction(
    acme: Brand, operator: AdminBrowser, login: ModernAuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    depth = len(connection.savepoint_ids)
    seen: list[int] = []
    send = ModernAuthorizationServer.send

    def watched(fake: ModernAuthorizationServer, request: Any, **options: Any) -> Any:
        seen.append(len(connection.savepoint_ids) - depth)
        return send(fake, request, **options)

    monkeypatch.setattr(ModernAuthorizationServer, "send", watched)
    assert add(operator, acme).status_code == 302
    assert seen == [0]


def test_somebody_without_a_brand_makes_us_call_nobody(
    acme: Brand, acme_admin: Any, login: ModernAuthorizationServer
) -> None:
    """J1: not a staff member who administers nothing."""
    acme.admins.clear()
    answer = AdminBrowser(acme_admin).post(address(AuthorizationServer, "add"), {"issuer": ISSUER})

    assert (answer.status_code, login.metadata_requests) == (403, [])


def test_a_server_with_a_key_shows_where_it_is(
    acme: Brand, operator: AdminBrowser, login: ModernAuthorizationServer
) -> None:
    """C7: no secret is asked for, and none is kept."""
    assert add(operator, acme, token_endpoint_auth_method="private_key_jwt", client_secret="").status_code == 302

    server = AuthorizationServer.objects.get()
    assert server.client_secret_ciphertext is None
    page = operator.get(address(AuthorizationServer, "change", server)).content.decode()
    assert f"{server.redirect_uri}/jwks.json" in page
