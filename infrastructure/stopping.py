"""Whether this process was told to stop: what waits for something asks now and then, so as not to delay a restart."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class _Process:
    is_stopping: Callable[[], bool]


_process = _Process(lambda: False)


def ask_with(is_stopping: Callable[[], bool]) -> None:
    """Name what knows it: the server does, and nothing of ours."""
    _process.is_stopping = is_stopping


def is_stopping() -> bool:
    """Tell whether this process answers what it has begun and nothing new."""
    return _process.is_stopping()
