"""Our client authentication at the token endpoint, as a strict server sees it."""

import base64
from collections.abc import Iterator
from urllib.parse import parse_qsl

import pytest

from infrastructure.crypto import Secret, s256_code_challenge
from oauth_client import AuthorizationServerError, ClientCredentials, authorization_url, exchange_code, revoke_token
from tests.fake_authorization_server import PLANTED_SECRET, FakeAuthorizationServer, mounted

VERIFIER = "v" * 43
PLANTED = ClientCredentials(Secret(PLANTED_SECRET))


@pytest.fixture
def acme() -> Iterator[FakeAuthorizationServer]:
    with mounted(FakeAuthorizationServer()) as server:
        yield server


def sign_in(server: FakeAuthorizationServer) -> Secret:
    url = authorization_url(server.configuration(), state="s", nonce="n", code_challenge=s256_code_challenge(VERIFIER))
    return Secret(dict(parse_qsl(server.authorize(url)))["code"])


def exchange(server: FakeAuthorizationServer, client_secret: Secret | None) -> Secret:
    code, credentials = sign_in(server), ClientCredentials(client_secret)
    granted = exchange_code(server.configuration(), code=code, code_verifier=Secret(VERIFIER), credentials=credentials)
    return granted.access_token


@pytest.mark.parametrize(
    ("method", "encoding"),
    [
        ("client_secret_basic", "form"),
        ("client_secret_basic", "raw"),
        ("client_secret_post", "form"),
        ("none", "form"),
    ],
)
def test_each_method_is_accepted_by_a_server_that_takes_only_that_one(
    method: str, encoding: str, acme: FakeAuthorizationServer
) -> None:
    """RFC 6749 section 2.3; the secret holds a colon, a percent sign, a plus, a space and a letter beyond ASCII."""
    acme.token_endpoint_auth_method, acme.basic_encoding = method, encoding

    access_token = exchange(acme, None if method == "none" else Secret(PLANTED_SECRET))

    assert access_token == Secret(acme.issued_access_tokens[0])


def test_basic_form_encodes_id_and_secret_first(acme: FakeAuthorizationServer) -> None:
    """RFC 6749 section 2.3.1; without it a secret with a plus or a percent sign works at half of the servers."""
    acme.client_id = "bot:1"
    exchange(acme, Secret(PLANTED_SECRET))

    scheme, encoded = acme.token_requests[0].headers["Authorization"].split()
    assert (scheme, base64.b64decode(encoded)) == ("Basic", b"bot%3A1:planted%20client%2Bsecret%2F7%25%3A%C3%A9")


@pytest.mark.parametrize("percent_decodes_only", [False, True], ids=["form-decodes", "percent-decodes"])
@pytest.mark.parametrize(
    "secret", ["a b", "a+b", "a%20b", "a%2Bb", " ", "+", "ä ö", "a~b_c.d-e*f!g'(h)", "a&b=c;d", "\u00a0 \u2003"]
)
def test_every_server_that_decodes_reads_the_same_secret(
    secret: str, percent_decodes_only: bool, acme: FakeAuthorizationServer
) -> None:
    """RFC 6749 section 2.3.1. The bug: a space was sent as `+`, which Authlib and pyop read as a plus sign."""
    acme.client_id, acme.client_secret = "client of acme", secret
    acme.percent_decodes_only = percent_decodes_only

    assert exchange(acme, Secret(secret)) == Secret(acme.issued_access_tokens[0])


def test_client_id_stands_beside_basic_where_the_server_is_configured_so(acme: FakeAuthorizationServer) -> None:
    """E22: MCP's Python SDK looks for it in the body, whatever the header says."""
    acme.wants_client_id_with_basic = True
    configuration = acme.configuration(send_client_id_with_basic=True)
    exchange_code(configuration, code=sign_in(acme), code_verifier=Secret(VERIFIER), credentials=PLANTED)

    request = acme.token_requests[0]
    assert request.parameters["client_id"] == "consumer-delegation"
    assert "client_secret" not in request.parameters
    assert request.headers["Authorization"].startswith("Basic ")


def test_client_id_never_stands_beside_basic_unless_it_is_switched_on(acme: FakeAuthorizationServer) -> None:
    """E22: RFC 6749 section 2.3 has one method a request; Cloudflare's provider refuses two."""
    exchange(acme, Secret(PLANTED_SECRET))

    assert "client_id" not in acme.token_requests[0].parameters


@pytest.mark.parametrize("method", ["client_secret_post", "none"])
def test_the_switch_changes_nothing_of_other_methods(method: str, acme: FakeAuthorizationServer) -> None:
    acme.token_endpoint_auth_method = method
    configuration = acme.configuration(send_client_id_with_basic=True)
    exchange_code(configuration, code=sign_in(acme), code_verifier=Secret(VERIFIER), credentials=PLANTED)

    assert acme.token_requests[0].url.endswith("/token")


def test_revocation_has_client_id_beside_basic_as_well(acme: FakeAuthorizationServer) -> None:
    acme.wants_client_id_with_basic = True
    changes = {"send_client_id_with_basic": True, "revocation_endpoint": f"{acme.issuer}/revoke"}
    revoke_token(acme.configuration(**changes), Secret("a-token"), PLANTED)

    assert acme.revocation_requests[0].parameters["client_id"] == "consumer-delegation"


def test_raw_basic_writes_id_and_secret_as_they_are(acme: FakeAuthorizationServer) -> None:
    acme.basic_encoding = "raw"
    exchange(acme, Secret(PLANTED_SECRET))

    encoded = acme.token_requests[0].headers["Authorization"].split()[1]
    assert base64.b64decode(encoded).decode() == f"consumer-delegation:{PLANTED_SECRET}"


def test_the_request_is_what_the_rfc_says(acme: FakeAuthorizationServer) -> None:
    """RFC 6749 section 4.1.3, RFC 7636 section 4.5: nothing in the address, one body, one method of authentication."""
    code = sign_in(acme)
    exchange_code(acme.configuration(), code=code, code_verifier=Secret(VERIFIER), credentials=PLANTED)

    request = acme.token_requests[0]
    assert request.url == "https://login.acme.example/token"
    assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert request.headers["Accept"] == "application/json"
    assert request.parameters == {
        "grant_type": "authorization_code",
        "code": code.reveal(),
        "redirect_uri": "https://delegation.test/callback/acme-orders",
        "code_verifier": VERIFIER,
    }


def test_a_public_client_names_itself_in_the_body(acme: FakeAuthorizationServer) -> None:
    acme.token_endpoint_auth_method = "none"
    exchange(acme, None)

    request = acme.token_requests[0]
    assert request.parameters["client_id"] == "consumer-delegation"
    assert "client_secret" not in request.parameters
    assert "Authorization" not in request.headers


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_without_a_secret_nothing_is_sent(method: str, acme: FakeAuthorizationServer) -> None:
    acme.token_endpoint_auth_method = method

    with pytest.raises(AuthorizationServerError) as refused:
        exchange(acme, None)

    assert (refused.value.error, refused.value.detail) == ("invalid_client", "no client secret is configured")
    assert acme.token_requests == []


def test_a_wrong_secret_is_the_servers_to_refuse(acme: FakeAuthorizationServer) -> None:
    with pytest.raises(AuthorizationServerError) as refused:
        exchange(acme, Secret("wrong"))

    assert (refused.value.error, refused.value.detail) == ("invalid_client", "HTTP status 401, error invalid_client")


def test_a_verifier_of_another_authorization_request_is_the_servers_to_refuse(acme: FakeAuthorizationServer) -> None:
    """B2."""
    code = sign_in(acme)

    with pytest.raises(AuthorizationServerError) as refused:
        exchange_code(acme.configuration(), code=code, code_verifier=Secret("w" * 43), credentials=PLANTED)

    assert refused.value.error == "invalid_grant"


def test_a_token_endpoint_keeps_its_own_query(acme: FakeAuthorizationServer) -> None:
    """RFC 6749 section 3.2."""
    configuration = acme.configuration(token_endpoint="https://login.acme.example/token?tenant=acme")
    exchange_code(configuration, code=sign_in(acme), code_verifier=Secret(VERIFIER), credentials=PLANTED)

    assert acme.token_requests[0].url == "https://login.acme.example/token?tenant=acme"
