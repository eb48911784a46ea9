"""Beyond RFC 6749, against npm oidc-provider: pushed requests, a key instead of a secret, revocation, metadata."""

from typing import Any

import pytest
from pytest_django import Settings

from brands.configuration_file import apply_configuration, read_configuration
from brands.doctor import Verdict, examine
from brands.models import AuthorizationServer, Brand
from conversations.models import Challenge
from infrastructure.crypto import Secret, new_signing_key
from oauth_client import AuthorizationServerError, discover, revoke_token
from tests.cast import Bot, Browser, code_on
from tests.peers import by_hand
from tests.peers.oidc_provider import OidcProvider

pytestmark = [pytest.mark.django_db, pytest.mark.xdist_group("oidc_provider")]


@pytest.fixture(autouse=True)
def _trusted(oidc_provider: OidcProvider, settings: Settings) -> None:
    settings.OUTBOUND_CA_FILE = str(oidc_provider.ca_file)


def server_at(peer: OidcProvider, brand: Brand, **values: Any) -> AuthorizationServer:
    """Register at the peer, with a key of ours where that is the method, and save the server."""
    server = AuthorizationServer(
        brand=brand,
        key="orders",
        issuer=peer.issuer,
        authorization_endpoint=peer.authorization_endpoint,
        token_endpoint=peer.token_endpoint,
        revocation_endpoint=peer.revocation_endpoint,
        jwks_uri=peer.jwks_uri,
        authorization_response_iss_parameter_supported=True,
        **{"scope": "openid orders.read"} | values,
    )
    server.update_signing_key()
    metadata: dict[str, Any] = {
        "token_endpoint_auth_method": server.token_endpoint_auth_method,
        "require_pushed_authorization_requests": bool(server.pushed_authorization_request_endpoint),
    }
    if server.signing_key_jwk:
        metadata["jwks"] = {"keys": [server.signing_key_jwk]}
    client = peer.register(server.redirect_uri, **metadata)
    server.client_id = client.client_id
    if server.uses_client_secret:
        server.set_client_secret(Secret(client.client_secret))
    server.full_clean()
    server.save()
    return server


def signed_in(bot: Bot, browser: Browser, peer: OidcProvider, server: AuthorizationServer) -> str:
    """Go the whole way and return the access token."""
    challenge = bot.challenge()
    url = browser.begin(challenge["url"])
    callback = peer.consumer().sign_in(url, redirect_uri=server.redirect_uri)
    assert bot.complete(code_on(browser.get(browser.get(callback)["Location"])))[0] == 200
    status, token = bot.token()
    assert status == 200, token
    opened = by_hand.ask_for_orders(peer, token["access_token"], ca_file=peer.ca_file)
    assert opened.json()["customer"] == "ada"
    return str(token["access_token"])


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post", "private_key_jwt"])
@pytest.mark.parametrize("pushed", [True, False], ids=["pushed", "in the address"])
def test_a_journey_by_each_client_authentication(
    method: str, pushed: bool, acme: Brand, acme_bot: Bot, ada: Browser, oidc_provider: OidcProvider
) -> None:
    """B21, C7: the peer takes nothing but what was registered, and with PAR required nothing else than PAR."""
    endpoint = oidc_provider.pushed_authorization_request_endpoint if pushed else ""
    server = server_at(
        oidc_provider, acme, token_endpoint_auth_method=method, pushed_authorization_request_endpoint=endpoint
    )
    token = signed_in(acme_bot, ada, oidc_provider, server)
    revoke_token(server.configuration(server.scope), Secret(token), server.reveal_credentials())
    assert by_hand.ask_for_orders(oidc_provider, token, ca_file=oidc_provider.ca_file).status_code == 401


def test_a_push_that_the_peer_refuses_names_its_error(
    acme: Brand, acme_bot: Bot, ada: Browser, oidc_provider: OidcProvider
) -> None:
    """B21: here the client's scope; the consumer never sees the brand's error page."""
    endpoint = oidc_provider.pushed_authorization_request_endpoint
    server = server_at(oidc_provider, acme, pushed_authorization_request_endpoint=endpoint)
    AuthorizationServer.objects.filter(pk=server.pk).update(scope="openid orders.read orders.write")
    challenge = acme_bot.challenge()
    assert ada.press(challenge["url"])["Location"].endswith("/done")
    assert acme_bot.read_challenge(challenge)["last_error"] == "invalid_scope"


def test_another_key_than_the_registered_one_is_refused(acme: Brand, oidc_provider: OidcProvider) -> None:
    """C7: also for a revocation."""
    server = server_at(oidc_provider, acme, token_endpoint_auth_method="private_key_jwt")
    credentials = server.reveal_credentials()
    revoke_token(server.configuration(""), Secret("unknown"), credentials)
    foreign = type(credentials)(signing_key=new_signing_key()[0])
    with pytest.raises(AuthorizationServerError) as refused:
        revoke_token(server.configuration(""), Secret("unknown"), foreign)
    assert (refused.value.error, refused.value.is_retryable) == ("invalid_client", False)


def test_the_peers_metadata_is_what_it_is(oidc_provider: OidcProvider) -> None:
    """C6."""
    found = discover(oidc_provider.issuer)
    names = [
        *("issuer", "authorization_endpoint", "token_endpoint", "jwks_uri"),
        *("revocation_endpoint", "pushed_authorization_request_endpoint"),
    ]
    assert {name: getattr(found, name) for name in names} == {name: getattr(oidc_provider, name) for name in names}
    assert found.authorization_response_iss_parameter_supported
    assert "S256" in found.code_challenge_methods_supported
    assert "private_key_jwt" in found.token_endpoint_auth_methods_supported


def test_an_issuer_alone_leads_to_a_journey(acme_bot: Bot, ada: Browser, oidc_provider: OidcProvider) -> None:
    """C6, B21, C7: one line for the server, no secret, and the key fetched from where `apply_config` says."""
    text = f"""
        [brand]
        slug = "acme"
        name = "Acme"
        [[authorization_servers]]
        key = "orders"
        issuer = "{oidc_provider.issuer}"
        client_id = "not-known-yet"
        token_endpoint_auth_method = "private_key_jwt"
        scope = "openid orders.read"
    """
    applied = apply_configuration(read_configuration(text))["authorization_servers"]["orders"]
    keys = Browser().get(applied["jwks_uri"]).json()
    client = oidc_provider.register(applied["redirect_uri"], token_endpoint_auth_method="private_key_jwt", jwks=keys)
    apply_configuration(read_configuration(text.replace("not-known-yet", client.client_id)))
    signed_in(acme_bot, ada, oidc_provider, AuthorizationServer.objects.get())


def who_signed_in(peer: OidcProvider, endpoint: str) -> dict[str, str]:
    """The settings for the peer's introspection, its userinfo endpoint, or its API, which names the customer."""
    values = {
        "introspection": {"introspection_endpoint": peer.introspection_endpoint},
        "userinfo": {"userinfo_endpoint": f"{peer.issuer}/me"},
        "api": {"userinfo_endpoint": peer.orders_url, "subject_member": "customer"},
    }
    return {"scope": "orders.read", **values[endpoint]}


@pytest.mark.parametrize("method", ["client_secret_basic", "private_key_jwt"])
@pytest.mark.parametrize("endpoint", ["introspection", "api"])
def test_without_openid_the_peer_says_who_signed_in(
    acme: Brand, acme_bot: Bot, ada: Browser, rita: Browser, oidc_provider: OidcProvider, endpoint: str, method: str
) -> None:
    """A17: Ada may come again, and Rita may not."""
    values = who_signed_in(oidc_provider, endpoint)
    server = server_at(oidc_provider, acme, token_endpoint_auth_method=method, **values)
    for _ in range(2):
        signed_in(acme_bot, ada, oidc_provider, server)
        assert acme_bot.token()[1]["subject_pinned"] is True
        assert acme_bot.in_chat("DELETE", "/token")[0] == 200
    challenge = acme_bot.challenge()
    callback = oidc_provider.consumer("rita").sign_in(rita.begin(challenge["url"]), redirect_uri=server.redirect_uri)
    rita.get(callback)
    assert acme_bot.read_challenge(challenge)["error"] == "subject_mismatch"


def test_a_userinfo_endpoint_that_wants_openid_is_named_as_such(
    acme: Brand, acme_bot: Bot, ada: Browser, oidc_provider: OidcProvider
) -> None:
    """A17: the admin reads which scope is missing; so *Discover* proposes introspection first."""
    server = server_at(oidc_provider, acme, **who_signed_in(oidc_provider, "userinfo"))
    challenge = acme_bot.challenge()
    url = ada.begin(challenge["url"])
    ada.get(oidc_provider.consumer().sign_in(url, redirect_uri=server.redirect_uri))
    assert acme_bot.read_challenge(challenge)["last_error"] == "subject_request_refused"
    assert "error insufficient_scope" in Challenge.objects.get().last_error_detail


@pytest.mark.parametrize("endpoint", ["introspection", "userinfo", "api"])
def test_the_doctor_asks_a_strict_server_about_a_made_up_token(
    acme: Brand, oidc_provider: OidcProvider, endpoint: str
) -> None:
    server = server_at(oidc_provider, acme, **who_signed_in(oidc_provider, endpoint))
    assert "subject_endpoint_answers" in [finding.code for finding in examine(server)]


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post", "private_key_jwt"])
@pytest.mark.parametrize("pushed", [True, False], ids=["pushed", "in the address"])
def test_the_doctor_proves_each_set_up_at_a_strict_server(
    acme: Brand, oidc_provider: OidcProvider, method: str, pushed: bool
) -> None:
    endpoint = oidc_provider.pushed_authorization_request_endpoint if pushed else ""
    values = {"token_endpoint_auth_method": method, "pushed_authorization_request_endpoint": endpoint}
    assert [finding.code for finding in examine(server_at(oidc_provider, acme, **values))] == [
        *("metadata_agrees", "dpop_not_used", "keys_found", "client_accepted", "redirect_uri_registered")
    ]


def test_the_doctor_names_what_a_strict_server_refuses(acme: Brand, oidc_provider: OidcProvider) -> None:
    server = server_at(oidc_provider, acme, token_endpoint_auth_method="client_secret_basic", basic_encoding="form")
    server.callback_id = "never-registered"
    server.set_client_secret(Secret("mistyped"))
    found = {finding.code: finding for finding in examine(server) if finding.verdict == Verdict.PROBLEM}
    assert list(found) == ["client_refused", "client_or_redirect_uri_refused"]
    assert server.redirect_uri in found["client_or_redirect_uri_refused"].remedy


def test_the_doctor_names_the_encoding_that_a_strict_server_takes(acme: Brand, oidc_provider: OidcProvider) -> None:
    """The bug: it says `invalid_request` of the other encoding, and `invalid_client` of a secret without + and %."""
    server = server_at(oidc_provider, acme, token_endpoint_auth_method="client_secret_basic")
    server.basic_encoding = "raw"
    (found,) = [finding for finding in examine(server) if finding.verdict == Verdict.PROBLEM]
    assert found.code == "client_method_differs"
    assert found.meaning.endswith("with client_secret_basic with the encoding form.")
