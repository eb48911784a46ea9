"""Counts that a process keeps in memory and writes to the database at most once a minute."""

from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from logging import Logger
from threading import Lock
from typing import Final, NamedTuple

from django.db import Error, transaction

_FLUSH_INTERVAL: Final = timedelta(minutes=1)
# Limits the rows for each bot key and hour, in each process, if a bot sends a new purpose with each request. Further
# purposes are counted together, as `(other)`.
_MAX_PURPOSES: Final = 50
_OTHER_PURPOSES: Final = "(other)"
_ONCE: Final[Mapping[tuple[str, ...], int]] = {(): 1}


class Counted(NamedTuple):
    """What is counted. `details` are those of the kind of count: an operation, an outcome."""

    bot_key_pk: int
    purpose: str
    hour: datetime
    details: tuple[str, ...] = ()


def hour_of(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)


class PendingCounts:
    """The counts of this process that are not yet in the database."""

    def __init__(self) -> None:
        self._lock = Lock()
        self.forget()

    def forget(self) -> None:
        self._counts: Counter[Counted] = Counter()
        self._purposes: dict[tuple[int, datetime], set[str]] = {}
        self._due_at: datetime | None = None

    def add(self, bot_key_pk: int, purpose: str, now: datetime, amounts: Mapping[tuple[str, ...], int] = _ONCE) -> bool:
        """Add an amount to the count of each of these details. Return True if the caller must write the counts now.

        It says so once: what is counted at the same moment is given in one call.
        """
        hour = hour_of(now)
        with self._lock:
            purposes = self._purposes.setdefault((bot_key_pk, hour), set())
            if len(purposes) < _MAX_PURPOSES:
                purposes.add(purpose)
            named = purpose if purpose in purposes else _OTHER_PURPOSES
            for details, amount in amounts.items():
                self._counts[Counted(bot_key_pk, named, hour, details)] += amount
            due_at = self._due_at
            # Flush at most once a minute. If the clock was set back by hours, `now` lies before the interval: then
            # flush at once, rather than wait until the old time comes again.
            if due_at is not None and due_at - _FLUSH_INTERVAL <= now < due_at:
                return False
            self._due_at = now + _FLUSH_INTERVAL
            # The first one only starts the interval.
            return due_at is not None

    def flush(self, now: datetime, store: Callable[[Counter[Counted]], None], logger: Logger, what: str) -> None:
        """Store all counts in one transaction. A database error is only logged: the counts inform people."""
        counts = self._take(now)
        if not counts:
            return
        try:
            with transaction.atomic():
                store(counts)
        except Error:
            logger.exception("%s could not be stored; another try follows in a minute", what)
            with self._lock:
                self._counts += counts

    def _take(self, now: datetime) -> Counter[Counted]:
        with self._lock:
            taken, self._counts = self._counts, Counter()
            self._purposes = {
                (bot_key_pk, hour): purposes
                for (bot_key_pk, hour), purposes in self._purposes.items()
                if hour == hour_of(now)
            }
        return taken
