"""Measure the offset between this machine's clock and the database's.

Processes compare timestamps that other processes wrote, so they need a common clock, and they all reach the database.
Code that ends or erases rows by time must call `checked_now` (K6): a worker whose clock was an hour ahead once ended
every live token. On SQLite the offset is zero, because database and process share one machine.
"""

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic
from typing import Final

from django.db import connection
from django.utils import timezone

CLOCK_TOLERANCE: Final = timedelta(seconds=5)
# Measure again if a busy database was slow: a short round trip gives a more exact offset.
_MOST_TRIES: Final = 3
_SHORT_ENOUGH: Final = timedelta(seconds=1)

logger = logging.getLogger("consumer_delegation.clock")


class ClockDiffers(Exception):
    """The clocks differ by more than `CLOCK_TOLERANCE`. The message gives the difference in seconds."""


@dataclass(frozen=True)
class Offset:
    """How far our clock is ahead of the database's (negative: behind), plus or minus `uncertainty`."""

    ahead: timedelta
    uncertainty: timedelta

    @property
    def is_tolerable(self) -> bool:
        """Whether the difference is within the tolerance even in the worst case."""
        return abs(self.ahead) + self.uncertainty <= CLOCK_TOLERANCE

    def __str__(self) -> str:
        direction = "ahead of" if self.ahead > timedelta(0) else "behind"
        apart, uncertainty = abs(self.ahead).total_seconds(), self.uncertainty.total_seconds()
        return f"this machine's clock is {apart:,.1f} s {direction} the database's (give or take {uncertainty:.1f} s)"


@dataclass
class _Process:
    ahead: timedelta = timedelta(0)


_process = _Process()


def measure() -> Offset:
    """Measure the offset and keep it for `now`. Raises Django's database errors."""
    offset = _best_of([])
    _process.ahead = offset.ahead
    return offset


def now() -> datetime:
    """The database's time, computed from our clock and the last measured offset."""
    return timezone.now() - _process.ahead


def checked_now() -> datetime:
    """Measure and return the database's time. Raises `ClockDiffers` if our clock may be more than five seconds off."""
    offset = measure()
    if not offset.is_tolerable:
        raise ClockDiffers(str(offset))
    return now()


def report_wrong_clock() -> None:
    """Log an error if the clock of this web process is off. Readiness calls it at the start and each minute.

    Web processes do not stop for it. If the database's own clock jumped, all of them would refuse at once, although
    only the sweep is at risk. Computing a status must not need a round trip either.
    """
    offset = measure()
    if not offset.is_tolerable:
        logger.error("the clock is wrong: expiry times depend on it", extra={"offset": str(offset)})


def _best_of(measured: list[Offset]) -> Offset:
    """Measure up to three times and return the result of the shortest round trip."""
    while len(measured) < _MOST_TRIES:
        measured.append(_measure_once())
        if measured[-1].uncertainty * 2 <= _SHORT_ENOUGH:
            break
    return min(measured, key=lambda offset: offset.uncertainty)


def _measure_once() -> Offset:
    """Assume that the database answered in the middle of the round trip. The error is at most half of it.

    The monotonic clock times the round trip, because the system clock may be adjusted meanwhile.
    """
    connection.ensure_connection()  # keep connecting out of the measured round trip
    ours, began = timezone.now(), monotonic()
    theirs = _database_time()
    half = timedelta(seconds=monotonic() - began) / 2
    if theirs is None:
        return Offset(timedelta(0), timedelta(0))
    return Offset(ours + half - theirs, half)


def _database_time() -> datetime | None:
    """None on SQLite."""
    if connection.vendor != "postgresql":
        return None
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        (moment,) = cursor.fetchone()
    return moment  # type: ignore[no-any-return]  # the driver's own type
