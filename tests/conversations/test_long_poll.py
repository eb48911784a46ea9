"""Long poll: woken by the change itself, bounded, and holding neither a connection nor a revoked key's door open."""

import logging
import threading
from contextlib import ExitStack
from typing import Any

import pytest
from django.db import OperationalError, connection

from brands.authentication import revoke
from brands.models import AuthorizationServer, BotKey
from conversations.api import waiting as product
from conversations.models import Challenge
from infrastructure import stopping
from tests.cast import Bot, Browser, make_bot
from tests.long_poll import poll, polling, until, waiting

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("acme_server")]


@pytest.fixture
def challenge(acme_bot: Bot, acme_server: AuthorizationServer) -> dict[str, Any]:
    return acme_bot.challenge()


@pytest.fixture
def entered(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The waiters that were added since the test began."""
    waiters: list[Any] = []
    add = product._Waiters.add

    def note(registry: Any, waiter: Any) -> bool:
        waiters.append(waiter)
        return add(registry, waiter)

    monkeypatch.setattr(product._Waiters, "add", note)
    return waiters


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> list[bool | None]:
    """One entry for each poll that asked for its turn: whether it got it, None while it waits."""
    asked: list[bool | None] = []

    class Queue(threading.Semaphore):
        def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
            asked.append(None)
            place = len(asked) - 1
            asked[place] = super().acquire(blocking, timeout)
            return bool(asked[place])

    monkeypatch.setattr(product, "_turn", Queue())
    return asked


def withdraw(bot: Bot, challenge: dict[str, Any]) -> None:
    assert bot.call("DELETE", f"/challenges/{challenge['challenge_id']}")[0] == 200


def tag_of(bot: Bot, challenge: dict[str, Any]) -> str:
    return str(bot.send("GET", f"/challenges/{challenge['challenge_id']}")["ETag"])


def test_a_change_wakes_those_who_wait_for_it_and_nobody_else(
    acme_bot: Bot, challenge: dict[str, Any], acme_server: AuthorizationServer
) -> None:
    other = make_bot(acme_server.brand, chat="web:other")
    others = other.challenge()
    with waiting(other, others) as not_mine:
        with waiting(acme_bot, challenge) as first, waiting(acme_bot, challenge) as second:
            withdraw(acme_bot, challenge)
            assert [answer.result().json()["status"] for answer in (first, second)] == ["withdrawn"] * 2
        assert not not_mine.done()
        withdraw(other, others)
        assert not_mine.result().json()["status"] == "withdrawn"


@pytest.mark.parametrize("wait", ["", "-1", "26", "1.5", "x", "025", "%D9%A1"])
def test_wait_is_a_number_of_seconds_up_to_25(acme_bot: Bot, challenge: dict[str, Any], wait: str) -> None:
    status, problem = acme_bot.call("GET", f"/challenges/{challenge['challenge_id']}?wait={wait}")
    assert (status, problem["code"]) == (422, "invalid_wait")


def test_without_a_change_it_ends_after_its_time_and_can_be_asked_again(
    acme_bot: Bot, challenge: dict[str, Any]
) -> None:
    answer = poll(acme_bot, challenge, seconds=1)
    assert (answer.status_code, answer.json()["status"], answer.has_header("Retry-After")) == (200, "issued", False)
    unchanged = poll(acme_bot, challenge, 1, tag=answer["ETag"])
    assert (unchanged.status_code, unchanged.content, unchanged["ETag"]) == (304, b"", answer["ETag"])


def test_what_has_ended_is_not_waited_for(acme_bot: Bot, challenge: dict[str, Any], entered: list[Any]) -> None:
    withdraw(acme_bot, challenge)
    tag = tag_of(acme_bot, challenge)
    assert poll(acme_bot, challenge).json()["status"] == "withdrawn"
    assert poll(acme_bot, challenge, tag=tag).status_code == 304
    assert entered == []


def test_a_change_between_read_and_poll_is_told_at_once(
    acme_bot: Bot, ada: Browser, challenge: dict[str, Any], entered: list[Any]
) -> None:
    """The race that `If-None-Match` closes: the bot would wait for the next change."""
    tag = tag_of(acme_bot, challenge)
    ada.begin(challenge["url"])
    answer = poll(acme_bot, challenge, tag=tag)
    assert (answer.status_code, answer.json()["status"], entered) == (200, "started", [])
    with waiting(acme_bot, challenge, tag=answer["ETag"]) as polled:
        withdraw(acme_bot, challenge)
        assert (polled.result().status_code, polled.result().json()["status"]) == (200, "withdrawn")


def test_a_change_between_our_own_read_and_the_wait_is_not_missed(
    acme_bot: Bot, challenge: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watcher compares with what was read, and not with what it sees first."""
    entered: list[Any] = []
    add = product._Waiters.add

    def withdrawn_before(registry: Any, waiter: Any) -> bool:
        withdraw(acme_bot, challenge)
        entered.append(waiter)
        return add(registry, waiter)

    monkeypatch.setattr(product._Waiters, "add", withdrawn_before)
    assert poll(acme_bot, challenge).json()["status"] == "withdrawn"
    assert [waiter.woken.is_set() for waiter in entered] == [True]


def test_a_revoked_key_learns_nothing_from_its_wait(acme_bot: Bot, challenge: dict[str, Any]) -> None:
    """G4: authenticated once more when it is answered."""
    bot_key = BotKey.objects.get()
    another = make_bot(bot_key.brand)
    with waiting(acme_bot, challenge) as polled:
        revoke(bot_key)
        withdraw(another, challenge)
        answer = polled.result()
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_bot_key")


def test_a_quarter_of_the_threads_wait_and_the_rest_is_told_when_to_come_again(
    acme_bot: Bot, challenge: dict[str, Any], settings: Any
) -> None:
    settings.THREADS = 8
    tag = tag_of(acme_bot, challenge)
    with waiting(acme_bot, challenge) as first, waiting(acme_bot, challenge) as second:
        answers = [poll(acme_bot, challenge) for _ in range(5)]
        unchanged = poll(acme_bot, challenge, tag=tag)
        assert not first.done()
        assert not second.done()
        withdraw(acme_bot, challenge)
    assert {(answer.status_code, answer.json()["status"]) for answer in answers} == {(200, "issued")}
    assert {answer["Retry-After"] for answer in [*answers, unchanged]} <= {"1", "2", "3"}
    assert unchanged.status_code == 304


def test_one_brands_bots_do_not_take_every_place(
    acme_bot: Bot, rival_bot: Bot, rival_server: Any, challenge: dict[str, Any], settings: Any
) -> None:
    """The bug: one key with four polls kept everybody else's bots from waiting."""
    settings.THREADS = 16
    theirs = rival_bot.challenge()
    with ExitStack() as polls:
        for _ in range(3):
            polls.enter_context(waiting(acme_bot, challenge))
        assert "Retry-After" in poll(acme_bot, challenge)
        answer = polls.enter_context(waiting(rival_bot, theirs))
        withdraw(rival_bot, theirs)
        assert answer.result().json()["status"] == "withdrawn"
        withdraw(acme_bot, challenge)


def test_one_poll_at_a_time_reads_its_challenge_and_a_plain_read_queues_behind_none(
    acme_bot: Bot,
    challenge: dict[str, Any],
    entered: list[Any],
    turns: list[bool | None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The bug: 500 polls in one moment put sixteen statements of each process before every token read."""
    monkeypatch.setattr(product, "_SECONDS_UNTIL_ONES_TURN", 15)
    with ExitStack() as polls, product.in_turn():
        queued = polls.enter_context(polling(acme_bot, challenge))
        until(lambda: len(turns) == 2)
        assert acme_bot.call("GET", f"/challenges/{challenge['challenge_id']}")[0] == 200
        assert (len(turns), entered, queued.done()) == (2, [], False)
        polls.callback(withdraw, acme_bot, challenge)
        polls.callback(until, lambda: bool(entered))
    assert queued.result().json()["status"] == "withdrawn"


def test_a_database_that_does_not_answer_one_poll_keeps_no_other_in_the_queue(
    acme_bot: Bot, challenge: dict[str, Any], turns: list[bool | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(product, "_SECONDS_UNTIL_ONES_TURN", 0.01)
    with product.in_turn():
        answers = [poll(acme_bot, challenge, seconds=1) for _ in range(2)]
    assert [answer.json()["status"] for answer in answers] == ["issued", "issued"]
    assert turns == [True, False, False, False, False]
    with product.in_turn():
        assert turns[-1]


@pytest.mark.parametrize(("threads", "may_wait"), [(1, 0), (2, 1), (4, 1), (8, 2), (16, 4)])
def test_never_do_all_threads_wait(settings: Any, threads: int, may_wait: int) -> None:
    settings.THREADS = threads
    assert product.most_waiters() == may_wait


def test_a_waiter_holds_no_database_connection(
    acme_bot: Bot, challenge: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread gives the connection back before it waits; thousands of polls are no connections."""
    held: list[Any] = []
    add = product._Waiters.add

    def record_connection(registry: Any, waiter: Any) -> bool:
        wait = waiter.woken.wait

        def wait_and_tell(seconds: int) -> None:
            held.append(connection.connection)
            wait(seconds)

        waiter.woken.wait = wait_and_tell
        return add(registry, waiter)

    monkeypatch.setattr(product._Waiters, "add", record_connection)
    with waiting(acme_bot, challenge) as polled:
        withdraw(acme_bot, challenge)
        polled.result()
    assert held == [None]


def test_everybody_is_looked_after_by_one_query(
    acme_bot: Bot, acme_server: AuthorizationServer, challenge: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[set[int]] = []
    statuses = product._statuses

    def ask(pks: set[int]) -> Any:
        asked.append(pks)
        return statuses(pks)

    monkeypatch.setattr(product, "_statuses", ask)
    other = make_bot(acme_server.brand, chat="web:other")
    others = other.challenge()
    both = set(Challenge.objects.values_list("pk", flat=True))
    with waiting(acme_bot, challenge), waiting(other, others):
        until(lambda: both in asked)
        withdraw(acme_bot, challenge)
        withdraw(other, others)
    looks = len(asked)
    assert poll(acme_bot, challenge).status_code == 200
    assert len(asked) == looks


def test_a_database_that_fails_leaves_nobody_hanging(
    acme_bot: Bot, challenge: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The watcher says so, goes on, and finds the change when the database is back."""
    statuses, failures = product._statuses, [OperationalError("the database went away")]

    def failing(pks: set[int]) -> Any:
        if failures:
            raise failures.pop()
        return statuses(pks)

    monkeypatch.setattr(product, "_statuses", failing)
    with waiting(acme_bot, challenge) as polled:
        withdraw(acme_bot, challenge)
        assert polled.result().json()["status"] == "withdrawn"
    (line,) = [record for record in caplog.records if record.name == "consumer_delegation.waiting"]
    assert line.levelno == logging.ERROR


def test_a_watcher_that_died_is_replaced(
    acme_bot: Bot, challenge: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits has a deadline; whoever comes next begins another watcher."""

    def die(waiters: Any) -> float:
        raise RuntimeError("a fault of ours")

    died: list[Any] = []
    with monkeypatch.context() as broken:
        broken.setattr(threading, "excepthook", died.append)
        broken.setattr(product, "_wake_changed", die)
        assert poll(acme_bot, challenge, 1).status_code == 200
    assert len(died) == 1
    with waiting(acme_bot, challenge) as polled:
        withdraw(acme_bot, challenge)
        assert polled.result().json()["status"] == "withdrawn"


def test_a_process_that_stops_lets_go_of_everybody(
    acme_bot: Bot, challenge: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restart does not wait for 25 seconds, and nobody begins to wait in a process that ends."""
    stops: list[bool] = []
    monkeypatch.setattr(stopping._process, "is_stopping", lambda: bool(stops))
    with waiting(acme_bot, challenge) as polled:
        stops.append(True)
        assert polled.result().json()["status"] == "issued"
    assert poll(acme_bot, challenge).has_header("Retry-After")


def test_another_brands_challenge_is_not_waited_for(
    rival_bot: Bot, challenge: dict[str, Any], entered: list[Any]
) -> None:
    assert poll(rival_bot, challenge).json()["code"] == "challenge_unknown"
    assert entered == []
