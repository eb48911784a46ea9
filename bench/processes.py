"""Run servers as processes on a chosen core, read their CPU time, and stop them."""

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
# Servers under test use one core; databases, load and everything else use the other.
SERVER_CORE: Final = 0
OTHER_CORE: Final = 1
_START_SECONDS: Final = 60
# A weight of 110, where others have 1,024: about as `CPUWeight=10` in deploy/ beside the usual 100.
_NICE: Final = 10


def base_environment(code: Path = ROOT) -> dict[str, str]:
    """Return the environment of every process, without the caller's own settings."""
    kept = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG", "TMPDIR"}}
    return kept | {"PYTHONPATH": str(code)}


def can_pin() -> bool:
    """Whether processes can be pinned to a core. That needs Linux and two usable cores."""
    return hasattr(os, "sched_setaffinity") and {SERVER_CORE, OTHER_CORE} <= os.sched_getaffinity(0)


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Pin processes that are started in the block to this core."""
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
    """Run a server in its own process group until the block ends. Its output goes to `log`."""
    with log.open("ab") as printed, on_core(core):
        process = subprocess.Popen(
            list(command),
            env=base_environment(cwd) | environment,
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


def give_way(pid: int) -> None:
    """Let a server have a tenth of a core that others want."""
    for process in (psutil.Process(pid), *psutil.Process(pid).children()):
        process.nice(_NICE)
    # Linux may compare sessions first (autogroup), and each server here is one.
    session = Path(f"/proc/{pid}/autogroup")
    if session.exists():
        session.write_text(str(_NICE))


def stop(process: "subprocess.Popen[bytes]") -> None:
    """End a process group: SIGTERM first, SIGKILL later."""
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal_number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=20)
            return


def wait_for_port(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait until a server listens. Raises `RuntimeError` with its output if it does not."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as attempt:
            if attempt.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"{process.args!r} did not start:\n{log.read_text()[-4000:]}")


def cpu_seconds(pid: int) -> float:
    """CPU seconds of a process and its descendants, including those that have ended."""
    parent = psutil.Process(pid)
    ended = parent.cpu_times()
    total = float(ended.children_user + ended.children_system)
    for process in (parent, *parent.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def python(module: str, *arguments: str, environment: dict[str, str], core: int = OTHER_CORE, code: Path = ROOT) -> str:
    """Run a module of ours, or of the build in `code`; return its output. Raises `RuntimeError` if it fails."""
    with on_core(core):
        result = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=code,
            env=base_environment(code) | environment,
            capture_output=True,
            text=True,
            check=False,
        )
    if result.returncode:
        raise RuntimeError(f"{module} failed:\n{result.stderr[-4000:]}")
    return result.stdout
