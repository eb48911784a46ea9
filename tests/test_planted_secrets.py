"""Silence: unique values are planted, every path runs, failing ones too, and nothing that leaves us holds one (H1)."""

import gc
import json
import logging
import sys
import weakref
from collections.abc import Iterator
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from django.conf import settings
from django.db import connection
from django.test import RequestFactory
from django.utils import timezone
from pythonjsonlogger.json import JsonFormatter

from brands.models import AuthorizationServer
from conversations.flow import call_counts, sign_in
from conversations.models import (
    AccessToken,
    ApiCallCount,
    AuditEvent,
    AuthorizationRequest,
    Challenge,
    TrialSignIn,
)
from conversations.outbox import worker
from oauth_client import transport
from tests.brand_api import REFUSED, Caller
from tests.cast import ACME_SECRET, Bot, Browser, code_on, heading_of, use_openid
from tests.conversations.test_trial_sign_in import TrialBrowser
from tests.fake_authorization_server import PLANTED_REFRESH_TOKEN, FakeAuthorizationServer
from tests.hostile_token_endpoint import http_answer
from tests.limits import pause
from tests.webhook_receiver import Receiver
from web.errors import QuietExceptionReporter

pytestmark = pytest.mark.django_db

JSON = {"Content-Type": "application/json"}
PATHS = {"userinfo": "userinfo", "introspection": "introspect"}


class Everything(logging.Handler):
    """Keeps what a JSON line of each record would hold, at DEBUG, tracebacks included."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(JsonFormatter())
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record) + repr(record.__dict__))


@pytest.fixture
def everything_logged() -> Iterator[list[str]]:
    """Listen to all loggers at DEBUG, as an operator in trouble would."""
    handler, root = Everything(), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield handler.lines
    root.removeHandler(handler)
    root.setLevel(level)


class Planted:
    """The values that must be found nowhere, by what they are."""

    def __init__(self, bot: Bot, browser: Browser, login: FakeAuthorizationServer, hooks: Receiver) -> None:
        self.bot, self.browser, self.login, self.hooks = bot, browser, login, hooks
        self.codes: list[str] = []

    def challenge(self) -> dict[str, Any]:
        """Replace the challenge of the one chat, more often than a bot may without a pause."""
        pause()
        return self.bot.challenge(replace=True)

    def values(self) -> dict[str, list[str]]:
        cookies = self.browser.client.cookies.items()
        return {
            "client secret": [ACME_SECRET, "planted+acme%2Bsecret%2F7%25%3A%C3%A9"],
            "bot key": [self.bot.key, self.bot.key.rsplit("_", 1)[1]],
            "access token": list(self.login.issued_access_tokens),
            "refresh token": [PLANTED_REFRESH_TOKEN],
            "state": [request["state"] for request in self.login.authorization_requests],
            "nonce": [request["nonce"] for request in self.login.authorization_requests],
            "code": [request.parameters["code"] for request in self.login.token_requests],
            "code verifier": [request.parameters["code_verifier"] for request in self.login.token_requests],
            "cookie": [morsel.value for name, morsel in cookies if name.startswith("__Host-attempt")],
            "completion code": self.codes,
            "subject": ["planted-subject-9Kq"],
            "response member": ["planted-member-6Wd", "planted-undeclared-3Fp"],
            "webhook secret": [self.hooks.secret, self.hooks.secret.removeprefix("whsec_")],
        }

    def found_in(self, text: str) -> dict[str, list[str]]:
        return {
            kind: [value for value in values if value in text]
            for kind, values in self.values().items()
            if any(value in text for value in values)
        }


@pytest.fixture
def planted(
    acme_bot: Bot,
    ada: Browser,
    acme_login: FakeAuthorizationServer,
    acme_server: AuthorizationServer,
    acme_hooks: Receiver,
) -> Planted:
    """Return the planted values of a journey with OpenID Connect."""
    use_openid(acme_server, acme_login)
    acme_login.subject = "planted-subject-9Kq"
    AuthorizationServer.objects.update(token_response_members=["patient"])
    acme_login.further_members = {"patient": "planted-member-6Wd", "user_id": "planted-undeclared-3Fp"}
    return Planted(acme_bot, ada, acme_login, acme_hooks)


def run_every_path(planted: Planted, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run what can happen and return everything that was answered to bots, and the pages without the code's own."""
    bot, ada, login = planted.bot, planted.browser, planted.login
    answers: list[str] = []

    def said(answer: Any) -> Any:
        answers.append(f"{answer.headers} {answer.content.decode()}" if hasattr(answer, "headers") else repr(answer))
        return answer

    def journey() -> dict[str, Any]:
        challenge = planted.challenge()
        page = ada.sign_in(challenge["url"], login)
        planted.codes.append(code_on(page))
        said(challenge)
        return challenge

    challenge = journey()
    said(bot.complete("000000"))
    said(bot.read_challenge(challenge))
    said(bot.complete(planted.codes[0]))
    said(bot.in_chat("GET"))
    # The one answer that holds it: it belongs to whoever reads the token.
    assert bot.token()[1]["token_response_members"] == {"patient": "planted-member-6Wd"}
    said(bot.in_chat("DELETE", "/token"))
    for bad in (
        (500, JSON, b'{"access_token":"planted-in-500","refresh_token":"' + PLANTED_REFRESH_TOKEN.encode() + b'"}'),
        (200, {"Content-Type": "text/html"}, b"<h1>" + PLANTED_REFRESH_TOKEN.encode()),
        (200, JSON, b'{"access_token": 7, "refresh_token": "' + PLANTED_REFRESH_TOKEN.encode() + b'"}'),
        (400, JSON, b'{"error": "invalid_grant", "error_description": "' + ACME_SECRET.encode() + b'"}'),
    ):
        login.next_token_answer = bad
        said(ada.sign_in(planted.challenge()["url"], login))
    login.hangs = True
    said(ada.sign_in(planted.challenge()["url"], login))
    login.hangs = False
    login.id_token_changes = {"nonce": "another"}
    said(ada.sign_in(planted.challenge()["url"], login))
    login.id_token_changes = {}
    _crash_in_the_middle(planted, monkeypatch)
    said(Browser().come_back(ada.begin(planted.challenge()["url"]), login))
    said(ada.press(f"{journey()['url']}/done", "/undo"))
    said(bot.in_chat("DELETE"))
    planted.hooks.next_answers = [500, transport.EndpointTimeout("the server did not answer in time")]
    worker.run_once()
    said([(message.headers, message.body) for message in planted.hooks.messages])
    return answers


def _crash_in_the_middle(planted: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object, **__: object) -> None:
        raise RuntimeError("a fault of ours, in the middle of storing")

    with monkeypatch.context() as context:
        context.setattr(sign_in, "store_result", crash)
        url = planted.browser.begin(planted.challenge()["url"])
        page = planted.browser.get(planted.browser.come_back(url, planted.login)["Location"])
        assert heading_of(page) == "That sign-in did not work"


@pytest.mark.django_db(transaction=True)
def test_nothing_planted_leaves_us(
    planted: Planted,
    everything_logged: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """H1, H2, H5, E15, G5: not in logs at DEBUG, standard output, answers to bots, pages or audit rows."""
    answers = run_every_path(planted, monkeypatch)
    printed = capsys.readouterr()
    audit = repr(list(AuditEvent.objects.values()))
    assert all(planted.values().values()), "a kind of secret was not planted"
    assert len(planted.values()["code verifier"]) >= 8
    assert len(everything_logged) > 30
    assert planted.found_in("\n".join(everything_logged)) == {}
    assert planted.found_in(printed.out + printed.err) == {}
    assert planted.found_in(audit) == {}
    assert planted.found_in("\n".join(answers)) == {}


@pytest.mark.django_db(transaction=True)
def test_nothing_planted_leaves_us_by_a_trial_sign_in(
    planted: Planted, acme_admin: Any, acme_server: AuthorizationServer, everything_logged: list[str]
) -> None:
    """H1, J9, J11: neither in the logs, the admin's page, the trial's row nor the audit rows."""
    planted.browser, server = TrialBrowser(acme_admin), AuthorizationServer.objects.get()
    pages = [planted.browser.try_sign_in(server, planted.login)]
    for body in (b"<h1>" + PLANTED_REFRESH_TOKEN.encode(), b'{"error": "' + ACME_SECRET.encode() + b'"}'):
        planted.login.next_token_answer = (400, JSON, body)
        pages.append(planted.browser.try_sign_in(server, planted.login))
    rows = repr([*AuditEvent.objects.values(), *TrialSignIn.objects.values()])
    assert len(planted.values()["access token"]) == 1
    assert planted.found_in("\n".join([*everything_logged, *pages, rows])) == {}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("endpoint", ["userinfo", "introspection"])
@pytest.mark.parametrize("status", [200, 302, 401, 500])
def test_nothing_planted_leaves_us_by_asking_who_signed_in(
    acme_bot: Bot,
    ada: Browser,
    acme_login: FakeAuthorizationServer,
    acme_server: AuthorizationServer,
    everything_logged: list[str],
    monkeypatch: pytest.MonkeyPatch,
    endpoint: str,
    status: int,
) -> None:
    """H1, H5, A17: the server repeats the token wherever it can, beside the account's number."""
    AuthorizationServer.objects.update(**{f"{endpoint}_endpoint": f"{acme_login.issuer}/{PATHS[endpoint]}"})
    monkeypatch.setattr(acme_login, "send", repeating(acme_login, status))
    challenge = acme_bot.challenge()
    answers = [ada.sign_in(challenge["url"], acme_login).content.decode(), repr(acme_bot.read_challenge(challenge))]
    assert acme_bot.read_challenge(challenge)["last_error"]
    rows = repr([*AuditEvent.objects.values(), *AuthorizationRequest.objects.values(), *Challenge.objects.values()])
    said = "\n".join([*everything_logged, *answers, rows])
    planted = ["planted-subject-9Kq", ACME_SECRET, *acme_login.issued_access_tokens]
    assert len(planted) == 3
    assert [value for value in planted if value in said] == []


def repeating(login: FakeAuthorizationServer, status: int) -> Any:
    """Answer the question about a token with that token in the body, in a header and in the address of a redirect."""
    original = login.send

    def send(request: requests.PreparedRequest, *arguments: Any, **options: Any) -> requests.Response:
        response = original(request, *arguments, **options)
        if urlsplit(str(request.url)).path not in {"/userinfo", "/introspect"}:
            return response
        token = login.issued_access_tokens[-1]
        body = {"active": True, "id": "planted-subject-9Kq", "sub": f"Bearer {token}", "error_description": token}
        response.status_code, response.raw = status, BytesIO(json.dumps(body).encode())
        response.headers["WWW-Authenticate"] = f'Bearer error="{token}", error_description="{token}"'
        response.headers["Location"] = f"https://rival.example/?access_token={token}"
        return response

    return send


def test_nothing_planted_leaves_us_by_a_call(caller: Caller, everything_logged: list[str]) -> None:
    """H1, P5, P11: neither token nor argument nor answer is in a log at DEBUG, an audit row, a count or a problem."""
    answer = b'{"planted-answer": "%s"}'
    problems = []
    for sent in (
        http_answer(answer % b"", Set_Cookie="planted-cookie=1"),
        http_answer(answer % caller.token.encode()),
        http_answer(answer % (b" " * 300_000)),
        b"planted-answer",
        REFUSED,
    ):
        caller.api.play(sent)
        problems.append(repr(caller.call("orders.read", arguments={"order_id": "planted-argument"})))
        caller.call("orders.note", arguments={"order_id": "planted/argument"}, body={"note": "planted-argument"})
    call_counts.flush()
    kept = [*everything_logged, repr([*AuditEvent.objects.values(), *ApiCallCount.objects.values()])]
    planted = [caller.token, caller.bot.key, "planted-argument", "planted/argument", "planted-cookie"]
    assert ApiCallCount.objects.count() == 5
    assert [value for value in planted if value in "".join([*kept, *problems])] == []
    assert "planted-answer" not in "".join([*kept, *problems[1:]])


def test_the_loud_libraries_are_pinned_above_debug() -> None:
    """H2: at DEBUG they log code, secret, verifier and token; urllib3 at WARNING what it could not read of headers."""
    for name in ("oauthlib", "requests_oauthlib", "requests", "requests_hardened"):
        assert logging.getLogger(name).getEffectiveLevel() >= logging.WARNING
    assert logging.getLogger("urllib3.connection").getEffectiveLevel() >= logging.ERROR


def test_error_reports_hold_no_query_cookie_header_or_variable() -> None:
    """H4: neither the text one nor the HTML one."""
    # Not written out: the HTML report shows the lines of code around the fault.
    planted = {what: f"{what[::-1]}-{what}-{len(what)}" for what in ("code", "state", "cookie", "key", "variable")}
    request = RequestFactory().get(
        f"/callback/abc?code={planted['code']}&state={planted['state']}",
        headers={"Cookie": f"__Host-attempt={planted['cookie']}", "Authorization": f"Bearer {planted['key']}"},
    )
    try:
        raise RuntimeError("a fault of ours")
    except RuntimeError:
        reporter = QuietExceptionReporter(request, *sys.exc_info())
    assert settings.DEFAULT_EXCEPTION_REPORTER == "web.errors.QuietExceptionReporter"
    for report in (reporter.get_traceback_text(), reporter.get_traceback_html()):
        assert "a fault of ours" in report
        assert "/callback/abc" in report
        assert [what for what, value in planted.items() if value in report] == []


def test_an_answer_with_a_refresh_token_lives_no_longer_than_its_exchange(
    planted: Planted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E15: nothing keeps it, and nothing of it is stored."""
    answers: list[weakref.ref[requests.Response]] = []
    original = FakeAuthorizationServer.send

    def remember(*given: Any, **how: Any) -> Any:
        answer = original(*given, **how)
        if PLANTED_REFRESH_TOKEN in answer.text:
            answers.append(weakref.ref(answer))
        return answer

    # Undone before the fake servers are: the other way round their patch would stay for the tests that follow.
    with monkeypatch.context() as context:
        context.setattr(FakeAuthorizationServer, "send", remember)
        planted.browser.sign_in(planted.bot.challenge()["url"], planted.login)
    gc.collect()
    assert [answer() for answer in answers] == [None]
    stored = repr(list(AccessToken.objects.values())) + connection.vendor + str(timezone.now())
    assert PLANTED_REFRESH_TOKEN not in stored
