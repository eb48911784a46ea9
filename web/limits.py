"""Rate limits of the consumer's pages and the callback (G8), and the client address by which they count."""

from collections.abc import Callable
from functools import wraps
from http import HTTPStatus
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

from django.conf import settings
from django.http import HttpRequest, HttpResponse

from infrastructure import rate_limits
from web.errors import too_many_requests

# One household or phone has a whole /64 network and can use a new address for each request.
_IPV6_PREFIX: Final = 64


def client_address(request: HttpRequest) -> str:
    """Return the client's address in canonical form; for IPv6, its /64 network.

    Each proxy appends the address that it saw to `X-Forwarded-For`. We take the entry at position
    `TRUSTED_PROXY_COUNT` from the right; the client can forge everything to the left of that entry (G8). If
    `TRUSTED_PROXY_COUNT` is 0, or there are fewer entries than proxies, we take the connection's address.
    """
    connected: str = request.META.get("REMOTE_ADDR", "")
    trusted: int = settings.TRUSTED_PROXY_COUNT
    entries = [entry.strip() for entry in request.headers.get("X-Forwarded-For", "").split(",")]
    if trusted < 1 or len(entries) < trusted:
        return _canonical_address(connected) or connected
    return _canonical_address(entries[-trusted]) or _canonical_address(connected) or connected


def _canonical_address(text: str) -> str | None:
    """Parse an address with or without a port. Return its canonical form, or None if it is not an address."""
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
    """Decorate a view: count requests by address and by link token, and answer 429 over a limit.

    The address is counted first, so that a client over its limit cannot create a counter for each invented link. The
    view does not run if the limit is exceeded, so a refused callback works when the browser reloads it later.
    """
    return _counted(view, of_link=True)


def limited_by_address(view: _View) -> _View:
    """Decorate a view: count requests by address, and answer 429 over the limit.

    Not by link: someone else who has the link could use up its limit, and the consumer could then not end the access.
    """
    return _counted(view, of_link=False)


def limited_look(view: _View) -> _View:
    """Decorate a view that a page asks again and again: count by address in this process, and answer a bare 429.

    Nothing is written, and the count is apart from that of pages and callbacks. Otherwise many consumers behind one
    address, whose pages wait for their chats, would use up the limit under which somebody else comes back (B25).
    """

    @wraps(view)
    def wrapper(request: HttpRequest, **path: str) -> HttpResponse:
        try:
            rate_limits.count_in_process(rate_limits.LOOKS_PER_ADDRESS, client_address(request))
        except rate_limits.RateLimited as limit:
            return HttpResponse(status=HTTPStatus.TOO_MANY_REQUESTS, headers={"Retry-After": str(limit.retry_after)})
        return view(request, **path)

    return wrapper


def _counted(view: _View, *, of_link: bool) -> _View:
    @wraps(view)
    def wrapper(request: HttpRequest, **path: str) -> HttpResponse:
        to_count = [(rate_limits.PAGES_PER_ADDRESS, client_address(request))]
        link = path.get("link_token") or path.get("receipt_token")
        if link and of_link:
            to_count.append((rate_limits.PAGES_PER_LINK, link))
        try:
            rate_limits.count_each(*to_count)
        except rate_limits.RateLimited as limit:
            return too_many_requests(request, limit.retry_after)
        return view(request, **path)

    return wrapper
