"""Whether this process was told to stop, and what it has to do before it ends.

What waits for something asks now and then, so as not to delay a restart.
"""

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class _Process:
    is_stopping: Callable[[], bool]
    last_acts: list[Callable[[], object]] = field(default_factory=list)


_process = _Process(lambda: False)


def ask_with(is_stopping: Callable[[], bool]) -> None:
    """Name what knows it: the server does, and nothing of ours."""
    _process.is_stopping = is_stopping


def is_stopping() -> bool:
    """Tell whether this process answers what it has begun and nothing new."""
    return _process.is_stopping()


def before_the_end(act: Callable[[], object]) -> None:
    """Have something done when this process ends; nothing is promised of a process that is killed."""
    _process.last_acts.append(act)


def end() -> None:
    """Do what was put down for the end; the server calls it."""
    for act in _process.last_acts:
        act()
