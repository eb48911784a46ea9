"""Which addresses an outbound call may connect to, and in which order (N2, N3)."""

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from itertools import zip_longest
from typing import Final

from requests_hardened.ip_filter import filter_host  # type: ignore[import-untyped]  # the package has no types

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


@lru_cache(maxsize=256)
def all_allowed(addresses: tuple[str, ...], *, allow_loopback: bool) -> tuple[str, ...]:
    """Return a resolver's answer in the order of the attempts; empty if one of the addresses is not public (N2, N3).

    The library's list is asked about the first one, too, and raises its `InvalidIPAddress`. Numbers alone decide, so
    an answer that was judged once is kept.
    """
    found = [ip_address(address) for address in addresses]
    if not found or not all(is_public(address) or (allow_loopback and address.is_loopback) for address in found):
        return ()
    filter_host(addresses[0], 443, allow_loopback=allow_loopback)
    return alternating_families(found)
