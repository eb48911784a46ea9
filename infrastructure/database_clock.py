"""How far this machine's clock is from the database's, and what time it is there.

What one process writes, another one judges by its own clock, so they need one clock in common; the database's is the
one that all of them reach. A worker whose clock was an hour ahead ended every live token: what ends or erases rows by
the clock asks here first (K6), and does nothing where the two clocks are too far apart.

On SQLite there is nothing to compare: database and process are on one machine.
"""

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic
from typing import Final

from django.db import connection
from django.utils import timezone

CLOCK_TOLERANCE: Final = timedelta(seconds=5)
# A busy database may take its time once; a short round trip says more.
_MOST_TRIES: Final = 3
_SHORT_ENOUGH: Final = timedelta(seconds=1)

logger = logging.getLogger("consumer_delegation.clock")


class ClockDiffers(Exception):
    """This machine's clock and the database's are further apart than may be; the message says how far, in seconds."""


@dataclass(frozen=True)
class Offset:
    """How far our clock is ahead of the database's (negative: behind), give or take `uncertainty`."""

    ahead: timedelta
    uncertainty: timedelta

    @property
    def is_tolerable(self) -> bool:
        """Tell whether the clocks are close to each other for certain."""
        return abs(self.ahead) + self.uncertainty <= CLOCK_TOLERANCE

    def __str__(self) -> str:
        direction = "ahead of" if self.ahead > timedelta(0) else "behind"
        apart, uncertainty = abs(self.ahead).total_seconds(), self.uncertainty.total_seconds()
        return f"this machine's clock is {apart:,.1f} s {direction} the database's (give or take {uncertainty:.1f} s)"


@dataclass
class _Process:
    """What this process has measured last."""

    ahead: timedelta = timedelta(0)


_process = _Process()


def measure() -> Offset:
    """Ask the database for its time, and remember the offset for `now`. Raises Django's database errors."""
    offset = _best_of([])
    _process.ahead = offset.ahead
    return offset


def now() -> datetime:
    """Return the database's time, as far as it is known: by our clock and the offset that was measured last."""
    return timezone.now() - _process.ahead


def checked_now() -> datetime:
    """Return the database's time for what ends or erases rows by it.

    Raises `ClockDiffers` where our clock is more than five seconds off, or cannot be said not to be.
    """
    offset = measure()
    if not offset.is_tolerable:
        raise ClockDiffers(str(offset))
    return now()


def report_wrong_clock() -> None:
    """Log an error where the clock of a web process is off; readiness asks at the start and each minute.

    It is said and not enforced. Where the database's own clock has jumped, every web process would refuse at once,
    though nothing but the sweep is in danger; and a status has to be computed without a round trip.
    """
    offset = measure()
    if not offset.is_tolerable:
        logger.error("the clock is wrong: what expires is judged by it", extra={"offset": str(offset)})


def _best_of(measured: list[Offset]) -> Offset:
    """Measure up to three times; return what the shortest round trip found."""
    while len(measured) < _MOST_TRIES:
        measured.append(_measure_once())
        if measured[-1].uncertainty * 2 <= _SHORT_ENOUGH:
            break
    return min(measured, key=lambda offset: offset.uncertainty)


def _measure_once() -> Offset:
    """The answer was written at some moment of the round trip; taken for its middle, it is off by half of it at most.

    The round trip is timed by the monotonic clock: ours may be put right meanwhile.
    """
    connection.ensure_connection()  # connecting is no part of the round trip
    ours, began = timezone.now(), monotonic()
    theirs = _database_time()
    half = timedelta(seconds=monotonic() - began) / 2
    if theirs is None:
        return Offset(timedelta(0), timedelta(0))
    return Offset(ours + half - theirs, half)


def _database_time() -> datetime | None:
    """Return the database's clock; None where it is ours."""
    if connection.vendor != "postgresql":
        return None
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        (moment,) = cursor.fetchone()
    return moment  # type: ignore[no-any-return]  # the driver's own type
