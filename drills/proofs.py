"""What proves that a fault took hold: a process is gone, a connection is refused, a statement fails."""

from collections.abc import Callable
from typing import Any

import psutil
import psycopg2

from drills.stage import wait_until


def is_gone(pid: int, seconds: float = 10) -> bool:
    """Whether a process does not run any more, or ends within some seconds."""
    return wait_until(lambda: _has_ended(pid), seconds, every=0.05)


def _has_ended(pid: int) -> bool:
    """One that is dead and unread has ended, too."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def refuses(address: str) -> bool:
    """Whether a database, or its pooler, takes no connection."""
    try:
        psycopg2.connect(address, connect_timeout=5).close()
    except psycopg2.OperationalError:
        return True
    return False


def fails_with(kinds: type[Exception] | tuple[type[Exception], ...], call: Callable[[], Any]) -> bool:
    """Whether a call ends with one of these exceptions. Others are raised."""
    try:
        call()
    except kinds:
        return True
    return False
