"""Shared code of the outbox tables: end leases, lease the sweep to one worker at a time, log a long failure once."""

import logging
import secrets
from datetime import datetime, timedelta
from threading import Lock
from time import monotonic
from typing import Any, Final

from django.db.models import F, Q, QuerySet

from infrastructure import database_clock
from infrastructure.leases import LEASE
from infrastructure.models import WorkerHeartbeat

_PAUSE_AFTER_RELEASE: Final = timedelta(seconds=5)
_LONGEST_AFTER_FAULT: Final = timedelta(minutes=15)
# Pauses of a worker whose database is unavailable.
FIRST_PAUSE: Final = timedelta(milliseconds=500)
LONGEST_PAUSE: Final = timedelta(seconds=10)
_MAX_MESSAGE_LENGTH: Final = 300
# A worker notes once a minute that it runs.
SILENT_AFTER: Final = timedelta(minutes=5)
_HEARTBEAT: Final = 1
# How long a sweep belongs to its worker, which asks for more time as it goes on.
_SWEEP_LEASE: Final = timedelta(minutes=2)
# Less than a minute: each worker looks once a minute, and a little earlier or later than the last time.
_SWEEP_EVERY: Final = timedelta(seconds=50)


def give_back_rest(batch: list[Any]) -> None:
    """Release rows of one lease that were not attempted. They are due as before, and no attempt is counted."""
    rows = type(batch[0])._default_manager.filter(pk__in=[row.pk for row in batch], lease_until=batch[0].lease_until)
    rows.update(lease_until=None, attempts=F("attempts") - 1)


def give_back(row: Any) -> None:
    """Release a row that was not attempted: free the lease and do not count the attempt."""
    at = database_clock.now() + pause_after(1, _PAUSE_AFTER_RELEASE, _PAUSE_AFTER_RELEASE)
    _of_this_lease(row).update(lease_until=None, next_attempt_at=at, attempts=F("attempts") - 1)


def put_off(row: Any, next_attempt_at: datetime) -> None:
    _of_this_lease(row).update(lease_until=None, next_attempt_at=next_attempt_at)


def put_off_after_fault(row: Any) -> None:
    """Delay a row after an internal error, for about the time of a lease or longer. The lease is freed."""
    put_off(row, database_clock.now() + pause_after(row.attempts, LEASE, _LONGEST_AFTER_FAULT))


def pause_after(attempts: int, first: timedelta, longest: timedelta) -> timedelta:
    """Exponential back-off with jitter, so that retries do not come all at once."""
    doubled = first * float(2 ** min(attempts - 1, 30))
    return min(doubled, longest) * (0.75 + secrets.randbelow(500) / 1000)


def _of_this_lease(row: Any) -> QuerySet[Any]:
    """Select the row only if we still hold its lease: another worker may have taken it over."""
    rows: QuerySet[Any] = type(row)._default_manager.filter(pk=row.pk, lease_until=row.lease_until)
    return rows


logger = logging.getLogger("consumer_delegation.worker")


def note_heartbeat(now: datetime, *, swept: bool = False) -> None:
    """Note that a worker runs, or that its sweep is complete. One statement; the row is the same for all workers."""
    row = WorkerHeartbeat(pk=_HEARTBEAT, beat_at=now, swept_at=now if swept else None)
    fields = ["beat_at", "swept_at"] if swept else ["beat_at"]
    WorkerHeartbeat.objects.bulk_create([row], update_conflicts=True, unique_fields=["id"], update_fields=fields)


class SweepTurn:
    """The right to sweep, which one worker has at a time. If the worker dies, it ends after two minutes."""

    def __init__(self, begun: datetime, until: datetime) -> None:
        self._begun, self._until = begun, until

    @classmethod
    def take(cls, now: datetime) -> "SweepTurn | None":
        """Take the turn with one conditional UPDATE; None if a sweep is running, or has begun in this minute.

        The worker has noted its heartbeat before. A turn that ends too late does not count: its worker had a wrong
        clock.
        """
        free = Q(sweep_due_at=None) | Q(sweep_due_at__lte=now) | Q(sweep_due_at__gt=now + 2 * _SWEEP_LEASE)
        until = now + _SWEEP_LEASE
        taken = WorkerHeartbeat.objects.filter(free, pk=_HEARTBEAT).update(sweep_due_at=until)
        return cls(now, until) if taken else None

    def is_lost(self) -> bool:
        """Whether another worker has taken over. In the second half of its time the turn is prolonged."""
        now = database_clock.now()
        return now > self._until - _SWEEP_LEASE / 2 and not self._moved_to(now + _SWEEP_LEASE)

    def end(self) -> None:
        """Let the next sweep begin a minute after this one began."""
        self._moved_to(self._begun + _SWEEP_EVERY)

    def _moved_to(self, until: datetime) -> bool:
        mine = WorkerHeartbeat.objects.filter(pk=_HEARTBEAT, sweep_due_at=self._until)
        is_mine = mine.update(sweep_due_at=until) == 1
        self._until = until if is_mine else self._until
        return is_mine


def heartbeat() -> WorkerHeartbeat | None:
    """Return when a worker last ran and swept; None if none ever has."""
    return WorkerHeartbeat.objects.filter(pk=_HEARTBEAT).first()


def report_silent_worker() -> None:
    """Log an error if no worker has run for `SILENT_AFTER`. The readiness check calls this about once a minute.

    If none ever has, it is a warning: the web processes of a new installation start first.

    The web process stays in service: it can do its own work, and a restart of it would bring no worker back.
    """
    last, now = heartbeat(), database_clock.now()
    if last is None:
        logger.warning("no worker has ever run: nothing is delivered, revoked or swept")
    elif (silent := now - last.beat_at) >= SILENT_AFTER:
        extra = {"seconds": round(silent.total_seconds())}
        logger.error("no worker runs: nothing is delivered, revoked or swept", extra=extra)


class LastingFailure:
    """Logs a failure that may last: once when it begins and once when it is over. Threads may share it.

    The first `silent` failures are not logged: a dropped keep-alive connection works again at once. The failure is over
    after `quiet_seconds` without an error, because one thread may succeed while the others still fail.
    """

    def __init__(self, begins: str, ends: str, *, silent: int = 0, quiet_seconds: float = 0.0) -> None:
        self._begins, self._ends, self._silent, self._quiet_seconds = begins, ends, silent, quiet_seconds
        self._lock = Lock()
        self._failures = 0
        self._began_at = self._last_at = self._not_before = 0.0
        self._logged = ""

    def failed(self, error: BaseException, *, traceback: bool = False) -> None:
        """Record an error and log the first one. With `traceback`, log again if the error's text changes."""
        with self._lock:
            self._note(monotonic())
            what = _in_one_line(error)
            if self._failures <= self._silent or (self._logged and not (traceback and what != self._logged)):
                return
            self._logged = what
        extra = {"error": what, "error_class": type(error).__name__}
        logger.error(self._begins, extra=extra, exc_info=error if traceback else None)

    def succeeded(self) -> None:
        """Record a success. Log the recovery if the failure was logged."""
        with self._lock:
            now = monotonic()
            if not self._failures or now - self._last_at < self._quiet_seconds:
                return
            was_logged, seconds = bool(self._logged), round(now - self._began_at)
            self._failures, self._logged, self._not_before = 0, "", 0.0
        if was_logged:
            logger.info(self._ends, extra={"seconds": seconds})

    @property
    def is_failing(self) -> bool:
        return self._failures > 0

    @property
    def pause(self) -> float:
        """How many seconds to wait before the next try."""
        return max(0.0, self._not_before - monotonic())

    def _note(self, now: float) -> None:
        """Count an error. Simultaneous errors of many threads count once, which keeps the pause short."""
        self._last_at = now
        if self._failures and now < self._not_before:
            return
        self._began_at = self._began_at if self._failures else now
        self._failures += 1
        tries = self._failures - self._silent
        pause = pause_after(tries, FIRST_PAUSE, LONGEST_PAUSE).total_seconds() if tries > 0 else 0.0
        self._not_before = now + pause


def _in_one_line(error: BaseException) -> str:
    """Keep the first line of the message. PostgreSQL quotes row values below it."""
    return next(iter(str(error).splitlines()), "")[:_MAX_MESSAGE_LENGTH]
