"""A close and a new challenge under one id at the same moment: one open session, and nothing of one in the other."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone

from brands.models import AuthorizationServer, Brand
from conversations.flow.retention import prune, sweep
from conversations.models import AccessToken, AuditEvent, Challenge, Conversation
from tests.cast import Bot, Browser, code_on, make_bot
from tests.concurrency import at_once
from tests.fake_authorization_server import FakeAuthorizationServer

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("reused")]

ROUNDS = 10


@pytest.fixture
def reused(acme_server: AuthorizationServer) -> None:
    Brand.objects.filter(pk=acme_server.brand_id).update(conversation_ids="reused", close_idle_after=1)


@pytest.fixture
def bots(acme_server: AuthorizationServer) -> list[Bot]:
    """Return a bot for each round, in chats of their own. A key has a limit of calls."""
    bot = make_bot(acme_server.brand)
    return [Bot(bot.key, f"sms:{number}") for number in range(ROUNDS)]


def open_sessions(bot: Bot) -> list[int]:
    return list(Conversation.objects.filter(external_id=bot.chat, closed_at=None).values_list("session", flat=True))


def nothing_is_open_in_a_closed_session() -> bool:
    closed = Conversation.objects.filter(closed_at__isnull=False)
    challenges = Challenge.objects.filter(conversation__in=closed, ended_at=None, completed_at=None)
    return not (challenges.exists() or AccessToken.objects.filter(conversation__in=closed, ended_at=None).exists())


def test_a_close_and_a_new_challenge(bots: list[Bot]) -> None:
    """S1, S2: the challenge is in the session that is closed, and ended with it; or it begins the next one."""
    for bot in bots:
        first = bot.challenge()
        bot.call("DELETE", f"/challenges/{first['challenge_id']}")

        def call(which: int, bot: Bot = bot) -> tuple[int, dict[str, Any]]:
            return bot.in_chat("POST", "/challenges", {}) if which else bot.in_chat("DELETE", "?session=1")

        (closed, receipt), (status, challenge) = at_once(2, call)
        assert (closed, status) == (200, 201)
        assert receipt["challenges_withdrawn"] == (1 if challenge["session"] == 1 else 0)
        assert open_sessions(bot) == ([2] if challenge["session"] == 2 else [])
    assert nothing_is_open_in_a_closed_session()


def test_four_challenges_begin_one_session(bots: list[Bot]) -> None:
    """S1: all four find the last session closed."""
    for bot in bots:
        bot.challenge()
        bot.in_chat("DELETE", "?session=1")

        def call(_: int, bot: Bot = bot) -> tuple[int, dict[str, Any]]:
            return bot.in_chat("POST", "/challenges", {})

        answers = at_once(4, call)
        assert sorted(status for status, _ in answers) == [200, 200, 200, 201]
        assert {(answer["session"], answer["challenge_id"]) for _, answer in answers} == {
            (2, answers[0][1]["challenge_id"])
        }
        assert open_sessions(bot) == [2]


def test_a_close_that_names_no_newer_session_never_ends_one(bots: list[Bot]) -> None:
    """S3: four late closings of the first session, while the second begins."""
    for bot in bots:
        bot.challenge()
        bot.in_chat("DELETE", "?session=1")

        def call(which: int, bot: Bot = bot) -> tuple[int, dict[str, Any]]:
            return bot.in_chat("POST", "/challenges", {}) if which == 0 else bot.in_chat("DELETE", "?session=1")

        (status, challenge), *late = at_once(4, call)
        assert (status, challenge["session"]) == (201, 2)
        assert {status for status, _ in late} <= {200, 409}
        assert {answer["session"] for _, answer in late} <= {1, 2}
        assert open_sessions(bot) == [2]
        assert bot.status() == ("challenged", None)


def test_a_close_and_a_sign_in_that_comes_back(bots: list[Bot], acme_login: FakeAuthorizationServer) -> None:
    """S2, A8: the token is stored in the session that is closed, and erased with it, or it is not stored."""
    for bot in bots[:5]:
        ada = Browser()
        back = ada.begin(bot.challenge()["url"])

        def call(which: int, bot: Bot = bot, ada: Browser = ada, back: str = back) -> int:
            if which:
                return int(ada.come_back(back, acme_login).status_code)
            return bot.in_chat("DELETE", "?session=1")[0]

        at_once(2, call)
        assert nothing_is_open_in_a_closed_session()
        assert bot.challenge()["session"] == 2
        assert bot.token()[1]["code"] == "challenged"


def test_a_completion_and_a_close_with_the_next_session(bots: list[Bot], acme_login: FakeAuthorizationServer) -> None:
    """S3: a code that is late by a moment confirms nothing in the next session."""
    for bot in bots[:5]:
        code = code_on(Browser().sign_in(bot.challenge()["url"], acme_login))

        def call(which: int, bot: Bot = bot, code: str = code) -> tuple[int, dict[str, Any]]:
            if which:
                return bot.in_chat("POST", "/completion", {"code": code, "session": 1})
            bot.in_chat("DELETE", "?session=1")
            return bot.in_chat("POST", "/challenges", {})

        (status, challenge), (completed, answer) = at_once(2, call)
        assert (status, challenge["session"]) == (201, 2)
        assert completed == 200 or answer["code"] in {"conversation_closed", "session_mismatch"}
        assert Challenge.objects.get(uuid=challenge["challenge_id"]).completion_attempts == 0
        assert bot.token()[1]["code"] == "challenged"


def make_idle(bot: Bot) -> None:
    """Begin the chat's session, and let its time pass."""
    first = bot.challenge()
    bot.call("DELETE", f"/challenges/{first['challenge_id']}")
    Challenge.objects.update(ended_at=timezone.now() - timedelta(minutes=5))
    Conversation.objects.update(created_at=timezone.now() - timedelta(minutes=10))


def test_an_idle_close_and_a_new_challenge(bots: list[Bot]) -> None:
    """S8: the worker ends nothing that was begun meanwhile, and nothing begins in what it closes."""
    for bot in bots:
        make_idle(bot)

        def call(which: int, bot: Bot = bot) -> Any:
            return bot.in_chat("POST", "/challenges", {}) if which else sweep(timezone.now())

        _, (status, challenge) = at_once(2, call)
        assert status == 201
        assert open_sessions(bot) == [challenge["session"]]
        assert bot.read_challenge(challenge)["status"] == "issued"
        Challenge.objects.update(ended_at=timezone.now())  # so that the next round closes its own chat alone


def test_an_idle_close_and_a_close_by_the_bot(bots: list[Bot]) -> None:
    """S8: one of them does it, once, and both say so."""
    for bot in bots:
        make_idle(bot)

        def call(which: int, bot: Bot = bot) -> Any:
            return bot.in_chat("DELETE", "?session=1") if which else sweep(timezone.now())

        _, (status, receipt) = at_once(2, call)
        assert (status, receipt["status"]) == (200, "closed")
    assert AuditEvent.objects.filter(kind="conversation.closed").count() == ROUNDS


def test_pruning_and_a_new_challenge(bots: list[Bot]) -> None:
    """S7: the number of a row that is being deleted is not used again."""
    for bot in bots[:5]:
        for session in (1, 2, 3):
            bot.challenge()
            bot.in_chat("DELETE", f"?session={session}")
        long_ago = timezone.now() - timedelta(days=90)
        Challenge.objects.all().delete()
        Conversation.objects.update(created_at=long_ago, closed_at=long_ago)

        def call(which: int, bot: Bot = bot) -> Any:
            return bot.in_chat("POST", "/challenges", {}) if which else prune(timezone.now())

        _, (status, challenge) = at_once(2, call)
        assert (status, challenge["session"]) == (201, 4)
        with transaction.atomic():
            Conversation.objects.filter(session=4).update(closed_at=long_ago)
