"""Know whether this process is shutting down, so that long waits end early, and run its cleanup callbacks."""

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class _Process:
    is_stopping: Callable[[], bool]
    last_acts: list[Callable[[], object]] = field(default_factory=list)


_process = _Process(lambda: False)


def ask_with(is_stopping: Callable[[], bool]) -> None:
    """Register the function that knows whether the process is shutting down. The server provides it."""
    _process.is_stopping = is_stopping


def is_stopping() -> bool:
    """Whether this process finishes its open requests and accepts no new ones."""
    return _process.is_stopping()


def before_the_end(act: Callable[[], object]) -> None:
    """Register a cleanup callback. It does not run if the process is killed."""
    _process.last_acts.append(act)


def end() -> None:
    """Run the cleanup callbacks. The server calls it."""
    for act in _process.last_acts:
        act()
