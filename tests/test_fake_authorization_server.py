"""The fake server is as strict as it says, and a journey through it ends well."""

import json
from collections.abc import Iterator
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from django.http import QueryDict

from infrastructure.crypto import Secret, random_token, s256_code_challenge
from oauth_client import (
    AuthorizationServerError,
    ClientCredentials,
    TokenResponse,
    authorization_url,
    check_issuer,
    exchange_code,
    parse_authorization_response,
    verify_id_token,
)
from tests.fake_authorization_server import (
    PLANTED_REFRESH_TOKEN,
    AuthorizationRequestRefused,
    FakeAuthorizationServer,
    TokenRequest,
    mounted,
)

VERIFIER = random_token()


@pytest.fixture
def acme() -> Iterator[FakeAuthorizationServer]:
    with mounted(FakeAuthorizationServer()) as server:
        yield server


def url_for(server: FakeAuthorizationServer) -> str:
    return authorization_url(
        server.configuration(), state="the-state", nonce="the-nonce", code_challenge=s256_code_challenge(VERIFIER)
    )


def exchange(server: FakeAuthorizationServer, query: str) -> TokenResponse:
    response = parse_authorization_response(QueryDict(query))
    check_issuer(server.configuration(), response)
    assert response.code is not None
    return exchange_code(
        server.configuration(),
        code=response.code,
        code_verifier=Secret(VERIFIER),
        credentials=ClientCredentials(Secret(server.client_secret)),
    )


def test_a_journey_ends_with_a_token(acme: FakeAuthorizationServer) -> None:
    granted = exchange(acme, acme.authorize(url_for(acme)))

    assert granted.access_token == Secret(acme.issued_access_tokens[0])
    assert (granted.scope, granted.scope_widened, granted.lifetime_assumed) == ("orders.read", False, False)
    assert (len(acme.authorization_requests), len(acme.token_requests)) == (1, 1)


def test_an_openid_journey_ends_with_a_subject(acme: FakeAuthorizationServer) -> None:
    acme.openid, acme.subject = True, "ada-of-acme"
    granted = exchange(acme, acme.authorize(url_for(acme)))
    assert granted.id_token is not None

    said = verify_id_token(
        acme.configuration(max_age=60),
        granted.id_token,
        nonce_matches=lambda nonce: nonce == "the-nonce",
        access_token=granted.access_token,
    )

    assert (said.issuer, said.subject, acme.jwks_requests) == (acme.issuer, "ada-of-acme", 1)


def test_two_servers_are_told_apart(acme: FakeAuthorizationServer) -> None:
    rival = FakeAuthorizationServer(host="login.rival.example", sends_iss=False)
    with mounted(acme, rival):
        exchange(rival, rival.authorize(url_for(rival)))

    assert (len(acme.token_requests), len(rival.token_requests)) == (0, 1)


def test_a_code_works_once_and_a_second_time_ends_its_token(acme: FakeAuthorizationServer) -> None:
    """E20: RFC 6749 section 4.1.2, so that a second exchange shows in a test."""
    query = acme.authorize(url_for(acme))
    exchange(acme, query)

    with pytest.raises(AuthorizationServerError, match="invalid_grant"):
        exchange(acme, query)

    assert acme.issued_access_tokens == []


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge": ""}, "invalid_request"),
        ({"scope": "admin"}, "invalid_scope"),
        ({"response_type": "token"}, "unsupported_response_type"),
    ],
)
def test_a_weak_request_is_sent_back(changes: dict[str, str], error: str, acme: FakeAuthorizationServer) -> None:
    endpoint, _, query = url_for(acme).partition("?")

    answer = dict(parse_qsl(acme.authorize(f"{endpoint}?{urlencode({**dict(parse_qsl(query)), **changes})}")))

    assert answer == {"error": error, "state": "the-state", "iss": acme.issuer}


@pytest.mark.parametrize("name", ["client_id", "redirect_uri"])
def test_a_stranger_is_not_sent_back(name: str, acme: FakeAuthorizationServer) -> None:
    endpoint, _, query = url_for(acme).partition("?")

    with pytest.raises(AuthorizationRequestRefused):
        acme.authorize(f"{endpoint}?{urlencode({**dict(parse_qsl(query)), name: 'https://rival.example'})}")


def test_the_redirect_uri_of_the_exchange_has_to_be_the_same(acme: FakeAuthorizationServer) -> None:
    query = acme.authorize(url_for(acme))
    acme.redirect_uri = "https://delegation.test/callback/other"

    with pytest.raises(AuthorizationServerError, match="invalid_grant"):
        exchange(acme, query)


def test_its_knobs_turn(acme: FakeAuthorizationServer) -> None:
    seen: list[TokenRequest] = []
    acme.on_token_request = seen.append
    acme.granted_scope, acme.expires_in = "", None
    granted = exchange(acme, acme.authorize(url_for(acme)))
    assert (granted.scope, granted.lifetime_assumed, len(seen)) == ("", True, 1)

    acme.hangs = True
    with pytest.raises(AuthorizationServerError, match="token_endpoint_timeout"):
        exchange(acme, acme.authorize(url_for(acme)))

    acme.hangs, acme.denies = False, True
    assert parse_authorization_response(QueryDict(acme.authorize(url_for(acme)))).error == "access_denied"

    acme.denies = False
    acme.next_token_answer = (500, {"Content-Type": "application/json"}, b"{}")
    with pytest.raises(AuthorizationServerError, match="server_error"):
        exchange(acme, acme.authorize(url_for(acme)))


def test_it_always_sends_a_refresh_token(acme: FakeAuthorizationServer) -> None:
    """E15: eight of eleven servers do, unasked."""
    acme.authorize(url_for(acme))
    assert urlsplit(acme.configuration().token_endpoint).netloc == acme.host

    seen: list[str] = []
    answer = acme._redeem

    def watched(parameters: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        status, headers, body = answer(parameters)
        seen.append(json.loads(body)["refresh_token"])
        return status, headers, body

    acme._redeem = watched  # type: ignore[method-assign]
    exchange(acme, acme.authorize(url_for(acme)))

    assert seen == [PLANTED_REFRESH_TOKEN]
