"""Servers for the tests of the protocol code: a key server, a hostile endpoint, and a fake resolver."""

import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pytest_django import Settings

from oauth_client import keys, transport
from tests.brands.id_tokens import KeyServer
from tests.hostile_token_endpoint import HostileTokenEndpoint, running
from tests.tls import Authority


@pytest.fixture
def key_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[KeyServer]:
    server = KeyServer()
    monkeypatch.setattr(transport, "adapter_for", lambda _url: server)
    keys.forget_all()
    yield server
    keys.forget_all()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """A function that advances the key sets' clock by some seconds."""
    passed = [0.0]
    real = time.monotonic
    monkeypatch.setattr(keys, "monotonic", lambda: real() + passed[0])

    def let_pass(seconds: float) -> None:
        passed[0] += seconds

    return let_pass


@pytest.fixture
def endpoint(tls_authority: Authority, settings: Settings) -> Iterator[HostileTokenEndpoint]:
    """A hostile endpoint whose certificate authority is trusted."""
    settings.OUTBOUND_CA_FILE = str(tls_authority.ca_file)
    settings.ALLOW_LOCAL_ENDPOINTS = True
    with running(tls_authority.issue()) as server:
        yield server


@pytest.fixture
def look_ups(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """A function that sets what names resolve to, one answer after the other, and records the look-ups."""

    def resolve_to(*answers: list[str]) -> list[str]:
        asked: list[str] = []
        left = list(answers)
        real = socket.getaddrinfo

        def resolve(host: str, port: int, *arguments: Any, **options: Any) -> Any:
            if host.replace(".", "").isdigit() or ":" in host:
                return real(host, port, *arguments, **options)
            asked.append(host)
            addresses = left.pop(0) if len(left) > 1 else left[0]
            return [real(address, port, *arguments, **options)[0] for address in addresses]

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        return asked

    return resolve_to
