"""A Redis for one test, on a Unix socket in the test's folder. It uses no port and stores nothing on disk."""

import socketserver
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import redis


@contextmanager
def running(executable: Path, folder: Path, *options: str) -> Iterator[str]:
    """Start a Redis and yield its address in the form of `REDIS_URL`. `options` are for its command line."""
    path = folder / "redis.sock"
    command = [str(executable), "--port", "0", "--unixsocket", str(path), "--save", "", "--dir", str(folder), *options]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        _wait_for(path)
        yield f"unix://{path}"
    finally:
        server.terminate()
        server.wait(timeout=60)


@contextmanager
def saying(answer: bytes) -> Iterator[str]:
    """Listen as a server that is not Redis: it sends the same answer to every request, without delay."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while self.request.recv(65_536):
                self.request.sendall(answer)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False

    with Server(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"redis://127.0.0.1:{server.server_address[1]}/0"
        finally:
            server.shutdown()


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            with redis.Redis(unix_socket_path=str(path)) as client:
                client.ping()
        except (redis.AuthenticationError, redis.ResponseError):
            return  # it answers
        except redis.ConnectionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return
