"""Stands between a client and a server, and keeps every byte of both directions."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def recording(port: int, file: Path) -> Iterator[int]:
    """Pass connections on to this port of loopback. Gives the port to use instead."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_accept, args=(listener, port, file), daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, port: int, file: Path) -> None:
    with suppress(OSError):  # the listener was closed: the test is over
        while True:
            near, _ = listener.accept()
            threading.Thread(target=_connected, args=(near, port, file), daemon=True).start()


def _connected(near: socket.socket, port: int, file: Path) -> None:
    with near, suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)) as far:
        back = threading.Thread(target=_pass_on, args=(far, near, file), daemon=True)
        back.start()
        _pass_on(near, far, file)
        back.join()


def _pass_on(source: socket.socket, target: socket.socket, file: Path) -> None:
    with suppress(OSError), file.open("ab", buffering=0) as kept:  # either side may close first
        while part := source.recv(65_536):
            kept.write(part)
            target.sendall(part)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
