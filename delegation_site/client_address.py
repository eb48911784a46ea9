"""Whose request it is, as far as that can be known: the address that our own proxies saw, not what a client claims."""

from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

from django.conf import settings
from django.http import HttpRequest

# One household or phone has a whole /64 and can take a new address of it for every request.
_IPV6_PREFIX: Final = 64


def client_address(request: HttpRequest) -> str:
    """Return the client's address in one spelling; of IPv6 the /64 network.

    Each proxy in front appends the address it saw to `X-Forwarded-For`, so the entry of the outermost trusted one is
    counted from the right. Everything left of it was sent by the client, who can write there what they like (G8). With
    `TRUSTED_PROXY_COUNT` 0, or fewer entries than proxies, it is the address of the connection.
    """
    connected: str = request.META.get("REMOTE_ADDR", "")
    trusted: int = settings.TRUSTED_PROXY_COUNT
    entries = [entry.strip() for entry in request.headers.get("X-Forwarded-For", "").split(",")]
    if trusted < 1 or len(entries) < trusted:
        return _one_spelling(connected) or connected
    return _one_spelling(entries[-trusted]) or _one_spelling(connected) or connected


def _one_spelling(text: str) -> str | None:
    """Return an address, with or without a port, as one subject of a limit; None where it is not an address."""
    host = text[1:].partition("]")[0] if text.startswith("[") else text
    if host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        address = ip_address(host)
    except ValueError:
        return None
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ip_network((int(address), _IPV6_PREFIX), strict=False))
