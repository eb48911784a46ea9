"""Rate limits: fixed windows, counted exactly in a store that all processes share (G8).

The store is Redis if `REDIS_URL` is set, otherwise one database row for each subject and window, written in one
statement. Subjects are stored as keyed digests, so the store holds no address and no link token. Each subject's window
starts at a different moment, so that not all windows end together. Just before and just after a window ends, a subject
can use its full limit twice.

If Redis fails, each process counts in its own memory (`cache.py`). Limits then grow with the number of processes, and
consumers still get in. Failing closed would end every sign-in during a Redis outage; failing open would let an attacker
remove every limit by taking Redis down.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from threading import Lock
from typing import Final
from zlib import crc32

from django.conf import settings
from django.core.cache import cache
from django.db import connection, transaction

from infrastructure import metrics
from infrastructure.crypto import key_ring
from infrastructure.models import RateCounter
from infrastructure.prepared import PreparedStatement

_MOST_KEPT_IN_PROCESS: Final = 20_000
_DIGEST_BYTES: Final = 32
# A process counts this part of a limit in advance, where it counts in shares.
_SHARES: Final = 200
_UPSERT: Final = """
    INSERT INTO infrastructure_ratecounter (key, times, expires_at) VALUES {}
    ON CONFLICT (key) DO UPDATE SET times = infrastructure_ratecounter.times + excluded.times RETURNING key, times
"""
# The commit does not wait for the disk: losing a counter in a power cut is acceptable, and callers with the same key
# would otherwise wait for each other's commits.
_UPSERT_UNSYNCHRONISED: Final = """
    WITH unsynchronised AS (SELECT set_config('synchronous_commit', 'off', true))
    INSERT INTO infrastructure_ratecounter (key, times, expires_at)
    SELECT counted.key, counted.times, counted.expires_at
    FROM unsynchronised, (VALUES {}) AS counted (key, times, expires_at)
    ON CONFLICT (key) DO UPDATE SET times = infrastructure_ratecounter.times + excluded.times RETURNING key, times
"""


@dataclass(frozen=True)
class Limit:
    """At most `times` in `seconds` for each subject."""

    name: str
    times: int
    seconds: int

    def of(self, times: int | None) -> "Limit":
        """Return the limit of a subject that has one of its own; None: it has not. It counts as before."""
        return self if times is None else Limit(self.name, times, self.seconds)


# High enough that a working bot never meets them; the operator can give a key others (G12). `CALLS_PER_KEY` is counted
# in shares. `TOKEN_READS_PER_KEY` is counted in each process separately, so N processes allow N times as many.
CALLS_PER_KEY: Final = Limit("calls-per-key", 6_000, 60)
TOKEN_READS_PER_KEY: Final = Limit("token-reads-per-key", 30_000, 60)
FAILED_KEYS_PER_ADDRESS: Final = Limit("failed-keys-per-address", 30, 60)
PAGES_PER_LINK: Final = Limit("pages-per-link", 60, 60)
# High, because a mobile network puts thousands of phones behind one address.
PAGES_PER_ADDRESS: Final = Limit("pages-per-address", 600, 60)
# Of the page with the digits, which asks how things stand; counted in each process. Thirty consumers behind one address
# ask up to 600 times a minute.
LOOKS_PER_ADDRESS: Final = Limit("looks-per-address", 1_200, 60)
SIGN_INS_PER_ADDRESS: Final = Limit("sign-ins-per-address", 20, 600)
CONNECTION_TESTS_PER_ADMIN: Final = Limit("connection-tests-per-admin", 10, 600)
METADATA_LOOKUPS_PER_ADMIN: Final = Limit("metadata-lookups-per-admin", 10, 600)
# A brand whose thirty servers share a host gets no thirty mails, and then thirty more.
HEALTH_MAILS_PER_BRAND: Final = Limit("health-mails-per-brand", 20, 24 * 60 * 60)
PASSWORD_CHANGES_PER_ADMIN: Final = Limit("password-changes-per-admin", 5, 600)


class RateLimited(Exception):
    """A limit is exceeded. `retry_after` is the whole number of seconds until the window ends."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"retry after {retry_after} s")
        self.retry_after = retry_after


@dataclass(frozen=True)
class _Window:
    """A subject's current window: its key in the store, the second in which it ends, and the seconds left (not 0)."""

    key: str
    ends_at: int
    seconds_left: int

    @classmethod
    def of(cls, limit: Limit, subject: str) -> "_Window":
        digest = key_ring().digest("rate-limit", limit.name, subject)[-_DIGEST_BYTES:]
        return cls._current(limit, digest.hex(), int.from_bytes(digest[:4], "big"))

    @classmethod
    def of_process(cls, limit: Limit, subject: str) -> "_Window":
        """Return the current window for a counter in this process. The key is not a digest."""
        return cls._current(limit, f"{limit.name}:{subject}", crc32(subject.encode()))

    @classmethod
    def _current(cls, limit: Limit, prefix: str, offset: int) -> "_Window":
        now = int(time.time())
        number, elapsed = divmod(now + offset, limit.seconds)
        seconds_left = limit.seconds - elapsed
        return cls(f"{prefix}:{number}", now + seconds_left, seconds_left)


_NO_WINDOW: Final = _Window("", 0, 0)


class _Shares:
    """How many more events this process may let through in the current windows, without asking the store.

    When there are too many, all are dropped, as if they were used up.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        # By subject and limit: the window, and what is left of its share.
        self._shares: dict[tuple[str, Limit], tuple[_Window, int]] = {}

    def take_one(self, limit: Limit, subject: str) -> bool:
        """Use one of the share up; False if there is none for this moment."""
        now = time.time()
        with self._lock:
            window, left = self._shares.get((subject, limit), (_NO_WINDOW, 0))
            # If the clock was set back, the share is of a later window.
            if not left or not window.ends_at - limit.seconds <= now < window.ends_at:
                return False
            self._shares[subject, limit] = window, left - 1
        return True

    def add(self, limit: Limit, subject: str, window: _Window, share: int) -> None:
        with self._lock:
            if len(self._shares) >= _MOST_KEPT_IN_PROCESS:
                self._shares.clear()
            before, left = self._shares.get((subject, limit), (_NO_WINDOW, 0))
            self._shares[subject, limit] = window, share + (left if before.key == window.key else 0)

    def forget(self) -> None:
        with self._lock:
            self._shares.clear()


class _ProcessMemory:
    """Counters in the memory of this process.

    When there are too many, all are dropped: they must not fill the memory.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._counters: dict[str, tuple[int, int]] = {}

    def add_one(self, window: _Window) -> int:
        with self._lock:
            if len(self._counters) >= _MOST_KEPT_IN_PROCESS:
                self._make_room(time.time())
            times = self._counters.get(window.key, (0, 0))[0] + 1
            self._counters[window.key] = (times, window.ends_at)
        return times

    def holds(self, window: _Window) -> bool:
        return window.key in self._counters

    def forget(self) -> None:
        with self._lock:
            self._counters.clear()

    def _make_room(self, now: float) -> None:
        self._counters = {key: counter for key, counter in self._counters.items() if counter[1] > now}
        if len(self._counters) >= _MOST_KEPT_IN_PROCESS:
            self._counters.clear()


_memory = _ProcessMemory()
_shares = _Shares()
# Windows whose limit is exceeded, used as a set.
_refused_windows = _ProcessMemory()


def count(limit: Limit, subject: str) -> None:
    """Count one event in the shared store. Raises `RateLimited` if it exceeds the limit."""
    count_each((limit, subject))


def count_each(*counted: tuple[Limit, str]) -> None:
    """Count one event for each pair, in one statement. Raises `RateLimited` for the first exceeded limit.

    Callers name the limits in the same order, so that concurrent requests for the same subjects cannot deadlock. A
    process remembers refused windows, so a flood costs one write for each process, window and subject.
    """
    windows = [_Window.of(limit, subject) for limit, subject in counted]
    for (limit, _), window in zip(counted, windows, strict=True):
        if _refused_windows.holds(window):
            raise _refused(limit, window)
    for (limit, _), window, reached in zip(counted, windows, _added(windows, 1), strict=True):
        if reached > limit.times:
            raise _exceeded(limit, window)


def count_in_shares(limit: Limit, subject: str) -> None:
    """Count one event. Few events wait for the store: one share for many is counted there at a time, in advance.

    So all processes together never let more through than the limit, and each may leave less than one share of a window
    unused. A low limit has shares of one. Raises `RateLimited`.
    """
    if _shares.take_one(limit, subject):
        return
    window, share = _Window.of(limit, subject), max(1, limit.times // _SHARES)
    if _refused_windows.holds(window):
        raise _refused(limit, window)
    (reached,) = _added([window], share)
    granted = min(share, limit.times - (reached - share))
    if granted < 1:
        raise _exceeded(limit, window)
    _shares.add(limit, subject, window, granted - 1)


def count_in_process(limit: Limit, subject: str) -> None:
    """Count one event in the memory of this process. Raises `RateLimited`.

    The subject is stored unhashed, so never pass a secret.
    """
    window = _Window.of_process(limit, subject)
    if _memory.add_one(window) > limit.times:
        raise _refused(limit, window)


def _exceeded(limit: Limit, window: _Window) -> RateLimited:
    """As `_refused`, and remember the window, so that it is not written to again."""
    _refused_windows.add_one(window)
    return _refused(limit, window)


def _refused(limit: Limit, window: _Window) -> RateLimited:
    metrics.count_limit(limit.name)
    return RateLimited(window.seconds_left)


def reset_in_process() -> None:
    """Clear the counters of this process. Tests call it before each test."""
    for memory in (_memory, _refused_windows, _shares):
        memory.forget()


def sweep(now: datetime, is_stopping: Callable[[], bool] = lambda: False, chunk: int = 1_000) -> int:
    """Delete the counters of windows that have ended. Return their number."""
    deleted = 0
    while not is_stopping():
        keys = list(RateCounter.objects.filter(expires_at__lt=now).values_list("key", flat=True)[:chunk])
        with transaction.atomic():
            deleted += RateCounter.objects.filter(key__in=keys).delete()[0]
        if len(keys) < chunk:
            break
    return deleted


def _added(windows: list[_Window], times: int) -> Iterator[int]:
    """Add so many to each window in the store, and yield the new counts."""
    if settings.REDIS_URL:
        return (_added_in_cache(window, times) for window in windows)
    return iter(_added_in_database(windows, times))


def _added_in_cache(window: _Window, times: int) -> int:
    cache.add(window.key, 0, timeout=window.seconds_left + 1)
    try:
        return int(cache.incr(window.key, times))
    except ValueError:  # the window ended, or Redis failed, between the two commands: what is counted is let through
        return times


def _added_in_database(windows: list[_Window], times: int) -> list[int]:
    adapt = connection.ops.adapt_datetimefield_value
    values: list[object] = []
    # In the given order.
    for window in windows:
        values += [window.key, times, adapt(datetime.fromtimestamp(window.ends_at + 1, UTC))]
    # In a transaction of its own, whose commit need not wait for the disk.
    outside_transaction = connection.vendor == "postgresql" and not connection.in_atomic_block
    reached = dict(_upsert(len(windows), unsynchronised=outside_transaction).rows(values))
    return [reached[window.key] for window in windows]


@lru_cache(maxsize=8)
def _upsert(windows: int, *, unsynchronised: bool) -> PreparedStatement:
    if unsynchronised:
        rows = ", ".join(["(%s, %s::integer, %s::timestamptz)"] * windows)
        return PreparedStatement(_UPSERT_UNSYNCHRONISED.format(rows))
    return PreparedStatement(_UPSERT.format(", ".join(["(%s, %s, %s)"] * windows)))
