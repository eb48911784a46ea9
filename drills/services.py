"""Processes of a drill, started, killed and restarted as systemd does it."""

import select
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import psutil
import requests

from bench.processes import ROOT, base_environment, stop

# What systemd does: the socket is file descriptor 3, and LISTEN_PID names the process that it is meant for.
AS_SYSTEMD: Final = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ |= {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}
os.execv(sys.argv[2], sys.argv[2:])
"""
# `RestartSec` and `TimeoutStopSec` of the units.
RESTART_SECONDS: Final = 2.0
STOP_SECONDS: Final = 40
# On a busy machine Python alone takes half a minute to start.
START_SECONDS: Final = 90
# As little as Linux allows, so that a pipe that nobody reads is full at once.
PIPE_BYTES: Final = 4096


@dataclass
class Service:
    """A process in a session of its own, whose output goes to a file that every start appends to."""

    name: str
    command: list[str]
    environment: dict[str, str]
    folder: Path
    process: "subprocess.Popen[bytes] | None" = field(default=None, init=False)

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def pid(self) -> int:
        """The first process. Raises `RuntimeError` if it was not started."""
        if self.process is None:
            raise RuntimeError(f"{self.name} does not run")
        return self.process.pid

    def start(self) -> None:
        """Start it, without waiting."""
        with self.log.open("ab") as printed:
            self.process = self._open(self.command, printed)

    def _open(self, command: list[str], printed: "IO[bytes] | int", **options: Any) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=base_environment() | self.environment,
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **options,
        )

    def terminate(self) -> None:
        """SIGTERM to the first process, as with `KillMode=mixed`; the rest is killed after `STOP_SECONDS`."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=STOP_SECONDS)
        finally:
            self.end()

    def restart(self) -> None:
        """Stop it in order and start it again at once, as `systemctl restart` does."""
        self.terminate()
        self.start()

    def kill(self) -> None:
        """SIGKILL to the first process, and a start after the time that systemd waits."""
        process = psutil.Process(self.pid)
        for one in (process, *process.children(recursive=True)):
            one.kill()
        self.end()
        time.sleep(RESTART_SECONDS)
        self.start()

    def kill_child(self) -> int:
        """SIGKILL to one of its children, whose number is returned: gunicorn starts another by itself."""
        child = psutil.Process(self.pid).children()[0]
        child.kill()
        return int(child.pid)

    def end(self) -> None:
        """End the whole group of processes, whatever it takes."""
        if self.process is not None:
            stop(self.process)
            self.process = None


@dataclass
class WebGroup(Service):
    """A group of web processes at a port of its own. If `holds_socket`, its socket outlives the processes."""

    port: int = 0
    holds_socket: bool = True
    reader: "subprocess.Popen[bytes] | None" = None

    def __post_init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", self.port), backlog=4096) if self.holds_socket else None

    def start(self) -> None:
        """Start the group. With a reader, its output goes through a pipe; the reader writes the file."""
        command, passed = self.command, list[int]()
        if self._listening is not None:
            passed = [self._listening.fileno()]
            command = [sys.executable, "-c", AS_SYSTEMD, str(passed[0]), *command]
        with self.log.open("ab") as printed:
            target: IO[bytes] | int = printed
            if self.reader is not None and self.reader.stdin is not None:
                target = self.reader.stdin.fileno()
            self.process = self._open(command, target, pass_fds=passed)

    def wait_until_ready(self, host: str) -> None:
        """Wait until it is ready. Raises `RuntimeError` with the end of its log if it is not in time."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            try:
                ready = f"http://127.0.0.1:{self.port}/health/ready"
                if requests.get(ready, headers={"Host": host}, timeout=30).ok:
                    return
            except requests.RequestException:
                pass  # it does not listen yet
            time.sleep(0.2)
        raise RuntimeError(f"{self.name} is not ready:\n{self.log.read_text(errors='replace')[-3000:]}")

    def signal_reader(self, number: int) -> None:
        """Send a signal to what reads the output. Raises `RuntimeError` if nothing does."""
        if self.reader is None:
            raise RuntimeError(f"{self.name} writes its log itself")
        self.reader.send_signal(number)

    def is_pipe_full(self) -> bool:
        """Whether a write to the reader's pipe would block. Raises `RuntimeError` if nothing reads the output."""
        if self.reader is None or self.reader.stdin is None:
            raise RuntimeError(f"{self.name} writes its log itself")
        return not select.select([], [self.reader.stdin], [], 0)[1]

    def close(self) -> None:
        """Close the socket, and end the reader."""
        if self.reader is not None:
            self.reader.kill()
            self.reader.wait()
            if self.reader.stdin is not None:
                self.reader.stdin.close()
        if self._listening is not None:
            self._listening.close()
