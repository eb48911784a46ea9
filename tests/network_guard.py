"""Refuse connections and name look-ups beyond loopback, in this process."""

import ipaddress
import socket
from typing import Any

import pytest


class ReachedOut(BaseException):
    """Not an `Exception`, so that the code under test does not catch it."""


def is_local(host: object) -> bool:
    """Whether `host`, a name or an address, can only be this machine."""
    if host is None or host in {"", b"", "localhost", b"localhost"}:
        return True
    text = host.decode() if isinstance(host, bytes) else str(host)
    try:
        return ipaddress.ip_address(text.split("%")[0]).is_loopback
    except ValueError:
        return text.endswith(".localhost")


def install(monkeypatch: pytest.MonkeyPatch, refused: list[str]) -> None:
    """Guard `socket` until the test ends. Refused hosts are appended to `refused`."""

    def refuse(what: str) -> None:
        refused.append(what)
        raise ReachedOut(what)

    def guard_connection(method: Any) -> Any:
        def guarded(self: socket.socket, address: Any) -> Any:
            if self.family in {socket.AF_INET, socket.AF_INET6} and not is_local(address[0]):
                refuse(f"a connection to {address[0]}")
            return method(self, address)

        return guarded

    def guarded_look_up(host: Any, *arguments: Any, **options: Any) -> Any:
        if not is_local(host) and not _is_address(host):
            refuse(f"a look-up of {host}")
        return look_up(host, *arguments, **options)

    look_up = socket.getaddrinfo
    monkeypatch.setattr(socket.socket, "connect", guard_connection(socket.socket.connect))
    monkeypatch.setattr(socket.socket, "connect_ex", guard_connection(socket.socket.connect_ex))
    monkeypatch.setattr(socket, "getaddrinfo", guarded_look_up)


def _is_address(host: object) -> bool:
    """An address needs no look-up. The guard of connections decides about it."""
    try:
        ipaddress.ip_address(str(host))
    except ValueError:
        return False
    return True
