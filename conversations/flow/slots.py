"""Limit how many requests of a process wait for brands' servers at once, so that a slow one holds up nobody else's.

At most half of the threads wait: for exchanges of codes, and for calls of the brands' APIs, which get a quarter. So
calls never take all the places of sign-ins. One server or brand gets fewer places than all of its kind.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Final

from django.conf import settings

from infrastructure import metrics

_CALL: Final = "call"

_lock = Lock()
# Running requests, by their kind and whose they are.
_running: Counter[tuple[str, int]] = Counter()


class ServerBusy(Exception):
    """The server, or this process, already has as many requests running as we allow."""


@contextmanager
def slot(kind: str, owner: int, *, most_of_owner: int, most_of_kind: int) -> Iterator[None]:
    """Hold one slot of the owner, of the kind and of the process during the block. Raises `ServerBusy`."""
    key = (kind, owner)
    with _lock:
        of_kind = sum(times for (name, _), times in _running.items() if name == kind)
        # Half of the threads stay free for requests that do not wait for a brand's server.
        is_full = _running.total() >= max(1, settings.THREADS // 2)
        if is_full or _running[key] >= most_of_owner or of_kind >= most_of_kind:
            metrics.count_limit(f"{kind}-places")
            raise ServerBusy
        _running[key] += 1
    try:
        metrics.change_places(kind, 1)
        yield
    finally:
        metrics.change_places(kind, -1)
        with _lock:
            _running[key] -= 1
            if not _running[key]:
                del _running[key]


def most_calls() -> int:
    """How many calls of brands' APIs a process makes at once: a quarter of its threads, at least 1."""
    return max(1, settings.THREADS // 4)


@contextmanager
def call_slot(brand_pk: int) -> Iterator[None]:
    """Hold a slot for a call of a brand's API. A brand gets three quarters, or the only one. Raises `ServerBusy`."""
    most = most_calls()
    with slot(_CALL, brand_pk, most_of_owner=max(1, most * 3 // 4), most_of_kind=most):
        yield
