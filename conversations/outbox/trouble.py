"""What does not work for a while: one line when it begins, one when it is over, growing pauses in between."""

import logging
from datetime import timedelta
from threading import Lock
from time import monotonic
from typing import Final

from conversations.outbox.leases import pause_after

FIRST_PAUSE: Final = timedelta(milliseconds=500)
LONGEST_PAUSE: Final = timedelta(seconds=10)
_MOST_CHARACTERS: Final = 300

logger = logging.getLogger("consumer_delegation.worker")


class Trouble:
    """The failures in a row of one thing, which threads may share: what is logged when it begins and when it is over.

    The first `silent` of them are not said: a kept connection that has died works again at once. It is over where
    nothing has failed for `quiet_seconds`: of several threads, one may get through while the others do not.
    """

    def __init__(self, begins: str, ends: str, *, silent: int = 0, quiet_seconds: float = 0.0) -> None:
        self._begins, self._ends, self._silent, self._quiet_seconds = begins, ends, silent, quiet_seconds
        self._lock = Lock()
        self._failures = 0
        self._began_at = self._last_at = self._not_before = 0.0
        self._said = ""

    def met(self, error: BaseException, *, traceback: bool = False) -> None:
        """Note a failure; say so once, and with `traceback` again where it is another one."""
        with self._lock:
            self._note(monotonic())
            what = _in_one_line(error)
            if self._failures <= self._silent or (self._said and not (traceback and what != self._said)):
                return
            self._said = what
        extra = {"error": what, "error_class": type(error).__name__}
        logger.error(self._begins, extra=extra, exc_info=error if traceback else None)

    def worked(self) -> None:
        """Note that it works; say so where it was said that it does not."""
        with self._lock:
            now = monotonic()
            if not self._failures or now - self._last_at < self._quiet_seconds:
                return
            was_said, seconds = bool(self._said), round(now - self._began_at)
            self._failures, self._said, self._not_before = 0, "", 0.0
        if was_said:
            logger.info(self._ends, extra={"seconds": seconds})

    @property
    def is_met(self) -> bool:
        """Tell whether something has failed and is not over."""
        return self._failures > 0

    @property
    def pause(self) -> float:
        """Return how many seconds are left until the next try."""
        return max(0.0, self._not_before - monotonic())

    def _note(self, now: float) -> None:
        """Count a failure. Those of many threads at one moment are one: the pause after them is to be short."""
        self._last_at = now
        if self._failures and now < self._not_before:
            return
        self._began_at = self._began_at if self._failures else now
        self._failures += 1
        spoken = self._failures - self._silent
        pause = pause_after(spoken, FIRST_PAUSE, LONGEST_PAUSE).total_seconds() if spoken > 0 else 0.0
        self._not_before = now + pause


def _in_one_line(error: BaseException) -> str:
    """Return the first line of what an error says: below it, PostgreSQL quotes rows."""
    return next(iter(str(error).splitlines()), "")[:_MOST_CHARACTERS]
