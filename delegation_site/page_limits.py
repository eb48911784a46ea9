"""Limits of the consumer's pages and of the callback (G8)."""

from collections.abc import Callable
from functools import wraps

from django.http import HttpRequest, HttpResponse

from delegation_site import rate_limits
from delegation_site.client_address import client_address
from delegation_site.errors import too_many_requests

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
