"""Long poll: a limited number of calls wait for their challenge to change, without holding a database connection.

In each process one thread polls the database for all waiting calls together, twenty times a second. It runs only while
a call waits. LISTEN/NOTIFY is not used: a transaction pooler does not support it, SQLite has no equivalent, and every
change would have to send a notification. Reading a few rows by primary key is cheaper.
"""

import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from math import ceil
from threading import Event, Lock, Semaphore, Thread
from typing import Any, Final, Protocol

from django.conf import settings
from django.db import Error, connection
from django.utils import timezone

from conversations.models import OPEN_STATUSES, Challenge, status_at
from infrastructure import metrics
from infrastructure.stopping import is_stopping

MAX_WAIT_SECONDS: Final = 25
_SECONDS_BETWEEN_QUERIES: Final = 0.05
_SECONDS_AFTER_AN_ERROR: Final = 1.0
_RETRY_AFTER: Final = (1, 3)
_SECONDS_UNTIL_ONES_TURN: Final = 1.0

logger = logging.getLogger("consumer_delegation.waiting")


class Watched(Protocol):
    """The columns of a challenge that a call waits with: a `Challenge`, or the row of a query."""

    @property
    def pk(self) -> Any: ...
    @property
    def status(self) -> str: ...
    @property
    def last_error(self) -> str: ...
    @property
    def expires_at(self) -> datetime: ...


@dataclass(eq=False)
class _Waiter:
    """A waiting call. `seen` is the challenge's status and last error that the call read before it began to wait."""

    challenge_pk: int
    brand_pk: int
    seen: tuple[str, str]
    expires_at: datetime
    woken: Event = field(default_factory=Event)


class _Waiters:
    """The waiting calls of this process, and the thread that polls the database for them."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._waiters: set[_Waiter] = set()
        self._watcher: Thread | None = None

    def add(self, waiter: _Waiter) -> bool:
        """Add a waiter and start the thread if needed. Returns False if no more calls may wait."""
        with self._lock:
            if is_stopping() or len(self._waiters) >= most_waiters() or self._is_full_for(waiter.brand_pk):
                metrics.count_limit("waiting-places")
                return False
            self._waiters.add(waiter)
            metrics.set_waiters(len(self._waiters))
            # Started here and not when the process starts: threads do not survive a fork.
            if self._watcher is None or not self._watcher.is_alive():
                self._watcher = Thread(target=self._watch, name="long-poll", daemon=True)
                self._watcher.start()
            return True

    def _is_full_for(self, brand_pk: int) -> bool:
        """Whether the brand already uses three quarters of the places. The rest is kept for other brands' bots."""
        return sum(waiter.brand_pk == brand_pk for waiter in self._waiters) >= ceil(most_waiters() * 3 / 4)

    def remove(self, waiter: _Waiter) -> None:
        with self._lock:
            self._waiters.discard(waiter)
            metrics.set_waiters(len(self._waiters))

    def __len__(self) -> int:
        return len(self._waiters)

    def _watch(self) -> None:
        pause = Event()
        try:
            while waiters := self._current_waiters():
                pause.wait(_wake_changed(waiters))
        finally:
            connection.close()

    def _current_waiters(self) -> list[_Waiter]:
        with self._lock:
            if not self._waiters:
                # This thread ends. We clear it under the lock, so that the next waiter starts a new one.
                self._watcher = None
            return list(self._waiters)


_waiters = _Waiters()
_turn = Semaphore()


@contextmanager
def in_turn() -> Iterator[None]:
    """Keep the database to one of this process's long polls at a time, while each reads its challenge.

    Hundreds of polls in one moment would otherwise put one statement for each thread before those of the token reads,
    and PostgreSQL cannot give way as a process group can. If the database does not answer, nobody queues: after a
    second one's turn has come in any case.
    """
    has_turn = _turn.acquire(timeout=_SECONDS_UNTIL_ONES_TURN)
    try:
        yield
    finally:
        if has_turn:
            _turn.release()


def most_waiters() -> int:
    """How many calls of this process may wait at once: a quarter of the threads, at least 1; 0 of one thread."""
    return min(max(1, settings.THREADS // 4), settings.THREADS - 1)


def waiters_now() -> int:
    return len(_waiters)


def wait_for_change(challenge: Watched, brand_pk: int, seconds: int) -> bool:
    """Block until the challenge changes or expires, or `seconds` have passed. Returns True then.

    Returns False at once, without waiting, if too many calls wait or the process is stopping. Closes the caller's
    database connection while it waits. It does not notice that the client has disconnected.
    """
    waiter = _Waiter(challenge.pk, brand_pk, (challenge.status, challenge.last_error), challenge.expires_at)
    if not _waiters.add(waiter):
        return False
    try:
        connection.close()
        waiter.woken.wait(seconds)
    finally:
        _waiters.remove(waiter)
    return True


def retry_after() -> dict[str, str]:
    """Build `Retry-After` for a call that could not wait. It is random, so that the bots do not all return at once."""
    return {"Retry-After": str(random.randint(*_RETRY_AFTER))}  # noqa: S311  # no secret


def can_change(challenge: Watched, now: datetime) -> bool:
    """Whether the challenge is open, so that its status can still change."""
    return status_at(challenge.status, challenge.expires_at, now) in OPEN_STATUSES


def _wake_changed(waiters: list[_Waiter]) -> float:
    """Wake each waiter whose challenge has changed or expired. Returns the seconds until the next query."""
    try:
        current = _statuses({waiter.challenge_pk for waiter in waiters})
    except Error:
        # Each call's `woken.wait(seconds)` ends by itself, so no call waits for ever.
        logger.exception("long poll: the challenges could not be read")
        connection.close()
        return _SECONDS_AFTER_AN_ERROR
    now, stopping = timezone.now(), is_stopping()
    for waiter in waiters:
        if stopping or waiter.expires_at <= now or current.get(waiter.challenge_pk) != waiter.seen:
            waiter.woken.set()
    return _SECONDS_BETWEEN_QUERIES


def _statuses(challenge_pks: set[int]) -> dict[int, tuple[str, str]]:
    rows = Challenge.objects.filter(pk__in=challenge_pks).order_by()
    return {pk: (status, error) for pk, status, error in rows.values_list("pk", "status", "last_error")}
