"""Revoking tokens at a server (RFC 7009)."""

import traceback
from collections.abc import Iterator
from typing import Any

import pytest
from requests.adapters import HTTPAdapter

from infrastructure.crypto import Secret
from oauth_client import AuthorizationServerError, ClientCredentials, revoke_token, transport
from tests.fake_authorization_server import PLANTED_SECRET, Answer, mounted
from tests.modern_authorization_server import ModernAuthorizationServer

TOKEN = Secret("planted-access-token-7Yq")
CREDENTIALS = ClientCredentials(Secret(PLANTED_SECRET))
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def acme() -> Iterator[ModernAuthorizationServer]:
    with mounted(ModernAuthorizationServer()) as server:
        assert isinstance(server, ModernAuthorizationServer)
        yield server


def refused(server: ModernAuthorizationServer, *answers: Answer) -> AuthorizationServerError:
    server.next_revocation_answers = list(answers)
    with pytest.raises(AuthorizationServerError) as refusal:
        revoke_token(server.configuration(), TOKEN, CREDENTIALS)
    return refusal.value


def test_the_request_is_what_the_rfc_says(acme: ModernAuthorizationServer) -> None:
    """Section 2.1: the token, its kind, and the client authentication of the token endpoint."""
    revoke_token(acme.configuration(), TOKEN, CREDENTIALS)

    (request,) = acme.revocation_requests
    assert request.url == "https://login.acme.example/revoke"
    assert request.headers["Authorization"].startswith("Basic ")
    assert request.parameters == {"token": TOKEN.reveal(), "token_type_hint": "access_token"}


@pytest.mark.parametrize("method", ["client_secret_post", "none"])
def test_every_client_authentication_works_here_too(method: str, acme: ModernAuthorizationServer) -> None:
    acme.token_endpoint_auth_method = method

    revoke_token(acme.configuration(), TOKEN, CREDENTIALS)

    assert len(acme.revocation_requests) == 1


@pytest.mark.parametrize(
    ("status", "body", "error", "is_retryable"),
    [
        (503, b"", "temporarily_unavailable", True),
        (429, b"slow down", "temporarily_unavailable", True),
        (500, b'{"access_token": "x"}', "server_error", True),
        (502, b"<html>", "server_error", True),
        (400, b'{"error": "unsupported_token_type"}', "unsupported_token_type", False),
        (400, b'{"error": "invalid_client"}', "invalid_client", False),
        (400, b'{"error": "something_else"}', "revocation_refused", False),
        (401, b"", "invalid_client", False),
        (403, b"", "revocation_refused", False),
        (404, b"<html>", "revocation_refused", False),
        (201, b"{}", "invalid_revocation_response", False),
        (202, b"", "invalid_revocation_response", False),
        (205, b"", "invalid_revocation_response", False),
        (206, b"", "invalid_revocation_response", False),
        (302, b"", "invalid_revocation_response", False),
        (307, b"", "invalid_revocation_response", False),
    ],
)
def test_nothing_but_200_and_204_is_a_success(
    status: int, body: bytes, error: str, is_retryable: bool, acme: ModernAuthorizationServer
) -> None:
    """Section 2.2.1, N4; and whether it is worth coming back."""
    refusal = refused(acme, (status, JSON | {"Location": "https://rival.example/revoke"}, body))

    assert (refusal.error, refusal.is_retryable) == (error, is_retryable)
    assert len(acme.revocation_requests) == 1


def test_an_empty_success_is_one(acme: ModernAuthorizationServer) -> None:
    """The bug: servers that answer 204 had revoked the token, and the admin read that their answer was invalid."""
    acme.next_revocation_answers = [(204, {}, b"")]

    revoke_token(acme.configuration(), TOKEN, CREDENTIALS)

    assert len(acme.revocation_requests) == 1


@pytest.mark.parametrize("body", [b"", b"<html>OK</html>", b'{"error": "invalid_token"}'])
def test_the_body_of_a_success_is_not_looked_at(body: bytes, acme: ModernAuthorizationServer) -> None:
    """Section 2.2: the content is ignored; the token may long be unknown there."""
    acme.next_revocation_answers = [(200, {}, body)]

    revoke_token(acme.configuration(), TOKEN, CREDENTIALS)


@pytest.mark.parametrize(
    ("failure", "error", "is_retryable"),
    [
        (transport.EndpointBlocked("blocked"), "revocation_endpoint_unreachable", True),
        (transport.EndpointTimeout("late"), "revocation_endpoint_timeout", True),
        (transport.EndpointUnreachable("away"), "revocation_endpoint_unreachable", True),
        (transport.ResponseTooLarge("large"), "invalid_revocation_response", False),
    ],
)
def test_a_call_without_a_response_ends_with_the_code_of_its_reason(
    failure: transport.OutboundError, error: str, is_retryable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(HTTPAdapter):
        def send(self, *_arguments: Any, **_options: Any) -> Any:
            raise failure

    monkeypatch.setattr(transport, "adapter_for", lambda _url: Failing())
    with pytest.raises(AuthorizationServerError) as refusal:
        revoke_token(ModernAuthorizationServer().configuration(), TOKEN, CREDENTIALS)

    assert (refusal.value.error, refusal.value.is_retryable) == (error, is_retryable)
    assert (refusal.value.__cause__, refusal.value.__suppress_context__) == (None, True)


def test_without_an_endpoint_nothing_is_called(acme: ModernAuthorizationServer) -> None:
    with pytest.raises(AuthorizationServerError, match="revocation_endpoint_unreachable"):
        revoke_token(acme.configuration(revocation_endpoint=""), TOKEN, CREDENTIALS)


def test_the_token_is_in_no_error_and_no_log(acme: ModernAuthorizationServer, caplog: pytest.LogCaptureFixture) -> None:
    """H1, H5: also where the server sends it back."""
    caplog.set_level("DEBUG")
    refusal = refused(acme, (400, JSON, b'{"error": "planted-access-token-7Yq"}'))

    said = "".join(traceback.format_exception(refusal)) + caplog.text
    assert [secret for secret in (TOKEN.reveal(), PLANTED_SECRET) if secret in said] == []
