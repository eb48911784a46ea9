"""Shared code of the outbox tables: lease due rows, and the sweep, to one worker at a time; log a long failure once."""

import logging
import secrets
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from threading import Lock
from time import monotonic
from typing import Any, Final

from django.db import connection, transaction
from django.db.models import F, OuterRef, Q, QuerySet, Subquery

from infrastructure import database_clock
from infrastructure.models import WorkerHeartbeat

# How long a worker has a row to itself. Longer than the slowest attempt: the transport ends every call after 10 s.
LEASE: Final = timedelta(seconds=60)
MAX_AT_ONCE_PER_DESTINATION: Final = 2
# A limit for each brand as well: a brand may have many destinations, all of them slow.
MAX_AT_ONCE_PER_BRAND: Final = 3
_PAUSE_AFTER_RELEASE: Final = timedelta(seconds=5)
_LONGEST_AFTER_FAULT: Final = timedelta(minutes=15)
# Key of the advisory lock. Any number will do, if all workers use the same number.
_ADVISORY_LOCK: Final = 7009
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


@dataclass(frozen=True)
class Destinations:
    """The remote servers of one outbox table: `name` is the foreign key's name, `rows` are the servers' rows.

    `at_once` and `per_brand` limit the leases of one destination and of one brand that all workers together may have.
    One lease is for up to `batch` rows of one destination, which are worked on one after the other.
    """

    name: str
    rows: QuerySet[Any]
    at_once: int = MAX_AT_ONCE_PER_DESTINATION
    per_brand: int = MAX_AT_ONCE_PER_BRAND
    batch: int = 1


def lease_due(rows: QuerySet[Any], to: Destinations, now: datetime, limit: int) -> list[Any]:
    """Take up to `limit` leases of one row each, as `lease_batches` does. Return the rows."""
    return [row for batch in lease_batches(rows, to, now, limit) for row in batch]


def lease_batches(rows: QuerySet[Any], to: Destinations, now: datetime, limit: int) -> list[list[Any]]:
    """Take up to `limit` leases of due rows, within the limits of `to`. Return the rows of each lease.

    The brand with the fewest leases comes first, so that a slow or busy brand delays no other. An expired lease
    belongs to a worker that died, and its rows are leased again. The rows of one lease, and no others of their
    destination, have the same `lease_until`: this is how leases are counted.
    """
    free = Q(lease_until=None) | Q(lease_until__lte=now) | Q(lease_until__gt=now + 2 * LEASE)
    due = rows.filter(free, next_attempt_at__lte=now).order_by("next_attempt_at", "pk")
    with transaction.atomic():
        _one_worker_at_a_time()
        busy = _leases(rows, to, now)
        chosen = list(_choose(due, to, busy, limit))
        for batch in chosen:
            until = busy.unused(now + LEASE)
            rows.filter(pk__in=[row.pk for row in batch]).update(lease_until=until, attempts=F("attempts") + 1)
            for row in batch:
                row.lease_until, row.attempts = until, row.attempts + 1
    return chosen


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


def leased(now: datetime) -> Q:
    """Condition for rows that are leased now.

    A lease that ends too late does not count: its worker had a wrong clock.
    """
    return Q(lease_until__gt=now, lease_until__lte=now + 2 * LEASE)


def pause_after(attempts: int, first: timedelta, longest: timedelta) -> timedelta:
    """Exponential back-off with jitter, so that retries do not come all at once."""
    doubled = first * float(2 ** min(attempts - 1, 30))
    return min(doubled, longest) * (0.75 + secrets.randbelow(500) / 1000)


def _of_this_lease(row: Any) -> QuerySet[Any]:
    """Select the row only if we still hold its lease: another worker may have taken it over."""
    rows: QuerySet[Any] = type(row)._default_manager.filter(pk=row.pk, lease_until=row.lease_until)
    return rows


@dataclass
class _Leases:
    """The leases that are held now, by destination and by brand, and when they end."""

    to: Counter[int] = field(default_factory=Counter)
    of: Counter[int] = field(default_factory=Counter)
    ends: set[datetime] = field(default_factory=set)

    def add(self, destination: int, brand: int) -> None:
        self.to[destination] += 1
        self.of[brand] += 1

    def room(self, destination: int, brand: int, to: Destinations) -> int:
        return min(to.at_once - self.to[destination], to.per_brand - self.of[brand])

    def unused(self, end: datetime) -> datetime:
        """Return the first moment from `end` on at which no lease ends, and note it."""
        while end in self.ends:
            end += timedelta.resolution
        self.ends.add(end)
        return end


def _leases(rows: QuerySet[Any], to: Destinations, now: datetime) -> _Leases:
    busy = rows.filter(leased(now), **{f"{to.name}__in": to.rows})
    found = _Leases()
    columns = (f"{to.name}_id", f"{to.name}__brand_id", "lease_until")
    for destination, brand, end in busy.order_by().values_list(*columns).distinct():
        found.add(destination, brand)
        found.ends.add(end)
    return found


def _choose(due: QuerySet[Any], to: Destinations, busy: _Leases, limit: int) -> Iterator[list[Any]]:
    """Yield the rows of each new lease.

    Iterates over destinations: of 100,000 rows for one destination only the oldest are read.
    """
    waiting = _oldest_due(due, to)
    batches: dict[int, deque[list[Any]]] = {}
    number = 0
    while number < limit:
        waiting = {place: oldest for place, oldest in waiting.items() if busy.room(*place, to) > 0}
        if not waiting:
            return
        place = min(waiting, key=lambda place: (busy.of[place[1]], busy.to[place[0]], waiting[place]))
        if place[0] not in batches:
            of_destination = due.filter(**{f"{to.name}_id": place[0]})
            batches[place[0]] = _batches(of_destination, min(busy.room(*place, to), limit - number), to.batch)
        if not batches[place[0]]:
            del waiting[place]
            continue
        busy.add(*place)
        number += 1
        yield batches[place[0]].popleft()


def _batches(due: QuerySet[Any], number: int, most: int) -> deque[list[Any]]:
    """Deal the oldest rows out evenly: `number` calls at once are faster than one after the other."""
    rows = _unlocked(due, number * most)
    return deque(rows[first::number] for first in range(min(number, len(rows))))


def _oldest_due(due: QuerySet[Any], to: Destinations) -> dict[tuple[int, int], datetime]:
    """Map each destination and its brand to the due time of the oldest row."""
    oldest = due.filter(**{f"{to.name}_id": OuterRef("pk")}).values("next_attempt_at")[:1]
    found = to.rows.order_by().values_list("pk", "brand_id", Subquery(oldest))
    return {(destination, brand): at for destination, brand, at in found if at is not None}


def _unlocked(rows: QuerySet[Any], most: int) -> list[Any]:
    if connection.features.has_select_for_update_skip_locked:
        rows = rows.select_for_update(skip_locked=True, of=("self",))
    return list(rows[:most])


def _one_worker_at_a_time() -> None:
    """Serialise leasing with an advisory lock: two workers could otherwise exceed a brand's limit together.

    On SQLite every transaction that writes already excludes the others.
    """
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_ADVISORY_LOCK])


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
