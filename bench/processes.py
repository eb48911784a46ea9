"""Servers as processes: each on its core, its CPU time read before and after, gone at the end."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import psutil

ROOT: Final = Path(__file__).parent.parent
# Servers under test have the one core; databases, load and everything else have the other.
SERVER_CORE: Final = 0
OTHER_CORE: Final = 1
_START_SECONDS: Final = 60


def base_environment() -> dict[str, str]:
    """Return what every process gets: nothing of the caller's settings shows through."""
    kept = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG", "TMPDIR"}}
    return kept | {"PYTHONPATH": str(ROOT)}


def can_pin() -> bool:
    """Tell whether processes can be kept on a core: Linux, and two cores that we may use."""
    return hasattr(os, "sched_setaffinity") and {SERVER_CORE, OTHER_CORE} <= os.sched_getaffinity(0)


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Let what is started in the block inherit this core."""
    if not can_pin():
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def running(
    command: Sequence[str], *, core: int, environment: dict[str, str], log: Path, cwd: Path = ROOT
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a server in a process group of its own for the length of the block; what it prints goes to `log`."""
    with log.open("ab") as printed, on_core(core):
        process = subprocess.Popen(
            list(command),
            env=base_environment() | environment,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        stop(process)


def stop(process: "subprocess.Popen[bytes]") -> None:
    """End a process group: politely, then for good."""
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal_number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=20)
            return


def wait_for_port(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait until a server listens. Raises `RuntimeError` with what it printed where it never does."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as attempt:
            if attempt.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"{process.args!r} did not start:\n{log.read_text()[-4000:]}")


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process, of all below it, and of those below it that have ended."""
    parent = psutil.Process(pid)
    ended = parent.cpu_times()
    total = float(ended.children_user + ended.children_system)
    for process in (parent, *parent.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def python(module: str, *arguments: str, environment: dict[str, str], core: int = OTHER_CORE) -> str:
    """Run one of our modules to its end; return what it printed. Raises `RuntimeError` where it failed."""
    with on_core(core):
        result = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            env=base_environment() | environment,
            capture_output=True,
            text=True,
            check=False,
        )
    if result.returncode:
        raise RuntimeError(f"{module} failed:\n{result.stderr[-4000:]}")
    return result.stdout
