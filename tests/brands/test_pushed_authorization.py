"""The authorization request, pushed to the server before the browser is sent there (RFC 9126)."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from infrastructure.crypto import Secret, s256_code_challenge
from oauth_client import (
    AuthorizationServerError,
    ClientCredentials,
    authorization_url,
    pushed_authorization_url,
    transport,
)
from tests.brands.test_error_details import NO_ANSWER
from tests.fake_authorization_server import PLANTED_SECRET, mounted
from tests.modern_authorization_server import ModernAuthorizationServer

CREDENTIALS = ClientCredentials(Secret(PLANTED_SECRET))
PARAMETERS = {"state": "the-state", "nonce": "the-nonce", "code_challenge": s256_code_challenge("v" * 43)}
REQUEST_URI = "urn:ietf:params:oauth:request_uri:6esc_11ACC5bwc014ltc14eY22c"


@pytest.fixture
def acme() -> Iterator[ModernAuthorizationServer]:
    with mounted(ModernAuthorizationServer()) as server:
        assert isinstance(server, ModernAuthorizationServer)
        yield server


def pushed(server: ModernAuthorizationServer, **changes: Any) -> str:
    return pushed_authorization_url(server.configuration(**changes), CREDENTIALS, **PARAMETERS)


def answer_with(
    server: ModernAuthorizationServer, body: Any, status: int = 201, content_type: str = "application/json"
) -> None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": content_type, "Location": "https://rival.example/par"}
    server.next_push_answer = (status, headers, raw)


def refused(server: ModernAuthorizationServer) -> tuple[str, str]:
    with pytest.raises(AuthorizationServerError) as refusal:
        pushed(server)
    assert refusal.value.__cause__ is None
    return refusal.value.error.value, refusal.value.detail


def test_the_browser_is_shown_a_reference_and_nothing_else(acme: ModernAuthorizationServer) -> None:
    """B21: no state, no scope, no redirect URI in an address that histories and proxies keep."""
    answer_with(acme, {"request_uri": REQUEST_URI, "expires_in": 60})

    url = pushed(acme)

    assert url.partition("?")[0] == "https://login.acme.example/authorize"
    assert parse_qsl(urlsplit(url).query) == [("client_id", "consumer-delegation"), ("request_uri", REQUEST_URI)]


@pytest.mark.parametrize(
    "changes", [{}, {"scope": "openid orders.read", "prompt": "login", "max_age": 0}, {"scope": ""}], ids=str
)
def test_what_is_pushed_is_what_would_have_stood_in_the_address(
    changes: dict[str, Any], acme: ModernAuthorizationServer
) -> None:
    """B1, B2, B20, B21."""
    extra = {"audience": "a&b=ü", "state": "evil", "request_uri": "evil"}

    pushed(acme, extra_authorization_parameters=extra, **changes)

    url = authorization_url(acme.configuration(extra_authorization_parameters=extra, **changes), **PARAMETERS)
    assert acme.pushes[0].parameters == dict(parse_qsl(urlsplit(url).query))
    assert acme.pushes[0].parameters["audience"] == "a&b=ü"


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post", "none"])
def test_the_client_is_authenticated_as_at_the_token_endpoint(method: str, acme: ModernAuthorizationServer) -> None:
    """RFC 9126 section 2: the server knows who asks before any consumer comes."""
    acme.token_endpoint_auth_method = method

    answer = dict(parse_qsl(acme.authorize(pushed(acme))))

    assert answer == {"code": answer["code"], "state": "the-state", "iss": "https://login.acme.example"}


def test_the_authorization_endpoint_keeps_its_own_query(acme: ModernAuthorizationServer) -> None:
    """RFC 6749 section 3.1."""
    url = pushed(acme, authorization_endpoint="https://login.acme.example/authorize?tenant=acme")

    assert url.startswith(
        "https://login.acme.example/authorize?tenant=acme&client_id=consumer-delegation&request_uri=urn"
    )


NOT_A_URI = "request_uri is not an address of at most 512 characters"
NO_SECONDS = "expires_in is not a positive whole number of seconds"


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"request_uri": ...}, NOT_A_URI),
        ({"request_uri": None}, NOT_A_URI),
        ({"request_uri": ""}, NOT_A_URI),
        ({"request_uri": 7}, NOT_A_URI),
        ({"request_uri": [REQUEST_URI]}, NOT_A_URI),
        ({"request_uri": "urn:"}, NOT_A_URI),
        ({"request_uri": "no-scheme"}, NOT_A_URI),
        ({"request_uri": "urn:a b"}, NOT_A_URI),
        ({"request_uri": "urn:a\r\nSet-Cookie: x"}, NOT_A_URI),
        ({"request_uri": 'urn:"><script>'}, NOT_A_URI),
        ({"request_uri": "urn:ü"}, NOT_A_URI),
        ({"request_uri": f"urn:{'a' * 509}"}, NOT_A_URI),
        ({"expires_in": ...}, NO_SECONDS),
        ({"expires_in": None}, NO_SECONDS),
        ({"expires_in": 0}, NO_SECONDS),
        ({"expires_in": -1}, NO_SECONDS),
        ({"expires_in": True}, NO_SECONDS),
        ({"expires_in": "60"}, NO_SECONDS),
        ({"expires_in": 60.5}, NO_SECONDS),
    ],
    ids=str,
)
def test_an_answer_with_a_wrong_member_is_refused(
    changes: dict[str, Any], detail: str, acme: ModernAuthorizationServer
) -> None:
    """RFC 9126 section 2.2."""
    members = {"request_uri": REQUEST_URI, "expires_in": 60} | changes
    answer_with(acme, {name: value for name, value in members.items() if value is not ...})

    assert refused(acme) == ("invalid_par_response", detail)


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (200, {"request_uri": REQUEST_URI, "expires_in": 60}, "authorization_request_refused"),
        (302, b"", "invalid_par_response"),
        (307, b"", "invalid_par_response"),
        (400, {"error": "invalid_request"}, "invalid_request"),
        (400, {"error": "invalid_scope", "error_description": "planted"}, "invalid_scope"),
        (400, {"error": "access_denied"}, "authorization_request_refused"),
        (400, {"error": "made_up"}, "authorization_request_refused"),
        (401, {"error": "invalid_client"}, "invalid_client"),
        (404, b"<html>", "authorization_request_refused"),
        (413, b"", "authorization_request_refused"),
        (429, b"", "temporarily_unavailable"),
        (500, {"request_uri": REQUEST_URI, "expires_in": 60}, "server_error"),
        (503, b"", "temporarily_unavailable"),
    ],
)
def test_nothing_but_201_is_a_success(status: int, body: Any, error: str, acme: ModernAuthorizationServer) -> None:
    """RFC 9126 section 2.3, N4."""
    answer_with(acme, body, status)

    assert refused(acme)[0] == error
    assert len(acme.pushes) == 1


@pytest.mark.parametrize(
    ("body", "content_type", "detail"),
    [
        (b"<html>", "text/html", "it is HTML, not JSON"),
        (b"request_uri=urn:x&expires_in=60", "application/x-www-form-urlencoded", None),
        (b"[]", "application/json", "it is JSON, but not an object"),
        (b"", "application/json", "it is empty"),
        (b'{"request_uri": "urn:a", "request_uri": "urn:b", "expires_in": 5}', "application/json", None),
    ],
)
def test_what_is_no_json_object_is_refused(
    body: bytes, content_type: str, detail: str | None, acme: ModernAuthorizationServer
) -> None:
    answer_with(acme, body, content_type=content_type)

    error, said = refused(acme)
    assert error == "invalid_par_response"
    assert detail in (None, said)


def test_the_longest_allowed_reference_is_taken(acme: ModernAuthorizationServer) -> None:
    answer_with(acme, {"request_uri": f"urn:{'a' * 508}", "expires_in": 1, "more": {}})

    assert pushed(acme).endswith("a" * 508)


def test_a_wrong_secret_is_the_servers_to_refuse(acme: ModernAuthorizationServer) -> None:
    with pytest.raises(AuthorizationServerError, match="invalid_client"):
        pushed_authorization_url(acme.configuration(), ClientCredentials(Secret("wrong")), **PARAMETERS)


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (transport.EndpointBlocked("x"), "par_endpoint_unreachable"),
        (transport.EndpointTimeout("x"), "par_endpoint_timeout"),
        (transport.EndpointUnreachable("x"), "par_endpoint_unreachable"),
        (transport.ResponseTooLarge("x"), "invalid_par_response"),
    ],
)
def test_a_call_without_a_response_ends_with_the_code_of_its_reason(
    failure: transport.OutboundError, error: str, acme: ModernAuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: Any, **_options: Any) -> Any:
        raise failure

    monkeypatch.setattr(ModernAuthorizationServer, "send", fail)

    detail = NO_ANSWER if error == "par_endpoint_unreachable" else "x"
    assert refused(acme) == (error, detail)
