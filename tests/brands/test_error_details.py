"""Text from an authorization server is stored on one line, so that it cannot forge a log line (H8)."""

import socket
from typing import Any

import pytest
from pytest_django import Settings

from infrastructure.crypto import Secret
from oauth_client import AuthorizationServerError, ClientCredentials, ErrorCode, ServerConfiguration
from oauth_client.endpoints import (
    INTROSPECTION_ENDPOINT,
    PAR_ENDPOINT,
    REVOCATION_ENDPOINT,
    TOKEN_ENDPOINT,
    Endpoint,
    post,
)
from oauth_client.errors import sanitised
from oauth_client.keys import signing_keys
from oauth_client.subject import get_userinfo

NO_ANSWER = "no answer: the host has no public address, refuses the connection or does not speak HTTP over TLS"
CONFIGURATION = ServerConfiguration(
    authorization_endpoint="https://login.acme.example/authorize",
    token_endpoint="https://intranet.acme.example/token",
    pushed_authorization_request_endpoint="https://intranet.acme.example/par",
    revocation_endpoint="https://intranet.acme.example/revoke",
    userinfo_endpoint="https://intranet.acme.example/userinfo",
    introspection_endpoint="https://intranet.acme.example/introspect",
    client_id="consumer-delegation",
    redirect_uri="https://delegation.test/callback/acme-orders",
    scope="orders.read",
)


@pytest.fixture(params=["private address", "no DNS entry", "connection refused"])
def intranet(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    """Answers for the name `intranet.acme.example`."""
    settings.ALLOW_LOCAL_ENDPOINTS = request.param == "connection refused"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = free.getsockname()

    def resolve(*_arguments: Any, **_options: Any) -> Any:
        if request.param == "no DNS entry":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        address = ("10.0.0.5", 443) if request.param == "private address" else closed
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


@pytest.mark.usefixtures("intranet")
@pytest.mark.parametrize(
    ("endpoint", "error"),
    [
        (TOKEN_ENDPOINT, "token_endpoint_unreachable"),
        (PAR_ENDPOINT, "par_endpoint_unreachable"),
        (REVOCATION_ENDPOINT, "revocation_endpoint_unreachable"),
        (INTROSPECTION_ENDPOINT, "subject_endpoint_unreachable"),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_a_sign_in_does_not_tell_which_names_exist_inside_our_network(endpoint: Endpoint, error: str) -> None:
    """N9. The bug: an admin typed names, tried a sign-in, and read `token_endpoint_blocked` for those that exist."""
    with pytest.raises(AuthorizationServerError) as refused:
        post(endpoint, CONFIGURATION, [], ClientCredentials(Secret("s3cret")))

    assert (refused.value.error, refused.value.detail) == (error, NO_ANSWER)


@pytest.mark.usefixtures("intranet")
def test_asking_who_signed_in_does_not_tell_it_either() -> None:
    """N9."""
    with pytest.raises(AuthorizationServerError) as refused:
        get_userinfo(CONFIGURATION, Secret("a-token"))

    assert (refused.value.error, refused.value.detail) == ("subject_endpoint_unreachable", NO_ANSWER)


@pytest.mark.usefixtures("intranet")
def test_fetching_keys_does_not_tell_it_either() -> None:
    """N9."""
    with pytest.raises(AuthorizationServerError) as refused:
        signing_keys("https://intranet.acme.example/jwks", "RS256", None)

    assert (refused.value.error, refused.value.detail) == ("jwks_unavailable", NO_ANSWER)


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("  Try\tagain\r\n2026-01-01 INFO  all is well ", "Try again 2026-01-01 INFO all is well"),
        ("left\u202eto right\u2028and on\x00\x1b[31m", "left to right and on [31m"),
        ("no\u00a0break, caf\u00e9", "no break, caf\u00e9"),
        ("x" * 201, "x" * 200),
        (" " * 999 + "yz", "y"),
        ("", ""),
    ],
)
def test_a_detail_is_one_short_line(said: str, kept: str) -> None:
    assert sanitised(said) == kept
    assert AuthorizationServerError(ErrorCode.SERVER_ERROR, said).detail == kept


def test_an_error_reads_as_its_code_with_its_detail_where_there_is_one() -> None:
    said = [str(AuthorizationServerError(ErrorCode.SERVER_ERROR, detail)) for detail in ("HTTP status 500", "")]
    assert said == ["server_error: HTTP status 500", "server_error"]


def test_an_error_without_a_detail_has_none() -> None:
    """What stood there would be read as what the server said."""
    error = AuthorizationServerError(ErrorCode.CONFIGURATION_CHANGED)
    assert (error.error, error.detail, str(error)) == ("configuration_changed", "", "configuration_changed")
