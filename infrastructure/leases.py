"""Lease due rows of an outbox table to one worker at a time, within limits for each destination and each brand.

The statements are compiled once, because each worker asks four times a second and after each batch.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache, cached_property, partial
from typing import Any, Final

from django.db import connection, transaction
from django.db.models import BigIntegerField, DateTimeField, F, OuterRef, Q, QuerySet, Subquery, Value

from infrastructure.compiled import CompiledQuery, CompiledRows, Parameter
from infrastructure.prepared import PreparedStatement

# How long a worker has a row to itself. Longer than the slowest attempt: the transport ends every call after 10 s.
LEASE: Final = timedelta(seconds=60)
MAX_AT_ONCE_PER_DESTINATION: Final = 2
# A limit for each brand as well: a brand may have many destinations, all of them slow.
MAX_AT_ONCE_PER_BRAND: Final = 3
# The number of the advisory lock: any will do, if all workers use the same.
_SERIALISE: Final = PreparedStatement("SELECT pg_advisory_xact_lock(7009)")

_NOW: Final = Parameter("now", DateTimeField())
# A lease that ends later than this does not count: its worker had a wrong clock.
_LATEST: Final = Parameter("latest", DateTimeField())
_IS_LEASED: Final = Q(lease_until__gt=_NOW, lease_until__lte=_LATEST)
_IS_FREE: Final = Q(lease_until=None) | Q(lease_until__lte=_NOW) | Q(lease_until__gt=_LATEST)


@dataclass(frozen=True)
class Places:
    """How many leases there may be, of all workers together: of one destination, of one brand, and in all.

    One lease is for up to `batch` rows of one destination, which are worked on one after the other.
    """

    at_once: int = MAX_AT_ONCE_PER_DESTINATION
    per_brand: int = MAX_AT_ONCE_PER_BRAND
    in_all: int | None = None
    batch: int = 1


_NONE: Final = Places(in_all=0)


class Outbox:
    """An outbox table. `rows` are those that wait, `destinations` the remote servers that may be called.

    `name` is the foreign key's name. `failing` is a column of the destination that is set while it fails: such ones
    come last, and have places of their own. `complete` loads what leased rows need, in the transaction of the lease.
    """

    def __init__(
        self,
        name: str,
        rows: Callable[[], QuerySet[Any]],
        destinations: Callable[[], QuerySet[Any]],
        *,
        failing: str = "",
        complete: Callable[[list[list[Any]]], object] | None = None,
    ) -> None:
        self._name, self._rows, self._destinations = name, rows, destinations
        self._failing, self._complete = failing, complete
        # Few different numbers: those of the places of a destination.
        self._oldest = cache(self._compile_oldest)

    def lease(self, now: datetime, limit: int, working: Places, failing: Places = _NONE) -> list[list[Any]]:
        """Take up to `limit` leases of due rows, within the limits. Return the rows of each lease.

        The brand with the fewest leases comes first, so that a slow or busy brand delays no other. An expired lease
        belongs to a worker that died, and its rows are leased again. The rows of one lease, and no others of their
        destination, have the same `lease_until`: this is how leases are counted.
        """
        moments = {"now": now, "latest": now + 2 * LEASE}
        waiting = [_Destination(*row) for row in self._waiting.rows(**moments)]
        waiting = [destination for destination in waiting if destination.since is not None]
        if not waiting:
            return []
        with transaction.atomic():
            _one_worker_at_a_time()
            leases = [_Lease(*row) for row in self._leases.rows(**moments)]
            ends = _Ends(now + LEASE, {lease.until for lease in leases})
            taken: list[list[Any]] = []
            for fails, places in ((False, working), (True, failing)):
                turn = _Turn(places, [one for one in waiting if one.fails is fails])
                turn.count([one for one in leases if one.fails is fails])
                for batch in turn.choose(limit - len(taken), lambda pk, most: self._due(pk, most, moments)):
                    self._take(batch, ends.next())
                    taken.append(batch)
            if taken and self._complete is not None:
                self._complete(taken)
        return taken

    def _take(self, batch: list[Any], until: datetime) -> None:
        rows = type(batch[0])._default_manager.filter(pk__in=[row.pk for row in batch])
        rows.update(lease_until=until, attempts=F("attempts") + 1)
        for row in batch:
            row.lease_until, row.attempts = until, row.attempts + 1

    def _due(self, destination: int, most: int, moments: dict[str, datetime]) -> list[Any]:
        return self._oldest(most).all(destination=destination, **moments)

    def _all_due(self) -> QuerySet[Any]:
        return self._rows().filter(_IS_FREE, next_attempt_at__lte=_NOW).order_by("next_attempt_at", "pk")

    @cached_property
    def _waiting(self) -> CompiledRows:
        """Each destination with its oldest due row. Of 100,000 rows of one destination only that one is read."""
        oldest = self._all_due().filter(**{f"{self._name}_id": OuterRef("pk")}).values("next_attempt_at")[:1]
        columns = ("pk", "brand_id", self._failing or Value(None, DateTimeField()), Subquery(oldest))
        return CompiledRows(lambda: self._destinations().order_by().values_list(*columns))

    @cached_property
    def _leases(self) -> CompiledRows:
        """The leases that are held now. A row for each: the rows of a lease have one end."""
        fails = f"{self._name}__{self._failing}" if self._failing else Value(None, DateTimeField())
        columns = (f"{self._name}_id", f"{self._name}__brand_id", fails, "lease_until")
        return CompiledRows(lambda: self._rows().filter(_IS_LEASED).order_by().values_list(*columns).distinct())

    def _compile_oldest(self, most: int) -> CompiledQuery[Any]:
        of_one = {f"{self._name}_id": Parameter("destination", BigIntegerField())}
        return CompiledQuery(lambda: _unlocked(self._all_due().filter(**of_one))[:most])


@dataclass(frozen=True)
class _Destination:
    """A destination, and since when its oldest row has been due."""

    pk: int
    brand: int
    failing_since: datetime | None
    since: datetime | None

    @property
    def fails(self) -> bool:
        return self.failing_since is not None


@dataclass(frozen=True)
class _Lease:
    destination: int
    brand: int
    failing_since: datetime | None
    until: datetime

    @property
    def fails(self) -> bool:
        return self.failing_since is not None


@dataclass
class _Ends:
    """When the leases end: each at a moment of its own."""

    first: datetime
    taken: set[datetime]

    def next(self) -> datetime:
        """Return the first moment at which no other lease ends."""
        end = self.first
        while end in self.taken:
            end += timedelta.resolution
        self.taken.add(end)
        return end


@dataclass
class _Turn:
    """The choice of rows among destinations with the same limits."""

    places: Places
    waiting: list[_Destination]
    to: Counter[int] = field(default_factory=Counter)
    of: Counter[int] = field(default_factory=Counter)

    def count(self, leases: list[_Lease]) -> None:
        """Count the leases that are held already."""
        self.to.update(lease.destination for lease in leases)
        self.of.update(lease.brand for lease in leases)

    def choose(self, limit: int, due: Callable[[int, int], list[Any]]) -> Iterator[list[Any]]:
        """Yield the rows of each new lease. `due` returns at most so many of the oldest rows of a destination."""
        if self.places.in_all is not None:
            limit = min(limit, self.places.in_all - self.of.total())
        waiting, batches = list(self.waiting), {}
        while limit > 0 and (waiting := [one for one in waiting if self._room(one) > 0]):
            chosen = min(waiting, key=lambda one: (self.of[one.brand], self.to[one.pk], one.since))
            if chosen.pk not in batches:
                batches[chosen.pk] = self._dealt_out(min(self._room(chosen), limit), partial(due, chosen.pk))
            if not batches[chosen.pk]:
                waiting.remove(chosen)
                continue
            self.to[chosen.pk] += 1
            self.of[chosen.brand] += 1
            limit -= 1
            yield batches[chosen.pk].popleft()

    def _room(self, destination: _Destination) -> int:
        return min(self.places.at_once - self.to[destination.pk], self.places.per_brand - self.of[destination.brand])

    def _dealt_out(self, number: int, due: Callable[[int], list[Any]]) -> deque[list[Any]]:
        """Deal the oldest rows out evenly: `number` calls at once are faster than one after the other."""
        rows = due(number * self.places.batch)
        return deque(rows[first::number] for first in range(min(number, len(rows))))


def _unlocked(rows: QuerySet[Any]) -> QuerySet[Any]:
    if connection.features.has_select_for_update_skip_locked:
        return rows.select_for_update(skip_locked=True, of=("self",))
    return rows


def _one_worker_at_a_time() -> None:
    """Serialise leasing with an advisory lock: two workers could otherwise exceed a brand's limit together.

    On SQLite every transaction that writes already excludes the others.
    """
    if connection.vendor == "postgresql":
        _SERIALISE.later([])
