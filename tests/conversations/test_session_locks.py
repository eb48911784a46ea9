"""A call waits for the lock of a session while another connection closes it, or begins something in it (S1, S3, S8).

`test_session_races` lets chance decide who comes first. Here it is decided, so that each order is seen.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, connections
from django.utils import timezone

from brands.models import AuthorizationServer, Brand
from conversations.flow.retention import sweep
from conversations.flow.termination import close_conversation
from conversations.flow.transitions import locked_conversation
from conversations.models import AuditEvent, Challenge, Conversation
from tests.cast import Bot, Browser, code_on
from tests.fake_authorization_server import FakeAuthorizationServer

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("idle")]


@pytest.fixture
def idle(acme_bot: Bot, acme_server: AuthorizationServer) -> None:
    """Give Acme's ids back, and the chat an open session that is idle."""
    Brand.objects.filter(pk=acme_server.brand_id).update(conversation_ids="reused", close_idle_after=1)
    challenge = acme_bot.challenge()
    acme_bot.call("DELETE", f"/challenges/{challenge['challenge_id']}")
    long_ago = timezone.now() - timedelta(minutes=20)
    Challenge.objects.update(ended_at=long_ago, issued_at=long_ago)
    Conversation.objects.update(created_at=long_ago)


def is_waiting() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return bool(cursor.fetchone()[0])


def while_it_waits(call: Callable[[], Any], change: Callable[[Conversation], object]) -> Any:
    """Lock the first session; let `call` wait for it on a connection of its own; make the change, and commit."""

    def run() -> Any:
        try:
            return call()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as threads:
        with locked_conversation(Conversation.objects.get().pk) as locked:
            waiting = threads.submit(run)
            while not is_waiting():
                assert not waiting.done(), waiting.result()
                time.sleep(0.01)
            change(locked)
        return waiting.result(timeout=30)


def close(locked: Conversation) -> None:
    close_conversation(locked, actor="system", now=timezone.now())


def open_sessions() -> list[int]:
    return list(Conversation.objects.filter(closed_at=None).values_list("session", flat=True))


@pytest.mark.parametrize("what", ["/challenges", "/authorize"])
def test_a_challenge_that_waits_for_a_close_begins_the_next_session(acme_bot: Bot, what: str) -> None:
    """S1, S2."""
    _, challenge = while_it_waits(lambda: acme_bot.in_chat("POST", what, {}), close)
    assert (challenge["session"], open_sessions()) == (2, [2])


def test_a_challenge_that_waits_while_the_next_session_begins_gets_that_ones(acme_bot: Bot) -> None:
    """S1: it has read the first session as the newest, and there is a second one when it gets the lock."""
    begun = {}

    def close_and_begin(locked: Conversation) -> None:
        close(locked)
        begun.update(acme_bot.challenge())

    status, challenge = while_it_waits(lambda: acme_bot.in_chat("POST", "/challenges", {}), close_and_begin)
    assert (status, challenge["session"], challenge["challenge_id"]) == (200, 2, begun["challenge_id"])
    assert open_sessions() == [2]


def test_a_challenge_that_names_the_session_waits_and_begins_nothing(acme_bot: Bot) -> None:
    """S3, S4."""
    status, problem = while_it_waits(lambda: acme_bot.in_chat("POST", "/challenges", {"session": 1}), close)
    assert (status, problem["code"], open_sessions()) == (410, "conversation_closed", [])


@pytest.mark.parametrize(
    ("method", "what", "body", "answer"),
    [
        ("DELETE", "?session=1", None, (200, None)),
        ("DELETE", "/token?session=1", None, (410, "conversation_closed")),
        ("POST", "/completion", {"session": 1, "code": "123456"}, (410, "conversation_closed")),
    ],
)
def test_what_ends_something_waits_and_ends_nothing_of_the_next_session(
    acme_bot: Bot, method: str, what: str, body: Any, answer: tuple[int, str | None]
) -> None:
    """S3: the row was found before the close. The lock is of that row, whatever has begun meanwhile."""

    def close_and_begin(locked: Conversation) -> None:
        close(locked)
        acme_bot.challenge()

    status, found = while_it_waits(lambda: acme_bot.in_chat(method, what, body), close_and_begin)
    assert (status, found.get("code")) == answer
    assert (open_sessions(), acme_bot.status()) == ([2], ("challenged", None))
    assert AuditEvent.objects.filter(kind="conversation.closed").count() == 1


def test_an_idle_close_that_waits_closes_no_session_in_which_something_began(acme_bot: Bot) -> None:
    """S8: it was idle when it was selected."""
    while_it_waits(lambda: sweep(timezone.now()), lambda _: acme_bot.challenge())
    assert (open_sessions(), acme_bot.status()) == ([1], ("challenged", None))


def test_an_idle_close_that_waits_for_a_close_does_nothing_more(acme_bot: Bot) -> None:
    """S8: nor does it touch the session that began."""

    def close_and_begin(locked: Conversation) -> None:
        close(locked)
        acme_bot.challenge()

    while_it_waits(lambda: sweep(timezone.now()), close_and_begin)
    assert open_sessions() == [2]
    assert AuditEvent.objects.filter(kind="conversation.closed").count() == 1


def test_a_challenge_that_waits_for_an_idle_close_begins_the_next_session(acme_bot: Bot) -> None:
    """S8."""

    def close_idle(_: Conversation) -> None:
        sweep(timezone.now())

    status, challenge = while_it_waits(lambda: acme_bot.in_chat("POST", "/challenges", {}), close_idle)
    assert (status, challenge["session"], open_sessions()) == (201, 2, [2])


def test_a_callback_that_waits_for_a_close_stores_nothing(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """S6, A8: and nothing in the session that began meanwhile."""
    back = ada.begin(acme_bot.challenge()["url"])

    def close_and_begin(locked: Conversation) -> None:
        close(locked)
        acme_bot.challenge()

    while_it_waits(lambda: ada.come_back(back, acme_login), close_and_begin)
    assert acme_bot.status() == ("challenged", None)
    assert acme_bot.token()[1]["code"] == "challenged"


def test_a_code_that_waits_while_the_next_person_signs_in_is_not_counted(
    acme_bot: Bot, ada: Browser, rita: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """S3, S4."""
    code = code_on(ada.sign_in(acme_bot.challenge()["url"], acme_login))

    def close_and_sign_in(locked: Conversation) -> None:
        close(locked)
        rita.sign_in(acme_bot.challenge()["url"], acme_login)

    typed = {"session": 1, "code": code}
    status, problem = while_it_waits(lambda: acme_bot.in_chat("POST", "/completion", typed), close_and_sign_in)
    assert (status, problem["code"]) == (410, "conversation_closed")
    assert Challenge.objects.get(conversation__session=2).completion_attempts == 0
    assert acme_bot.status() == ("confirmation_needed", None)
