"""Which addresses an outbound call may connect to, and in which order (N2, N3).

Public addresses at port 443, and those of the private networks that the operator has allowed to the brand that is
called (N14). `allowing` sets these networks for a block of code, in its thread. Outside such a block there are none.
"""

import errno
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from itertools import zip_longest
from typing import Final

from django.conf import settings
from django.core.exceptions import ValidationError
from requests_hardened.ip_filter import filter_host  # type: ignore[import-untyped]  # the package has no types

HTTPS_PORT: Final = 443
MAX_PORTS: Final = 10
_HIGHEST_PORT: Final = 65_535

# Our own list, because `is_global` counts several of these as public (N3). For IPv6 only 2000::/3 is assigned.
_IPV4_NOT_PUBLIC: Final = (
    ip_network("0.0.0.0/8"),
    ip_network("10.0.0.0/8"),
    ip_network("100.64.0.0/10"),  # carrier-grade NAT; clouds put their own services there
    ip_network("127.0.0.0/8"),
    ip_network("169.254.0.0/16"),  # link-local; 169.254.169.254 hands out a cloud machine's credentials
    ip_network("172.16.0.0/12"),
    ip_network("192.0.0.0/24"),
    ip_network("192.0.2.0/24"),
    ip_network("192.88.99.0/24"),  # 6to4 relays
    ip_network("192.168.0.0/16"),
    ip_network("198.18.0.0/15"),
    ip_network("198.51.100.0/24"),
    ip_network("203.0.113.0/24"),
    ip_network("224.0.0.0/4"),  # multicast
    ip_network("240.0.0.0/4"),
)
_IPV6_UNICAST: Final = ip_network("2000::/3")
_IPV6_NOT_PUBLIC: Final = (
    ip_network("2001::/23"),  # protocol assignments, Teredo and ORCHID among them
    ip_network("2001:db8::/32"),
    ip_network("2002::/16"),  # 6to4: 2002:7f00:1:: holds 127.0.0.1
    ip_network("3fff::/20"),
)


# Which networks can be allowed to a brand. Loopback, link-local, multicast, unspecified and mapped addresses
# (::ffff:10.0.0.1) are in none of them.
_PRIVATE: Final = (
    ip_network("10.0.0.0/8"),  # RFC 1918
    ip_network("172.16.0.0/12"),
    ip_network("192.168.0.0/16"),
    ip_network("100.64.0.0/10"),  # RFC 6598
    ip_network("fd00::/8"),  # RFC 4193
)
# Addresses in these at which clouds hand out a machine's credentials, or answer for their own services.
_OF_CLOUDS: Final = (
    ip_network("100.100.100.0/24"),  # Alibaba Cloud; Tailscale's own services
    ip_network("fd00:c1::/32"),  # Oracle Cloud
    ip_network("fd00:ec2::/32"),  # AWS: fd00:ec2::254
    ip_network("fd00:42::/32"),  # Scaleway
    ip_network("fd20:ce::/32"),  # Google Cloud
)
# RFC 4193 section 3.1: the network of one site. A wider one can only be a mistake.
_WIDEST_IPV6: Final = 48

logger = logging.getLogger("consumer_delegation.outbound")


@dataclass(frozen=True, slots=True)
class PrivateNetwork:
    """A network inside which a brand may be called, and at which ports. `private_network` makes it."""

    network: IPv4Network | IPv6Network
    ports: frozenset[int]

    def covers(self, address: IPv4Address | IPv6Address, port: int) -> bool:
        return port in self.ports and address in self.network


_allowed: ContextVar[tuple[PrivateNetwork, ...]] = ContextVar("private_networks", default=())
# The last known addresses of our own services, by host.
_own_addresses: Final[dict[str, frozenset[IPv4Address | IPv6Address]]] = {}


@contextmanager
def allowing(networks: tuple[PrivateNetwork, ...]) -> Iterator[None]:
    """Allow calls into these networks, and no others, in the block. A thread that it starts does not inherit them."""
    before = _allowed.set(networks)
    try:
        yield
    finally:
        _allowed.reset(before)


def allowed_networks() -> tuple[PrivateNetwork, ...]:
    """Return the private networks of this context."""
    return _allowed.get()


def callable_ports() -> frozenset[int]:
    """Return the ports that a URL may name in this context. The addresses are judged with the port, at each call."""
    return frozenset({HTTPS_PORT}).union(*(network.ports for network in _allowed.get()))


def private_network(text: str, ports: frozenset[int]) -> PrivateNetwork:
    """Read a network such as 10.20.0.0/16, or an address. Raises `ValidationError` if it cannot be allowed (N14)."""
    try:
        network = ip_network(text)
    except ValueError:
        raise ValidationError(_no_network(text), "no_network") from None
    if "%" in text:  # the zone of a link-local address
        raise ValidationError("Write the network without a zone (%).", "no_network")
    if not any(_is_within(network, private) for private in _PRIVATE):
        message = f"{network} is not inside a private network: {', '.join(map(str, _PRIVATE))}."
        raise ValidationError(message, "not_private")
    if found := [str(never) for never in _OF_CLOUDS if never.overlaps(network)]:
        message = f"{network} contains addresses that are never called ({', '.join(found)}). Name smaller networks."
        raise ValidationError(message, "never_called")
    if isinstance(network, IPv6Network) and network.prefixlen < _WIDEST_IPV6:
        raise ValidationError(f"{network} is too wide. Name networks of /{_WIDEST_IPV6} or smaller.", "too_wide")
    if not ports or len(ports) > MAX_PORTS or not all(_is_port(port) for port in ports):
        message = f"Name 1 to {MAX_PORTS} ports from 1 to {_HIGHEST_PORT}."
        raise ValidationError(message, "invalid_ports")
    return PrivateNetwork(network, ports)


def _no_network(text: str) -> str:
    try:
        return f"{text} has digits behind its prefix. Do you mean {ip_network(text, strict=False)}?"
    except ValueError:
        return f"{text} is not a network, such as 10.20.0.0/16 or fd12:3456:789a::/48."


def _is_within(network: IPv4Network | IPv6Network, other: IPv4Network | IPv6Network) -> bool:
    return network.version == other.version and network.subnet_of(other)  # type: ignore[arg-type]  # of one version


def _is_port(port: object) -> bool:
    return isinstance(port, int) and not isinstance(port, bool) and 1 <= port <= _HIGHEST_PORT


def may_be_called(address: IPv4Address | IPv6Address, port: int) -> bool:
    """Whether a call of this context may connect there: judged anew for each call, also on a kept connection."""
    if is_public(address):
        return port == HTTPS_PORT
    return any(network.covers(address, port) for network in _allowed.get()) and not is_our_own(address)


def is_private(address: str) -> bool:
    """Whether this is an address of the kind that can be allowed to a brand."""
    return any(ip_address(address) in private for private in _PRIVATE)


def is_our_own(address: IPv4Address | IPv6Address) -> bool:
    """Whether one of our own services may listen there: on this machine, or at a host of `OWN_HOSTS` (N14)."""
    return _is_of_this_machine(address) or any(_may_be_at(address, host) for host in settings.OWN_HOSTS)


def _is_of_this_machine(address: IPv4Address | IPv6Address) -> bool:
    """Ask the kernel, which knows all interfaces: only an own address can be bound to. Nothing is sent."""
    family = socket.AF_INET if isinstance(address, IPv4Address) else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(address), 0))
        except OSError as error:
            return error.errno != errno.EADDRNOTAVAIL
    return True


def _may_be_at(address: IPv4Address | IPv6Address, host: str) -> bool:
    """Resolve the host again, as it may have moved. While that fails, its last known addresses count.

    If none is known, each address may be its own.
    """
    try:
        answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        _own_addresses[host] = frozenset(ip_address(answer[4][0]) for answer in answers)
    except OSError:
        logger.warning("a host of our own cannot be resolved", extra={"host": host})
    return address in _own_addresses.get(host, {address})


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address is on the public internet and cannot lead back to an internal network (N3)."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _IPV4_NOT_PUBLIC)
    return address in _IPV6_UNICAST and not any(address in network for network in _IPV6_NOT_PUBLIC)


def alternating_families(addresses: list[IPv4Address | IPv6Address]) -> tuple[str, ...]:
    """Remove duplicates and alternate IPv6 and IPv4, so that a broken address family costs one attempt (RFC 8305)."""
    first = [address for address in addresses if address.version == addresses[0].version]
    second = [address for address in addresses if address.version != addresses[0].version]
    by_turns = [address for pair in zip_longest(first, second) for address in pair if address is not None]
    return tuple(dict.fromkeys(map(str, by_turns)))


def callable_addresses(addresses: tuple[str, ...], port: int, *, allow_loopback: bool) -> tuple[str, ...]:
    """Return a resolver's answer in the order of the attempts; empty if one of the addresses may not be called.

    The library's list is asked about the first one, too, unless it is private and allowed (N14). It raises
    `InvalidIPAddress`.
    """
    if not _allowed.get():
        return _public_addresses(addresses, port, allow_loopback=allow_loopback)
    found = [ip_address(address) for address in addresses]
    if not found or not all((allow_loopback and one.is_loopback) or may_be_called(one, port) for one in found):
        return ()
    if not is_private(addresses[0]):
        filter_host(addresses[0], port, allow_loopback=allow_loopback)
    return alternating_families(found)


@lru_cache(maxsize=256)
def _public_addresses(addresses: tuple[str, ...], port: int, *, allow_loopback: bool) -> tuple[str, ...]:
    """As `callable_addresses`, where no private network is allowed. Numbers alone decide, so a judgement is kept."""
    found = [ip_address(address) for address in addresses]
    if not found or not all(
        (is_public(one) and port == HTTPS_PORT) or (allow_loopback and one.is_loopback) for one in found
    ):
        return ()
    filter_host(addresses[0], port, allow_loopback=allow_loopback)
    return alternating_families(found)
