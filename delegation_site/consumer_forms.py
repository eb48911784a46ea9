"""Whether a consumer's form was sent from our own page: Django's check, wider for browsers that hide it (B22).

Only the consumer's pages use it. The admin's forms stay with Django's middleware, which refuses both cases below.
"""

from typing import Any

from django.http import HttpRequest
from django.middleware.csrf import CsrfViewMiddleware
from django.utils.decorators import decorator_from_middleware
from django.views.decorators.csrf import csrf_exempt


class _ConsumerFormMiddleware(CsrfViewMiddleware):
    """Also takes a form whose browser does not say where it comes from, but does not say anything else either.

    Some people switch Origin and Referer off, some browsers and add-ons send `Origin: null`. The form token is compared
    all the same, with a cookie that another site can neither send along (SameSite) nor set (`__Host-`), nor a man in
    the middle of a plain connection, which is what Django asks for a Referer for. Where the browser says anything that
    is not ours, it is believed: `Sec-Fetch-Site` (Fetch Metadata) cannot be written by a page.
    """

    def _origin_verified(self, request: HttpRequest) -> bool:
        """`Origin: null` is also what a sandboxed frame or a redirect by another site sends: so it takes more proof."""
        if request.META["HTTP_ORIGIN"] == "null":
            return "HTTP_REFERER" not in request.META and _sec_fetch_site(request) == "same-origin"
        return bool(super()._origin_verified(request))  # type: ignore[misc]  # the stubs leave it out

    def _check_referer(self, request: HttpRequest) -> None:
        """Called without an Origin alone. Raises Django's `RejectRequest`."""
        if "HTTP_REFERER" in request.META or _sec_fetch_site(request) not in {None, "same-origin"}:
            super()._check_referer(request)  # type: ignore[misc]  # the stubs leave it out


def _sec_fetch_site(request: HttpRequest) -> str | None:
    return request.headers.get("Sec-Fetch-Site")


_checked: Any = decorator_from_middleware(_ConsumerFormMiddleware)


def consumer_form(view: Any) -> Any:
    """Take the view's forms from our own pages alone; the middleware of the settings leaves that check to this one."""
    return csrf_exempt(_checked(view))
