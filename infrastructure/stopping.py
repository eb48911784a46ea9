"""Know whether this process is shutting down, so that long waits end early, and run its cleanup callbacks."""

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class _Process:
    is_stopping: Callable[[], bool]
    cleanup: list[Callable[[], object]] = field(default_factory=list)


_process = _Process(lambda: False)


def set_check(is_stopping: Callable[[], bool]) -> None:
    """Set the function that tells whether the process is shutting down. Only the server knows it."""
    _process.is_stopping = is_stopping


def is_stopping() -> bool:
    """Whether this process is shutting down: it finishes its open requests and accepts no new ones."""
    return _process.is_stopping()


def on_exit(cleanup: Callable[[], object]) -> None:
    """Register a function to run when the process exits. It does not run if the process is killed."""
    _process.cleanup.append(cleanup)


def run_cleanup() -> None:
    """Run the cleanup functions. The server calls this when the process exits."""
    for cleanup in _process.cleanup:
        cleanup()
