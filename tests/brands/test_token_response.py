"""Every row of "What comes back", sent over TLS by a hostile server; and what an exchange leaves behind."""

import io
import logging
import os
import traceback
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
import time_machine
from oauthlib.oauth2 import WebApplicationClient
from pytest_django import Settings
from requests.adapters import HTTPAdapter

from infrastructure.crypto import Secret
from oauth_client import (
    AuthorizationServerError,
    ClientCredentials,
    ServerConfiguration,
    TokenResponse,
    exchange_code,
    transport,
)
from tests.brands.security_table import NOW, USUAL
from tests.brands.token_refusal_rows import Row
from tests.brands.token_response_rows import ROWS
from tests.hostile_token_endpoint import (
    ACCESS_TOKEN,
    REFRESH_TOKEN,
    HostileTokenEndpoint,
    http_answer,
    running,
    token_answer,
    token_body,
)
from tests.tls import Authority

CODE, VERIFIER, CLIENT_SECRET = "planted-code", "planted-verifier", "planted-secret"
SECRETS = [ACCESS_TOKEN, REFRESH_TOKEN, CODE, VERIFIER, CLIENT_SECRET, b64encode(CLIENT_SECRET.encode()).decode()[:12]]


@pytest.fixture(scope="module")
def server(tls_authority: Authority) -> Iterator[HostileTokenEndpoint]:
    with running(tls_authority.issue()) as endpoint:
        yield endpoint


@pytest.fixture
def endpoint(server: HostileTokenEndpoint, tls_authority: Authority, settings: Settings) -> HostileTokenEndpoint:
    settings.OUTBOUND_CA_FILE = str(tls_authority.ca_file)
    settings.ALLOW_LOCAL_ENDPOINTS = True
    server.play(token_answer())
    return server


def configuration(url: str, **changes: Any) -> ServerConfiguration:
    return ServerConfiguration(
        **{
            "authorization_endpoint": "https://login.acme.example/authorize",
            "token_endpoint": url,
            "client_id": "consumer-delegation",
            "redirect_uri": "https://delegation.test/callback/acme-orders",
            "scope": "orders.read profile",
            **changes,
        }
    )


def exchange(url: str, **changes: Any) -> TokenResponse:
    configured = configuration(url, **changes)
    credentials = ClientCredentials(Secret(CLIENT_SECRET))
    granted = exchange_code(configured, code=Secret(CODE), code_verifier=Secret(VERIFIER), credentials=credentials)
    granted.check_required_scope(configured)
    return granted


@pytest.mark.parametrize("row", [row for row in ROWS if not row.error], ids=str)
def test_an_answer_that_is_good_enough_is_read(row: Row, endpoint: HostileTokenEndpoint) -> None:
    """E2 to E15: the accepting halves of the rows."""
    endpoint.play(row.answer)
    facts = {**USUAL, **row.facts}

    with time_machine.travel(NOW, tick=False):
        granted = exchange(endpoint.url, **row.configured)

    assert replace(granted, scope_assumed=False) == TokenResponse(
        access_token=Secret(facts["access_token"]),
        token_type="DPoP" if row.configured.get("dpop_bound_access_tokens") else "Bearer",
        scope=facts["scope"],
        scope_widened=facts["scope_widened"],
        expires_at=NOW + timedelta(seconds=facts["lifetime"]),
        lifetime_assumed=facts["lifetime_assumed"],
        id_token=None,
    )


@pytest.mark.parametrize("row", [row for row in ROWS if row.error], ids=str)
def test_every_other_answer_is_refused(row: Row, endpoint: HostileTokenEndpoint) -> None:
    """E1 to E16, E20: one reason each, and the code is sent once."""
    endpoint.play(row.answer)

    with pytest.raises(AuthorizationServerError) as refused:
        exchange(endpoint.url, **row.configured)

    assert (refused.value.error, refused.value.detail) == (row.error, row.detail)
    assert len(endpoint.requests) == 1


def test_expiry_counts_from_the_start_of_the_request(endpoint: HostileTokenEndpoint) -> None:
    """E12: a slow answer must not add to the token's life."""
    with time_machine.travel(NOW, tick=False) as clock:

        def answer_slowly() -> Iterator[bytes]:
            clock.shift(8)
            yield token_answer(expires_in=600)

        endpoint.script = answer_slowly
        granted = exchange(endpoint.url)

    assert granted.expires_at == NOW + timedelta(seconds=570)


def test_an_id_token_is_handed_on_where_it_was_asked_for(endpoint: HostileTokenEndpoint) -> None:
    endpoint.play(token_answer(id_token="a.b.c"))

    assert exchange(endpoint.url, scope="openid orders.read").id_token == Secret("a.b.c")


def test_a_scope_with_commas_is_compared_like_with_like(endpoint: HostileTokenEndpoint) -> None:
    """E14: where the brand itself separates by commas. A name with a comma stays one where it does not."""
    endpoint.play(token_answer(scope="read,write"))

    granted = exchange(endpoint.url, scope="read write", required_scope="write", scope_separator="comma")
    odd = exchange(endpoint.url, scope="read,write", required_scope="read,write")

    assert (granted.scope, granted.scope_widened) == ("read write", False)
    assert (odd.scope, odd.scope_widened) == ("read,write", False)


def test_an_answer_without_a_scope_is_told_apart_from_one_that_names_what_was_asked(
    endpoint: HostileTokenEndpoint,
) -> None:
    """E14: only the first may be narrowed by the redirect."""
    asked = exchange(endpoint.url)
    endpoint.play(token_answer(scope="orders.read profile"))

    assert (asked.scope_assumed, exchange(endpoint.url).scope_assumed) == (True, False)


def test_every_required_scope_that_is_missing_is_named(endpoint: HostileTokenEndpoint) -> None:
    """E13."""
    endpoint.play(token_answer(scope="profile"))

    with pytest.raises(AuthorizationServerError) as refusal:
        exchange(endpoint.url, scope="profile read write", required_scope="read write")

    assert (refusal.value.error.value, refusal.value.detail) == ("insufficient_scope", "not granted: read write")


def test_one_second_is_the_shortest_life(endpoint: HostileTokenEndpoint) -> None:
    """E8: nothing shorter is a lifetime, see the rows."""
    endpoint.play(token_answer(expires_in=1))

    assert exchange(endpoint.url).lifetime_assumed is False


@pytest.fixture
def everything_logged() -> Iterator[io.StringIO]:
    """Log everything, with every library at DEBUG."""
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    names = ["", "oauthlib", "requests_oauthlib", "requests", "urllib3", "requests_hardened"]
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
    loggers[0].addHandler(handler)
    logging.getLogger("requests_oauthlib.oauth2_session").debug("the library is heard")
    yield log
    loggers[0].removeHandler(handler)
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_no_secret_is_logged_or_raised(
    row: Row, endpoint: HostileTokenEndpoint, everything_logged: io.StringIO
) -> None:
    """E15, H2, H5: the library logs request and answer at DEBUG; it is shown neither."""
    endpoint.play(row.answer)
    try:
        said = repr(exchange(endpoint.url, **row.configured))
    except AuthorizationServerError as error:
        said = "".join(traceback.format_exception(error))

    said += everything_logged.getvalue()
    assert "the library is heard" in said
    assert [secret for secret in SECRETS if secret in said] == []


def test_the_library_is_shown_no_answer(endpoint: HostileTokenEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """E15: it would keep the refresh token, the ID token and whatever else came along."""
    clients: list[WebApplicationClient] = []
    prepare = WebApplicationClient.prepare_request_body

    def watched(client: WebApplicationClient, *arguments: Any, **options: Any) -> Any:
        clients.append(client)
        return prepare(client, *arguments, **options)

    monkeypatch.setattr(WebApplicationClient, "prepare_request_body", watched)
    granted = exchange(endpoint.url)

    (client,) = clients
    assert granted.access_token == Secret(ACCESS_TOKEN)
    assert [secret for secret in SECRETS if secret in f"{vars(client)}"] == []


def test_an_error_keeps_nothing_of_the_servers_text(endpoint: HostileTokenEndpoint) -> None:
    """E2, H5: the description is shown to nobody."""
    endpoint.play(http_answer(b'{"error": "invalid_grant", "error_description": "planted-text"}', 400))

    with pytest.raises(AuthorizationServerError) as refused:
        exchange(endpoint.url)

    assert "planted-text" not in repr(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (transport.EndpointBlocked("blocked"), "token_endpoint_unreachable"),
        (transport.EndpointTimeout("late"), "token_endpoint_timeout"),
        (transport.EndpointUnreachable("away"), "token_endpoint_unreachable"),
        (transport.ResponseTooLarge("large"), "invalid_token_response"),
    ],
)
def test_a_call_without_a_response_ends_with_the_code_of_its_reason(
    failure: transport.OutboundError, error: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """N9: only the log tells a blocked address from one that refuses the connection."""

    class Failing(HTTPAdapter):
        def send(self, *_arguments: Any, **_options: Any) -> Any:
            raise failure

    monkeypatch.setattr(transport, "adapter_for", lambda _url: Failing())
    with pytest.raises(AuthorizationServerError) as refused:
        exchange("https://login.acme.example/token")

    (line,) = [record for record in caplog.records if record.name == "consumer_delegation.outbound"]
    assert (refused.value.error, line.error) == (error, str(failure))  # type: ignore[attr-defined]
    assert (refused.value.__cause__, refused.value.__suppress_context__) == (None, True)


@pytest.mark.parametrize(
    "url", ["https://localhost/token", "http://localhost/token", "ftp://acme.example/", "https://a b/"]
)
def test_an_address_that_is_not_called_is_an_error_like_any_other(url: str, settings: Settings) -> None:
    """N1, N2: whatever a row holds, one exception comes out."""
    settings.ALLOW_LOCAL_ENDPOINTS = False

    with pytest.raises(AuthorizationServerError) as refused:
        exchange(url)

    assert refused.value.error == "token_endpoint_unreachable"


def test_plain_http_works_on_loopback_without_the_librarys_switches(settings: Settings) -> None:
    """N10: neither variable is set, and the demo's brand is on http://127.0.0.1."""

    class Brand(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.wfile.write(token_answer())

        def log_message(self, *_arguments: Any) -> None:
            """Print nothing."""

    settings.ALLOW_LOCAL_ENDPOINTS = True
    with ThreadingHTTPServer(("127.0.0.1", 0), Brand) as brand:
        Thread(target=brand.serve_forever, args=(0.05,), daemon=True).start()
        granted = exchange(f"http://127.0.0.1:{brand.server_port}/token")
        settings.ALLOW_LOCAL_ENDPOINTS = False
        with pytest.raises(AuthorizationServerError, match="token_endpoint_unreachable"):
            exchange(f"http://127.0.0.1:{brand.server_port}/token")
        brand.shutdown()

    assert granted.access_token == Secret(ACCESS_TOKEN)
    assert [name for name in os.environ if name.startswith("OAUTHLIB_")] == []


def test_a_token_response_does_not_show_its_tokens(endpoint: HostileTokenEndpoint) -> None:
    """K5."""
    endpoint.play(http_answer(token_body(id_token="a.b.planted")))

    shown = repr(exchange(endpoint.url, scope="openid orders.read profile"))

    assert ACCESS_TOKEN not in shown
    assert "planted" not in shown
