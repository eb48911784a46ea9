"""Know whether this process is shutting down, so that long waits end early, and run its cleanup callbacks."""

import atexit
import multiprocessing
import multiprocessing.util
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


def run_cleanup_at_exit() -> None:
    """Run the cleanup functions when this process, or one forked from it, ends otherwise than by a kill.

    So the WSGI server need not know of them. They may run twice: the second time they find nothing to do.
    """
    atexit.register(_run_cleanup)
    if multiprocessing.parent_process() is not None:
        # A worker that `multiprocessing` started ends without `atexit`, and runs these functions only.
        multiprocessing.util.Finalize(None, _run_cleanup, exitpriority=0)


def _run_cleanup() -> None:
    for cleanup in _process.cleanup:
        cleanup()
