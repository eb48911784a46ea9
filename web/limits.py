"""Limits of the consumer's pages and of the callback (G8), and the client address that they count."""

from collections.abc import Callable
from functools import wraps
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

from django.conf import settings
from django.http import HttpRequest, HttpResponse

from infrastructure import rate_limits
from web.errors import too_many_requests

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


_View = Callable[..., HttpResponse]


def limited(view: _View) -> _View:
    """Count a page of this address and, where there is one, of this link; over a limit, the page that says to wait.

    The address comes first: whoever makes up links is stopped before each of them is counted. The limit stands before
    the view, so a callback that is refused has used nothing up and works when the browser loads it again.
    """
    return _counted(view, of_link=True)


def limited_by_address(view: _View) -> _View:
    """Count a page of this address alone: whoever else has the link must not keep its reader from ending access."""
    return _counted(view, of_link=False)


def _counted(view: _View, *, of_link: bool) -> _View:
    @wraps(view)
    def wrapper(request: HttpRequest, **path: str) -> HttpResponse:
        counted = [(rate_limits.PAGES_PER_ADDRESS, client_address(request))]
        link = path.get("link_token") or path.get("receipt_token")
        if link and of_link:
            counted.append((rate_limits.PAGES_PER_LINK, link))
        try:
            rate_limits.count_each(*counted)
        except rate_limits.RateLimited as limit:
            return too_many_requests(request, limit.retry_after)
        return view(request, **path)

    return wrapper
