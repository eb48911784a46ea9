"""What fails in the sweep fails for itself: every other part of it is done, and the outbox goes on (K6)."""

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Event, Thread
from typing import Any

import pytest
import time_machine
from django.core.management import CommandError, call_command
from django.db import DataError, IntegrityError, InternalError, OperationalError, connection, connections
from django.utils import timezone

from brands.models import AuthorizationServer, Brand
from conversations.flow import retention
from conversations.flow.retention import SweepIncomplete, sweep
from conversations.flow.transitions import end_expired
from conversations.models import AccessToken, Challenge, Conversation
from conversations.outbox import sweeping, worker
from infrastructure import outbox, rate_limits
from infrastructure.database_clock import Offset, checked_now
from tests.cast import Bot, make_bot
from tests.webhook_receiver import Receiver

pytestmark = pytest.mark.django_db

FAULTS = [
    RuntimeError("planted"),
    DataError("planted"),
    IntegrityError("planted"),
    UnicodeEncodeError("x", "", 0, 1, ""),
]


@pytest.fixture
def overdue(acme: Brand, acme_server: AuthorizationServer, acme_bot: Bot) -> Iterator[list[Conversation]]:
    """Travel to where the challenges of four chats are over; the second one's chat is the one that fails."""
    for number in range(4):
        Bot(acme_bot.key, f"web:{number}").challenge()
    with time_machine.travel(timezone.now() + timedelta(hours=2), tick=False):
        yield list(Conversation.objects.order_by("pk"))


def fail_at(pk: int, error: BaseException) -> Callable[..., None]:
    def close(conversation: Conversation, now: Any) -> None:
        if conversation.pk == pk:
            raise error
        end_expired(conversation, now)

    return close


@pytest.mark.parametrize("fault", FAULTS)
def test_a_conversation_that_fails_keeps_no_other_from_being_swept(
    overdue: list[Conversation], monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    """The bug: the first one's error ended the sweep, and the worker with it."""
    monkeypatch.setattr(retention, "end_expired", fail_at(overdue[1].pk, fault))
    monkeypatch.setattr(retention, "CHUNK", 1)
    with pytest.raises(SweepIncomplete, match=f"conversation {overdue[1].pk} "):
        sweep(timezone.now())
    assert list(Challenge.objects.exclude(status="expired").values_list("conversation", flat=True)) == [overdue[1].pk]


def test_a_part_that_fails_keeps_no_other_from_being_done(
    overdue: list[Conversation], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limits, "sweep", lambda *_: 1 / 0)
    with pytest.raises(SweepIncomplete, match=r"rate limits \(ZeroDivisionError\)"):
        sweep(timezone.now())
    assert not Challenge.objects.exclude(status="expired").exists()


def test_a_database_that_is_away_ends_the_sweep_at_once(
    overdue: list[Conversation], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every other part would find that out anew, in a line of its own."""
    fault = OperationalError("the server closed the connection unexpectedly")
    monkeypatch.setattr(retention, "end_expired", fail_at(overdue[0].pk, fault))
    with pytest.raises(OperationalError):
        sweep(timezone.now())


@pytest.mark.parametrize("command", ["prune", "worker"])
def test_a_command_says_what_was_left_undone_and_exits_with_1(
    overdue: list[Conversation], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr(retention, "end_expired", fail_at(overdue[1].pk, RuntimeError("planted")))
    options = {"once": True} if command == "worker" else {}
    with pytest.raises(CommandError, match=f"conversation {overdue[1].pk} "):
        call_command(command, **options)
    assert Challenge.objects.exclude(status="expired").count() == 1


def run_until(is_so: Callable[[], bool]) -> None:
    """Run the worker's loop in this test until something has come to be."""
    stop = Event()

    def watch() -> None:
        try:
            while not is_so():
                stop.wait(0.05)
        finally:
            stop.set()
            connections.close_all()

    watcher = Thread(target=watch)
    watcher.start()
    worker.run(stop)
    watcher.join()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("fault", [*FAULTS, InternalError("planted")])
def test_a_sweep_that_fails_takes_no_webhook_along(
    acme_bot: Bot,
    acme_server: AuthorizationServer,
    acme_hooks: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fault: Exception,
) -> None:
    """The bug: any exception of the sweep that was no DatabaseError ended the worker."""

    def fail(*_: Any) -> int:
        raise fault

    acme_bot.challenge()
    monkeypatch.setattr(sweeping, "sweep", fail)
    monkeypatch.setattr(worker, "SWEEP_EVERY_SECONDS", 0.0)
    run_until(lambda: bool(acme_hooks.messages))
    assert acme_hooks.types == ["challenge.issued"]
    said = [line.getMessage() for line in caplog.records if line.levelno == logging.ERROR]
    assert said == ["the sweep was incomplete"]


@pytest.mark.parametrize(
    ("ahead", "uncertainty", "is_tolerable"),
    [(0, 0, True), (5, 0, True), (-5, 0, True), (5.01, 0, False), (-5.01, 0, False), (4, 2, False), (0, 6, False)],
)
def test_the_round_trip_counts_against_the_clock(ahead: float, uncertainty: float, *, is_tolerable: bool) -> None:
    """K6: what cannot be told for certain is not swept by."""
    assert Offset(timedelta(seconds=ahead), timedelta(seconds=uncertainty)).is_tolerable is is_tolerable


@pytest.mark.real_clocks
def test_the_databases_clock_is_asked_for(db: None) -> None:
    """K6: the very same machine, so there is nothing between the two clocks."""
    assert abs(checked_now() - timezone.now()) < timedelta(seconds=5)


def test_what_fails_is_left_for_the_next_sweep(overdue: list[Conversation], monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(retention, "end_expired", fail_at(overdue[1].pk, RuntimeError("planted")))
        with pytest.raises(SweepIncomplete):
            sweep(timezone.now())
    assert sweep(timezone.now()) == 1
    assert not AccessToken.objects.exists()
    assert make_bot(overdue[1].brand, chat="web:1").challenge()["status"] == "issued"


class Pauses(Event):
    """A worker's stop that notes how long was waited for it, and waits for nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.waited: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waited.append(timeout or 0)
        return False


def test_pauses_grow_while_the_database_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bug: the loop went round without a pause, thousands of times in ten seconds."""

    def be_away(*_: Any) -> list[Any]:
        raise OperationalError("the server closed the connection unexpectedly")

    stop, now = Pauses(), [1_000.0]
    monkeypatch.setattr(outbox, "monotonic", lambda: now[0])
    monkeypatch.setattr(worker._Queue, "take", be_away)
    monkeypatch.setattr(connection, "close", lambda: None)  # it is this test's own transaction
    for part in ("sweep_in_turn", "count_events", "watch"):  # they would wait for this test's transaction
        monkeypatch.setattr(worker, part, lambda *_: 0)
    loop = worker._Worker(stop)
    with ThreadPoolExecutor(1) as threads:
        for _ in range(8):
            loop.iterate(threads)
            now[0] += stop.waited[-1]
    assert stop.waited[0] == 0  # a kept connection that has died works again at once
    pauses = zip(stop.waited[1:], [0.5, 1, 2, 4, 8, 10, 10], strict=True)
    assert [(waited, about) for waited, about in pauses if not about * 0.75 <= waited <= about * 1.25] == []


def test_of_several_workers_one_sweeps_in_a_minute() -> None:
    now = timezone.now()
    outbox.note_heartbeat(now)
    assert sweeping.sweep_in_turn(now, lambda: False)
    assert not sweeping.sweep_in_turn(now + timedelta(seconds=49), lambda: False)
    assert sweeping.sweep_in_turn(now + timedelta(seconds=51), lambda: False)


def test_the_sweep_of_a_worker_that_died_is_taken_over_and_it_notices() -> None:
    now = timezone.now() - timedelta(minutes=3)
    outbox.note_heartbeat(now)
    lost = outbox.SweepTurn.take(now)
    assert lost
    assert outbox.SweepTurn.take(now + timedelta(seconds=119)) is None
    other = outbox.SweepTurn.take(timezone.now())
    assert other
    assert (lost.is_lost(), other.is_lost()) == (True, False)
    lost.end()  # which must not end the other's turn
    assert outbox.SweepTurn.take(timezone.now()) is None


def test_a_turn_of_a_wrong_clock_stops_no_sweep() -> None:
    now = timezone.now()
    outbox.note_heartbeat(now)
    assert outbox.SweepTurn.take(now + timedelta(hours=1))
    assert outbox.SweepTurn.take(now)
