"""Long poll: a bounded number of calls wait until their challenge changes, without a database connection.

One thread for each process asks for all of them together, twenty times a second and only while somebody waits. Why not
LISTEN/NOTIFY: it needs a session of its own, which a transaction pooler does not give, SQLite has nothing like it, and
every change would have to remember to send it. One read of a few rows by primary key costs less than that would.
"""

import logging
import random
from dataclasses import dataclass, field
from datetime import datetime
from math import ceil
from threading import Event, Lock, Thread
from typing import Final

from django.conf import settings
from django.db import Error, connection
from django.utils import timezone

from conversations.models import OPEN_STATUSES, Challenge
from infrastructure.stopping import is_stopping

MAX_WAIT: Final = 25
_SECONDS_BETWEEN_LOOKS: Final = 0.05
_SECONDS_AFTER_AN_ERROR: Final = 1.0
_RETRY_AFTER: Final = (1, 3)

logger = logging.getLogger("consumer_delegation.waiting")


@dataclass(eq=False)
class _Waiter:
    """A call that waits, and how its challenge stood when it was read: a change since then is never missed."""

    challenge_pk: int
    brand_pk: int
    seen: tuple[str, str]
    expires_at: datetime
    woken: Event = field(default_factory=Event)


class _WaitingRoom:
    """Who waits in this process, and the thread that looks after them."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._waiters: set[_Waiter] = set()
        self._watcher: Thread | None = None

    def enter(self, waiter: _Waiter) -> bool:
        """Let one more in, and see to it that somebody looks; return False where enough wait."""
        with self._lock:
            if is_stopping() or len(self._waiters) >= most_waiters() or self._is_full_for(waiter.brand_pk):
                return False
            self._waiters.add(waiter)
            # Begun here and not at start: threads do not live through a fork.
            if self._watcher is None or not self._watcher.is_alive():
                self._watcher = Thread(target=self._watch, name="long-poll", daemon=True)
                self._watcher.start()
            return True

    def _is_full_for(self, brand_pk: int) -> bool:
        """Tell whether a brand has three quarters of the places: the rest is for the others' bots."""
        return sum(waiter.brand_pk == brand_pk for waiter in self._waiters) >= ceil(most_waiters() * 3 / 4)

    def leave(self, waiter: _Waiter) -> None:
        with self._lock:
            self._waiters.discard(waiter)

    def __len__(self) -> int:
        return len(self._waiters)

    def _watch(self) -> None:
        pause = Event()
        try:
            while waiters := self._present_or_end():
                pause.wait(_look(waiters))
        finally:
            connection.close()

    def _present_or_end(self) -> list[_Waiter]:
        with self._lock:
            if not self._waiters:
                # Under the lock: whoever enters next begins another thread.
                self._watcher = None
            return list(self._waiters)


_room = _WaitingRoom()


def most_waiters() -> int:
    """Return how many calls of this process may wait at once: a quarter of the threads, and never all of them."""
    return min(max(1, settings.THREADS // 4), settings.THREADS - 1)


def waiters_now() -> int:
    """Return how many calls of this process wait at this moment."""
    return len(_room)


def wait_for_change(challenge: Challenge, seconds: int) -> bool:
    """Return when the challenge has changed since it was read, has expired, or after `seconds`.

    Returns False at once where as many as may wait do, or the process is stopping. The caller's database connection is
    closed: what waits holds none. A client that goes away is not noticed; its wait ends as any other.
    """
    waiter = _Waiter(
        challenge.pk, challenge.conversation.brand_id, (challenge.status, challenge.last_error), challenge.expires_at
    )
    if not _room.enter(waiter):
        return False
    try:
        connection.close()
        waiter.woken.wait(seconds)
    finally:
        _room.leave(waiter)
    return True


def retry_after() -> dict[str, str]:
    """Return `Retry-After` for those who could not wait: not the same for all, or they would all come at once."""
    return {"Retry-After": str(random.randint(*_RETRY_AFTER))}  # noqa: S311  # it spreads, it protects nothing


def can_change(challenge: Challenge, now: datetime) -> bool:
    return challenge.status_at(now) in OPEN_STATUSES


def _look(waiters: list[_Waiter]) -> float:
    """Wake those who have nothing to wait for any more; return after how many seconds to look again."""
    try:
        present = _standings({waiter.challenge_pk for waiter in waiters})
    except Error:
        # They are not left hanging: each has a deadline of its own.
        logger.exception("challenges that are waited for could not be looked up")
        connection.close()
        return _SECONDS_AFTER_AN_ERROR
    now, stopping = timezone.now(), is_stopping()
    for waiter in waiters:
        if stopping or waiter.expires_at <= now or present.get(waiter.challenge_pk) != waiter.seen:
            waiter.woken.set()
    return _SECONDS_BETWEEN_LOOKS


def _standings(challenge_pks: set[int]) -> dict[int, tuple[str, str]]:
    rows = Challenge.objects.filter(pk__in=challenge_pks).order_by()
    return {pk: (status, error) for pk, status, error in rows.values_list("pk", "status", "last_error")}
