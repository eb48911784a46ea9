"""A Redis of a test's own, on a Unix socket in the test's folder: no port, nothing on disk, gone with the test."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis


@contextmanager
def running(executable: Path, folder: Path) -> Iterator[str]:
    """Start a Redis and give its address in the form of `REDIS_URL`."""
    socket = folder / "redis.sock"
    command = [str(executable), "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(folder)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        _wait_for(socket)
        yield f"unix://{socket}"
    finally:
        server.terminate()
        server.wait(timeout=20)


def _wait_for(socket: Path) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            with redis.Redis(unix_socket_path=str(socket)) as client:
                client.ping()
        except redis.ConnectionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return
