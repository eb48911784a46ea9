"""The wire between this process and PostgreSQL: counts the messages that take a round trip, and can be cut."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from typing import Any, Final

import pytest
from django.db import connection

_HEADER: Final = 5
_QUERY: Final = b"Q"


class Wire:
    """Passes on what the driver and PostgreSQL send (PostgreSQL's manual, chapter 55).

    `trips` counts simple queries, each of which the driver waits for. The first one that contains `cut_at` is not
    passed on, and the connection ends; if `cut_after` is set, PostgreSQL gets it, and the driver no answer.
    """

    def __init__(self, server: str) -> None:
        self.queries: list[bytes] = []
        self.cut_at: bytes | None = None
        self.cut_after = False
        self._server = server
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        Thread(target=self._accept, daemon=True).start()

    @property
    def trips(self) -> int:
        return len(self.queries)

    def close(self) -> None:
        self._listening.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                driver, _ = self._listening.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._server)
                Thread(target=self._to_server, args=(driver, server), daemon=True).start()
                Thread(target=self._to_driver, args=(server, driver), daemon=True).start()

    def _to_server(self, driver: socket.socket, server: socket.socket) -> None:
        with suppress(OSError), driver, server, driver.makefile("rb") as sent:
            server.sendall(_start_up(sent))
            while header := sent.read(_HEADER):
                message = sent.read(int.from_bytes(header[1:], "big") - 4)
                if header.startswith(_QUERY):
                    self.queries.append(message)
                if self.cut_at is not None and self.cut_at in message:
                    self._cut(driver, server, header + message)
                    return
                server.sendall(header + message)

    def _cut(self, driver: socket.socket, server: socket.socket, message: bytes) -> None:
        self.cut_at = None
        driver.shutdown(socket.SHUT_RDWR)
        if self.cut_after:
            server.sendall(message)
        server.shutdown(socket.SHUT_WR)

    def _to_driver(self, server: socket.socket, driver: socket.socket) -> None:
        with suppress(OSError):
            while some := server.recv(65_536):
                driver.sendall(some)
            driver.shutdown(socket.SHUT_WR)


def _start_up(sent: Any) -> bytes:
    """Read the only message without a type. The driver is told not to ask for encryption first."""
    length = sent.read(4)
    return bytes(length + sent.read(int.from_bytes(length, "big") - 4))


@contextmanager
def wired(monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    """Lead this thread's connection through a wire."""
    connection.ensure_connection()
    there = connection.connection.info
    wire = Wire(f"{there.host}/.s.PGSQL.{there.port}")
    connection.close()
    options = connection.settings_dict["OPTIONS"] | {"host": "127.0.0.1", "sslmode": "disable", "gssencmode": "disable"}
    with monkeypatch.context() as patched:
        patched.setitem(connection.settings_dict, "OPTIONS", options)
        patched.setitem(connection.settings_dict, "HOST", "")
        patched.setitem(connection.settings_dict, "PORT", wire.port)
        try:
            yield wire
        finally:
            connection.close()
            wire.close()
