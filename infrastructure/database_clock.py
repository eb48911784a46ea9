"""Measure the offset between this machine's clock and the database's.

Processes compare timestamps that other processes wrote, so they need a common clock, and they all reach the database.
Code that ends or erases rows by time must call `checked_now` (K6). This happened: a worker whose clock was an hour
ahead ended every live token. With any database other than PostgreSQL, which is
SQLite, the offset is zero, because database and process share one machine.
"""

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic
from typing import Final

from django.db import connection
from django.utils import timezone

CLOCK_TOLERANCE: Final = timedelta(seconds=5)
_MAX_MEASUREMENTS: Final = 3
# Measure again after a longer round trip to a busy database: a short round trip gives a more exact offset.
_SHORT_ROUND_TRIP: Final = timedelta(seconds=1)

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
        """Whether the difference, with its uncertainty added, is at most `CLOCK_TOLERANCE`."""
        return abs(self.ahead) + self.uncertainty <= CLOCK_TOLERANCE

    def __str__(self) -> str:
        direction = "ahead of" if self.ahead > timedelta(0) else "behind"
        apart, uncertainty = abs(self.ahead).total_seconds(), self.uncertainty.total_seconds()
        return f"this machine's clock is {apart:,.1f} s {direction} the database's (give or take {uncertainty:.1f} s)"


@dataclass
class _LastMeasured:
    ahead: timedelta = timedelta(0)


_last_measured = _LastMeasured()


def measure() -> Offset:
    """Measure the offset and keep it for `now`. Raises Django's database errors."""
    offset = _measure_best()
    _last_measured.ahead = offset.ahead
    return offset


def now() -> datetime:
    """The database's time, computed from our clock and the last measured offset."""
    return timezone.now() - _last_measured.ahead


def checked_now() -> datetime:
    """Measure and return the database's time.

    Raises `ClockDiffers` if the clocks may differ by more than `CLOCK_TOLERANCE`.
    """
    offset = measure()
    if not offset.is_tolerable:
        raise ClockDiffers(str(offset))
    return now()


def report_wrong_clock() -> None:
    """Log an error if the clock of this web process is wrong. The readiness check calls this about once a minute.

    This only logs; it does not take the process out of service. If the database's clock jumped, every web process would
    otherwise become unready at once, although only the worker's sweep, which ends and erases rows, can do harm. And web
    code calls `now`, not `checked_now`: showing the status of a conversation must not cost a further query.
    """
    offset = measure()
    if not offset.is_tolerable:
        logger.error("the clock is wrong: expiry times depend on it", extra={"offset": str(offset)})


def _measure_best() -> Offset:
    """Measure up to three times and return the result of the shortest round trip."""
    measured: list[Offset] = []
    while len(measured) < _MAX_MEASUREMENTS:
        measured.append(_measure_once())
        round_trip = measured[-1].uncertainty * 2
        if round_trip <= _SHORT_ROUND_TRIP:
            break
    return min(measured, key=lambda offset: offset.uncertainty)


def _measure_once() -> Offset:
    """Measure the offset in one round trip.

    Assumes that the database read its clock in the middle of the round trip, so the error is at most half the round
    trip. The monotonic clock times the round trip, because the system clock may be adjusted meanwhile.
    """
    connection.ensure_connection()  # keep connecting out of the measured round trip
    ours, began = timezone.now(), monotonic()
    theirs = _database_time()
    half = timedelta(seconds=monotonic() - began) / 2
    if theirs is None:
        return Offset(timedelta(0), timedelta(0))
    return Offset(ours + half - theirs, half)


def _database_time() -> datetime | None:
    """Ask PostgreSQL for its time. Returns None with any other database."""
    if connection.vendor != "postgresql":
        return None
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        (moment,) = cursor.fetchone()
    return moment  # type: ignore[no-any-return]  # the driver's own type
