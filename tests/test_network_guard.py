"""The suite cannot talk to another machine, not even through code that hides errors."""

import contextlib
import socket

import pytest

from tests import network_guard


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Install a second guard inside the suite's own and return what it refused."""
    noted: list[str] = []
    network_guard.install(monkeypatch, noted)
    return noted


@pytest.mark.parametrize("address", ["192.0.2.1", "10.0.0.1", "2001:db8::1"])
def test_a_connection_to_another_machine_is_refused(refused: list[str], address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as client, pytest.raises(network_guard.ReachedOut):
        client.connect((address, 443))
    assert refused == [f"a connection to {address}"]


def test_code_that_swallows_exceptions_does_not_hide_it(refused: list[str]) -> None:
    with pytest.raises(network_guard.ReachedOut), contextlib.suppress(Exception):
        socket.create_connection(("login.acme.example", 443))
    assert refused == ["a look-up of login.acme.example"]


def test_loopback_is_open(refused: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        assert refused == []
