"""Where a chat's first challenge is created: before Django's handler, and what is left to the full way.

tests/fuzz/test_fast_create.py compares both ways.
"""

import json
from io import BytesIO
from typing import Any

import pytest
from django.conf import settings as site
from django.db import IntegrityError, OperationalError, connection
from django.test.utils import CaptureQueriesContext

from brands.models import AuthorizationServer, BotKey, WebhookEndpoint
from conversations import before_django
from conversations.api import fast_create
from conversations.flow import first_challenges
from conversations.models import Challenge, Conversation, IdempotencyKey
from infrastructure import rate_limits
from infrastructure.models import AuditEvent, RateCounter
from infrastructure.rate_limits import Limit
from tests.cast import CHAT, HOST, Bot
from tests.concurrency import at_once
from tests.handler import Handler
from web.answered_before import FAILED_BEFORE

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _server(acme_server: AuthorizationServer) -> None:
    """Acme has one authorization server."""


def environ_of(bot: Bot, body: bytes = b"{}", **headers: str) -> dict[str, Any]:
    return {
        "REQUEST_METHOD": "POST", "SERVER_NAME": HOST, "SERVER_PORT": "443", "wsgi.url_scheme": "https",
        "wsgi.input": BytesIO(body), "CONTENT_LENGTH": str(len(body)), "CONTENT_TYPE": "application/json",
        "HTTP_HOST": HOST, "PATH_INFO": f"/api/v1/conversations/{CHAT}/challenges",
        "HTTP_AUTHORIZATION": f"Bearer {bot.key}", **headers,
    }  # fmt: skip


def fast(environ: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """Answer by the fast path alone; None if it passes the request on."""
    started: list[Any] = []
    body = before_django.before(lambda *_: ())(environ, lambda *start: started.append(start))
    return (started[0][0], json.loads(b"".join(body))) if started else None


def one_key(settings: Any) -> None:
    settings.ENCRYPTION_KEYS = site.ENCRYPTION_KEYS.partition(",")[0]


def test_a_first_challenge_is_created_before_django_and_its_link_works(acme_bot: Bot, ada: Any) -> None:
    """A5, K1."""
    with CaptureQueriesContext(connection) as asked:
        answered = fast(environ_of(acme_bot, b'{"context": "order 4711"}'))
    assert answered is not None
    status, challenge = answered
    assert (status, challenge["status"], challenge["context"]) == ("201 Created", "issued", "order 4711")
    # The query, the use of the key, the count, and a savepoint around three rows.
    assert sum(not query["sql"].startswith("PREPARE ") for query in asked) == 8
    read = acme_bot.read_challenge(challenge)
    assert challenge == read | {name: challenge[name] for name in ("url", "message", "expires_in")}
    assert ada.get(challenge["url"]).status_code == 200


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b'{"session": 2}', {}),
        (b'{"authorization_server": "loyalty"}', {}),
        (b'{"same_person_check": "none"}', {}),
        (b'{"scope": "admin"}', {}),
        (b'{"x": 1}', {}),
        (b"{", {}),
        (b"{}", {"QUERY_STRING": "session=1"}),
        (b"{}", {"HTTP_IDEMPOTENCY_KEY": ""}),
        (b"{}", {"HTTP_IDEMPOTENCY_KEY": "two-keys-of-the-ring"}),
        (b"{}", {"PATH_INFO": "/api/v1/conversations/../challenges"}),
    ],
)
def test_what_something_else_has_to_judge_is_neither_counted_nor_stored(
    acme_bot: Bot, body: bytes, headers: dict[str, str]
) -> None:
    environ = environ_of(acme_bot, body, **headers)
    assert fast(environ) is None
    assert FAILED_BEFORE not in environ  # such an error would be answered without the call being counted
    assert (RateCounter.objects.count(), Conversation.objects.count()) == (0, 0)
    assert environ["wsgi.input"].read() == body


@pytest.mark.parametrize("checks", [["none"], ["expected_subject"], {"none": 1}, "completion_code", [1]])
def test_a_check_that_the_key_may_not_use_is_judged_by_the_full_way(acme_bot: Bot, checks: Any) -> None:
    """A16: the server's own check, too, for which the bot need not ask. A row may have been changed by SQL."""
    BotKey.objects.update(same_person_checks=checks)
    environ = environ_of(acme_bot)
    assert fast(environ) is None
    assert (FAILED_BEFORE in environ, RateCounter.objects.count(), Challenge.objects.count()) == (False, 0, 0)


def test_a_new_chat_counts_for_the_limit_that_its_key_has_of_its_own(acme_bot: Bot) -> None:
    """G8: the key's own limit, and not that of all keys."""
    BotKey.objects.update(calls_per_minute=1)
    assert fast(environ_of(acme_bot)) is not None
    refused = Handler()(environ_of(acme_bot, PATH_INFO="/api/v1/conversations/web:second/challenges"))
    assert (refused.status_code, json.loads(refused.content)["code"]) == (429, "rate_limited")
    assert Conversation.objects.count() == 1


def test_a_key_that_is_none_is_judged_by_the_full_way(acme_bot: Bot) -> None:
    """G5."""
    for presented in ("", "Bearer x", f"Basic {acme_bot.key}"):
        environ = environ_of(acme_bot, HTTP_AUTHORIZATION=presented)
        assert (fast(environ), FAILED_BEFORE in environ) == (None, False)


def test_a_brand_with_webhooks_is_told_by_the_full_way(acme_bot: Bot, acme_server: AuthorizationServer) -> None:
    WebhookEndpoint.objects.create(
        brand=acme_server.brand, url="https://bots.acme.example/", secret_ciphertext=b"x", events=["*"]
    )
    assert fast(environ_of(acme_bot)) is None


@pytest.fixture
def counted_singly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set a limit so low that no call is counted in advance."""
    monkeypatch.setattr(rate_limits, "CALLS_PER_KEY", Limit("calls-per-key", 100, 60))


@pytest.mark.usefixtures("counted_singly")
def test_a_call_that_another_one_has_just_overtaken_is_counted_once(
    acme_bot: Bot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G8: the full way takes over, and answers with the challenge of the other call."""

    def overtaken(*_: Any, **__: Any) -> Any:
        raise IntegrityError

    monkeypatch.setattr(fast_create, "issue_first_challenge", overtaken)
    answer = Handler()(environ_of(acme_bot))
    assert (answer.status_code, list(RateCounter.objects.values_list("times", flat=True))) == (201, [1])


def test_an_idempotency_key_gets_its_challenge_again_and_no_second_one(acme_bot: Bot, settings: Any) -> None:
    """The key is stored in the same message; the constraint refuses it in another chat."""
    one_key(settings)
    answered = fast(environ_of(acme_bot, HTTP_IDEMPOTENCY_KEY="order-4711"))
    assert answered is not None
    again = json.loads(Handler()(environ_of(acme_bot, HTTP_IDEMPOTENCY_KEY="order-4711")).content)
    assert again["challenge_id"] == answered[1]["challenge_id"]
    elsewhere = environ_of(acme_bot, HTTP_IDEMPOTENCY_KEY="order-4711")
    elsewhere["PATH_INFO"] = "/api/v1/conversations/elsewhere/challenges"
    refused = Handler()(elsewhere)
    assert (refused.status_code, json.loads(refused.content)["code"]) == (422, "idempotency_key_reused")
    assert (Challenge.objects.count(), IdempotencyKey.objects.count()) == (1, 1)


def test_a_database_that_is_away_is_asked_once(acme_bot: Bot) -> None:
    asked: list[str] = []

    def away(_: Any, sql: str, *__: Any) -> None:
        asked.append(sql)
        raise OperationalError

    with connection.execute_wrapper(away):
        answer = Handler()(environ_of(acme_bot))
    assert (answer.status_code, answer["Retry-After"], len(asked)) == (503, "30", 1)


@pytest.mark.usefixtures("counted_singly")
def test_what_fails_after_the_call_was_counted_is_not_tried_again(
    acme_bot: Bot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G8."""

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr(first_challenges, "record_issued", fail)
    answer = Handler()(environ_of(acme_bot))
    assert (answer.status_code, json.loads(answer.content)["code"]) == (500, "internal_error")
    assert (list(RateCounter.objects.values_list("times", flat=True)), Challenge.objects.count()) == ([1], 0)


@pytest.mark.usefixtures("counted_singly")
@pytest.mark.django_db(transaction=True)
def test_of_first_challenges_at_once_one_is_created_and_each_call_is_counted_once(acme_bot: Bot, settings: Any) -> None:
    """G8: the database refuses all others of one chat, and of one idempotency key."""
    one_key(settings)

    def ask(number: int) -> tuple[int, str]:
        environ = environ_of(acme_bot, HTTP_IDEMPOTENCY_KEY="order-4711" if number % 2 else f"order-{number}")
        answer = Handler()(environ)
        return answer.status_code, json.loads(answer.content)["challenge_id"]

    answers = at_once(12, ask)
    assert (sorted(status for status, _ in answers), len({uuid for _, uuid in answers})) == ([200] * 11 + [201], 1)
    assert list(RateCounter.objects.values_list("times", flat=True)) == [12]
    assert (Challenge.objects.count(), AuditEvent.objects.filter(outcome="issued").count()) == (1, 1)


@pytest.mark.django_db(transaction=True)
def test_of_two_new_chats_at_once_with_one_key_one_gets_its_challenge(acme_bot: Bot, settings: Any) -> None:
    one_key(settings)

    def ask(number: int) -> int:
        environ = environ_of(acme_bot, HTTP_IDEMPOTENCY_KEY="order-4711")
        environ["PATH_INFO"] = f"/api/v1/conversations/chat-{number}/challenges"
        status: int = Handler()(environ).status_code
        return status

    assert sorted(at_once(8, ask)) == [201, *[422] * 7]
    assert (Challenge.objects.count(), Conversation.objects.count(), IdempotencyKey.objects.count()) == (1, 1, 1)
