"""Where a token read is answered: before Django's handler, under every server, and what it leaves to the full way."""

import logging
import time
from datetime import timedelta
from io import BytesIO
from typing import Any

import pytest
import time_machine
from django.conf import settings as site
from django.core.handlers.wsgi import WSGIHandler
from django.core.servers.basehttp import get_internal_wsgi_application
from django.db import OperationalError, connection
from django.utils import timezone

from brands.models import BotKey
from conversations import before_django
from conversations.flow import read_counts
from conversations.models import AccessToken, AuthorizationRequest, Conversation
from infrastructure import prepared, rate_limits
from infrastructure.postgresql import base
from infrastructure.rate_limits import Limit
from tests.cast import CHAT, HOST, Bot, Browser, code_on
from tests.conversations.test_query_counts import post
from tests.fake_authorization_server import FakeAuthorizationServer
from tests.handler import Handler

pytestmark = pytest.mark.django_db

IN_FRONT = [
    "infrastructure.logs.request_id_middleware",
    "web.middleware.head_middleware",
    "web.middleware.no_store_middleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "web.middleware.bot_api_middleware",
]
IN_FRONT_OF_SIGN_INS = [
    *IN_FRONT,
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "web.errors.refuse_nul_middleware",
    "web.middleware.sign_in_middleware",
]


@pytest.fixture
def ready(acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer) -> Bot:
    """Return acme-bot where the next read is answered with the token."""
    acme_bot.complete(code_on(ada.sign_in(acme_bot.challenge()["url"], acme_login)))
    acme_bot.token()
    return acme_bot


def environ_of(bot: Bot, **changes: str) -> dict[str, Any]:
    return {
        "REQUEST_METHOD": "GET", "SERVER_NAME": HOST, "SERVER_PORT": "443", "wsgi.url_scheme": "https",
        "wsgi.input": BytesIO(), "HTTP_HOST": HOST, "PATH_INFO": f"/api/v1/conversations/{CHAT}/token",
        "HTTP_AUTHORIZATION": f"Bearer {bot.key}", **changes,
    }  # fmt: skip


def fast(environ: dict[str, Any]) -> tuple[list[tuple[str, str]], bytes] | None:
    """Answer by the fast path alone; None if it passes the request on."""
    started: list[Any] = []
    body = before_django.before(lambda *_: ())(environ, lambda *start: started.append(start))
    assert [status for status, _ in started] in ([], ["200 OK"])
    return (started[0][1], b"".join(body)) if started else None


def test_a_middleware_in_front_of_bot_api_and_button_is_known_to_the_fast_path() -> None:
    """It answers where none of these would refuse. Write what a new one checks into `_passes_middleware`."""
    assert site.MIDDLEWARE[: len(IN_FRONT_OF_SIGN_INS)] == IN_FRONT_OF_SIGN_INS


def test_production_and_runserver_answer_a_read_before_django(ready: Bot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of Django's handler runs, under whichever server."""
    monkeypatch.setattr(base, "_process", base._Process())  # importing it turns this process into a server's
    monkeypatch.setattr(prepared, "_process", prepared._Process())
    for name in ("logThreads", "logMultiprocessing", "_srcfile"):
        monkeypatch.setattr(f"logging.{name}", getattr(logging, name))
    monkeypatch.setattr("delegation_site.checks.refuse_dangerous_settings", lambda: None)
    application: Any = get_internal_wsgi_application()
    monkeypatch.setattr(WSGIHandler, "__call__", lambda *_: (b"django",))
    started: list[Any] = []
    read = b"".join(application(environ_of(ready), lambda *start: started.append(start)))
    assert (started[0][0], b'"access_token":"access-token-' in read) == ("200 OK", True)
    assert application(environ_of(ready, REQUEST_METHOD="DELETE"), print) == (b"django",)


def test_django_gets_the_request_as_the_server_gave_it(ready: Bot) -> None:
    environ = environ_of(ready, REQUEST_METHOD="DELETE")
    before = dict(environ)
    given: Any = before_django.before(lambda *passed: passed)(environ, print)
    assert (given[0] is environ, environ == before, given[1]) == (True, True, print)


@pytest.mark.parametrize(
    "changes",
    [
        {"REQUEST_METHOD": "HEAD"},
        {"wsgi.url_scheme": "http"},
        {"HTTP_HOST": "elsewhere.example"},
        {"HTTP_HOST": ""},
        {"HTTP_COOKIE": "a=%00"},
        {"QUERY_STRING": "min_ttl=%00"},
        {"QUERY_STRING": "min_ttl=\xff"},
        {"QUERY_STRING": "a=1&" * 1001},
        {"CONTENT_TYPE": "text/plain; charset=utf-16"},
        {"SCRIPT_NAME": "/static"},
        {"PATH_INFO": f"/api/v1/conversations/{CHAT}/token/"},
        {"PATH_INFO": f"/api/v1/conversations/a/{CHAT}/token"},
        {"HTTP_AUTHORIZATION": "Bearer cdk_x"},
        {"HTTP_X_PURPOSE": "NO"},
    ],
)
def test_what_something_else_has_to_judge_is_passed_on_without_a_trace(ready: Bot, changes: dict[str, str]) -> None:
    """H6, B16, G2: no query, count or log line before the full way has looked at it."""
    read_counts.reset_in_process()
    rate_limits.reset_in_process()
    assert fast(environ_of(ready, **changes)) is None
    assert (read_counts._pending._counts, rate_limits._memory._counters) == ({}, {})


@pytest.mark.parametrize(
    "name", ["PATH_INFO", "HTTP_HOST", "HTTP_AUTHORIZATION", "REQUEST_METHOD", "wsgi.url_scheme", "QUERY_STRING"]
)
def test_a_variable_that_a_server_leaves_out_is_no_fault(ready: Bot, name: str) -> None:
    """Without a query the answer is the token (PEP 3333 lets a server leave it out)."""
    environ = environ_of(ready) | {"QUERY_STRING": ""}
    del environ[name]
    assert (fast(environ) is not None) == (name == "QUERY_STRING")


@pytest.mark.parametrize("host", ["", "a b", "delegation.test/x"])
def test_a_host_that_is_no_name_is_not_read_where_every_name_is_allowed(ready: Bot, settings: Any, host: str) -> None:
    """B16: Django refuses it, too."""
    settings.ALLOWED_HOSTS = ["*"]
    assert fast(environ_of(ready)) is not None
    assert fast(environ_of(ready, HTTP_HOST=host)) is None


@pytest.mark.parametrize("proto", ["https", " https ", "https, http"])
def test_a_request_that_the_proxy_took_by_tls_is_read(ready: Bot, settings: Any, proto: str) -> None:
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    plain = {"wsgi.url_scheme": "http"}
    assert fast(environ_of(ready, **plain, HTTP_X_FORWARDED_PROTO=proto)) is not None
    assert fast(environ_of(ready, **plain, HTTP_X_FORWARDED_PROTO="http, https")) is None
    assert fast(environ_of(ready, **plain)) is None


def test_it_has_the_headers_of_every_answer_to_a_bot(ready: Bot, monkeypatch: pytest.MonkeyPatch) -> None:
    """H6, B9."""
    monkeypatch.setattr(before_django, "_kept_headers", {})
    answered = fast(environ_of(ready))
    assert answered is not None
    headers, body = answered
    full = Handler().django(environ_of(ready))
    request_id = dict(headers)["X-Request-Id"]
    assert sorted(headers) == sorted({**dict(full.items()), "X-Request-Id": request_id}.items())
    assert (dict(headers)["Content-Length"], request_id.isalnum()) == (str(len(body)), True)


def test_plain_and_tls_requests_each_have_their_own_headers(
    ready: Bot, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B9: HSTS belongs to an answer by TLS only, whichever of the two came first."""
    settings.SECURE_SSL_REDIRECT, settings.SECURE_HSTS_SECONDS = False, 3600
    for schemes in (("http", "https"), ("https", "http")):
        monkeypatch.setattr(before_django, "_kept_headers", {})
        for scheme in schemes:
            environ = environ_of(ready) | {"wsgi.url_scheme": scheme}
            answered = fast(dict(environ))
            assert answered is not None
            headers = dict(answered[0])
            full = dict(Handler().django(environ).items())
            assert headers | {"X-Request-Id": ""} == full | {"X-Request-Id": ""}
            assert ("Strict-Transport-Security" in headers) == (scheme == "https")


def test_a_token_of_an_older_session_is_not_read(ready: Bot) -> None:
    """S2, S3: in rows that SQL has changed. A newer session is closed, and only that one counts."""
    old = Conversation.objects.get()
    Conversation.objects.create(
        brand=old.brand, external_id=old.external_id, session=old.session + 1, closed_at=timezone.now()
    )
    assert fast(environ_of(ready)) is None
    assert (ready.token()[0], ready.token()[1]["code"]) == (410, "conversation_closed")


def test_a_database_that_is_away_is_asked_once(ready: Bot) -> None:
    """The full way answers 503 for the fast one: a second time-out would hold the thread twice as long."""
    asked: list[str] = []

    def away(_: Any, sql: str, *__: Any) -> None:
        asked.append(sql)
        raise OperationalError

    with connection.execute_wrapper(away):
        answer = Handler().__call__(environ_of(ready))
    assert (answer.status_code, answer["Retry-After"], len(asked)) == (503, "30", 1)


@pytest.mark.usefixtures("acme_server")
def test_a_database_that_is_away_when_the_button_is_pressed_is_asked_once(acme_bot: Bot, ada: Browser) -> None:
    """Its limits are counted before Django's handler, and the full way answers 503 without counting again (G8)."""
    url = acme_bot.challenge()["url"]
    ada.get(url)
    asked: list[str] = []

    def away(_: Any, sql: str, *__: Any) -> None:
        asked.append(sql)
        raise OperationalError

    ada.client.raise_request_exception = False
    with connection.execute_wrapper(away):
        answer = post(ada, url)
    assert (answer.status_code, answer["Retry-After"], len(asked)) == (503, "30", 1)


@pytest.mark.usefixtures("acme_server")
def test_a_form_of_another_site_is_refused_once(acme_bot: Bot, caplog: pytest.LogCaptureFixture) -> None:
    """B22: before Django's handler by the view's own check. The page gets what the middleware adds to every page."""
    url = acme_bot.challenge()["url"]
    with caplog.at_level(logging.WARNING, logger="django.security.csrf"):
        answer = Browser().client.post(
            url, b"", "application/x-www-form-urlencoded", secure=True, headers={"Origin": "https://rival.example"}
        )
    assert (answer.status_code, len(caplog.records)) == (403, 1)
    assert "default-src 'none'" in answer["Content-Security-Policy"]
    assert not AuthorizationRequest.objects.exists()


def test_a_refused_read_is_counted_once(ready: Bot, monkeypatch: pytest.MonkeyPatch) -> None:
    """G8: on the fast path, and not again on the full way that answers it."""
    rate_limits.reset_in_process()
    AccessToken.objects.update(ciphertext=b"x")
    assert ready.token()[0] == 500
    assert [times for times, _ in rate_limits._memory._counters.values()] == [1]
    monkeypatch.setattr(rate_limits, "TOKEN_READS_PER_KEY", Limit("token-reads-per-key", 1, 60))
    assert (ready.token()[0], ready.token()[1]["code"]) == (429, "rate_limited")
    assert [times for times, _ in rate_limits._memory._counters.values()] == [3]


def test_a_key_that_is_used_notes_it_once_a_minute(ready: Bot) -> None:
    with time_machine.travel(timezone.now() + timedelta(minutes=1), tick=False):
        assert fast(environ_of(ready)) is not None
        assert BotKey.objects.get().last_used_at == timezone.now()


@pytest.mark.django_db(transaction=True)
def test_a_connection_that_is_old_ends_after_a_read(ready: Bot) -> None:
    """Plans that PostgreSQL cached while a table was small would be used for ever."""
    connection.ensure_connection()
    for close_at in (None, time.monotonic() + 60):
        connection.close_at = close_at
        assert (fast(environ_of(ready)) is not None, connection.connection is not None) == (True, True)
    connection.close_at = time.monotonic() - 1
    assert (fast(environ_of(ready)) is not None, connection.connection) == (True, None)


@pytest.mark.parametrize("scopes", [[], {"token:read": 1}, "token:read", [["token:read"]], ["token:read", 1], 5])
def test_scopes_that_are_no_list_of_names_are_judged_by_the_full_way(ready: Bot, scopes: Any) -> None:
    """G3: a row that was changed by SQL."""
    BotKey.objects.update(scopes=scopes)
    assert fast(environ_of(ready)) is None
