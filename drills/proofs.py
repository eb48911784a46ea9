"""What proves that a fault took hold: a process is gone, a connection is refused, a statement fails."""

import time
from collections.abc import Callable
from typing import Any

import psutil
import psycopg2


def is_gone(pid: int, seconds: float = 10) -> bool:
    """Whether a process does not run any more, or ends within some seconds. One that is dead and unread is gone."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.05)
    return False


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
