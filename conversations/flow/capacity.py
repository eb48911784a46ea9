"""How many exchanges may run at once: a brand that hangs must not take the threads that everybody else needs.

Counted in this process. Refused before the state is spent, so that the same callback works a moment later.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Final

from django.conf import settings

MAX_EXCHANGES_PER_SERVER: Final = 4

_lock = Lock()
_running: Counter[int] = Counter()


class ServerBusy(Exception):
    """The authorization server, or all of them together, already has as many exchanges as we allow."""


@contextmanager
def exchange_slot(server_pk: int) -> Iterator[None]:
    """Hold one of the server's slots, and one of the process's, for the length of the block. Raises `ServerBusy`."""
    with _lock:
        # Half of the threads stay free for everything that does not wait for a brand.
        if _running[server_pk] >= MAX_EXCHANGES_PER_SERVER or _running.total() >= max(1, settings.THREADS // 2):
            raise ServerBusy
        _running[server_pk] += 1
    try:
        yield
    finally:
        with _lock:
            _running[server_pk] -= 1
