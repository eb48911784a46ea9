"""Outgoing requests: allowed addresses."""

import socket
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import pytest
from pytest_django import Settings

from oauth_client import addresses, transport
from tests.brands.outbound import post

NOT_PUBLIC = [
    *("0.0.0.1", "10.1.2.3", "100.64.0.1", "127.0.0.1", "127.255.255.254", "169.254.169.254", "172.31.255.255"),
    *("192.0.0.8", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.51.100.1", "203.0.113.1"),
    *("224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"),
    *("::", "::1", "::127.0.0.1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:0:8.8.8.8"),
    *("64:ff9b::127.0.0.1", "64:ff9b::8.8.8.8", "64:ff9b:1::1", "100::1", "2001::1", "2001:2::1", "2001:10::1"),
    *("2001:20::1", "2001:db8::1", "2002:7f00:1::", "3fff::1", "5f00::1", "fc00::1", "fd12:3456::1", "fe80::1"),
    *("fe80::1%2", "fec0::1", "ff02::1"),
]
PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "100.63.255.255",
    "172.32.0.1",
    "192.169.0.1",
    "223.255.255.255",
    "2606:4700::1111",
    "2a00::1",
]


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_an_address_that_leads_inside_is_not_public(address: str) -> None:
    """N3: also those that Python 3.11.7 calls global, and those that requests-hardened lets through."""
    assert not addresses.is_public(ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_an_address_of_the_internet_is_public(address: str) -> None:
    assert addresses.is_public(ip_address(address))


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_a_name_that_resolves_inside_is_not_called(
    address: str, settings: Settings, look_ups: Callable[..., list[str]]
) -> None:
    """N2, N3: whatever the name, its address decides."""
    settings.ALLOW_LOCAL_ENDPOINTS = False
    look_ups([address])

    with pytest.raises(transport.EndpointBlocked):
        post("https://login.acme.example/token")


def test_one_private_address_among_public_ones_blocks_the_name(
    settings: Settings, look_ups: Callable[..., list[str]]
) -> None:
    """N2: all addresses count, not the first; the next look-up may put another one first."""
    settings.ALLOW_LOCAL_ENDPOINTS = False
    look_ups(["8.8.8.8", "10.0.0.1"])

    with pytest.raises(transport.EndpointBlocked):
        post("https://login.acme.example/token")


def test_a_name_is_resolved_once_and_the_checked_address_is_connected_to(
    settings: Settings, look_ups: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """N2: a second look-up would be answered with loopback (DNS rebinding)."""
    settings.ALLOW_LOCAL_ENDPOINTS = False
    asked = look_ups(["8.8.8.8"], ["127.0.0.1"])
    connected: list[Any] = []

    def refuse(_socket: socket.socket, address: Any) -> None:
        connected.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket.socket, "connect", refuse)
    with pytest.raises(transport.EndpointUnreachable):
        post("https://login.acme.example/token")

    assert (asked, connected) == (["login.acme.example"], [("8.8.8.8", 443)])


@pytest.mark.parametrize(
    "url",
    [
        *("http://login.acme.example/token", "https://8.8.8.8/token", "https://login.acme.example:8443/token"),
        *("https://user:password@login.acme.example/token", "http://127.0.0.1:8001/token", "https://localhost/token"),
        *(
            "file:///etc/passwd",
            "",
            "login.acme.example",
            "https://",
            "https://[::1/",
            "https://*.acme.example/",
            "https://a b/",
        ),
    ],
)
def test_an_address_is_validated_again_before_the_call(
    url: str, settings: Settings, look_ups: Callable[..., list[str]]
) -> None:
    """N1: a row written by SQL, or before the settings changed, opens nothing."""
    settings.ALLOW_LOCAL_ENDPOINTS = False
    asked = look_ups(["8.8.8.8"])

    with pytest.raises(transport.EndpointBlocked):
        post(url)

    assert asked == []
