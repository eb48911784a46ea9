"""Middleware: headers of every answer, the CSRF check of consumers' forms, and a shorter stack for the bot API."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

from csp.constants import NONE, SELF
from csp.utils import build_policy
from django.conf import settings
from django.core.handlers.exception import convert_exception_to_response
from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import CsrfViewMiddleware
from django.urls import resolve
from django.utils.decorators import decorator_from_middleware
from django.views.decorators.csrf import csrf_exempt

from web.errors import refuse_nul_middleware

# Django's admin needs its own scripts, styles and forms; nothing inline and nothing foreign.
ADMIN_POLICY = {
    "default-src": [NONE],
    "style-src": [SELF],
    "script-src": [SELF],
    "img-src": [SELF, "data:"],
    "connect-src": [SELF],
    "form-action": [SELF],
    "base-uri": [NONE],
    "frame-ancestors": [NONE],
}


# The contract and its page: the same for everybody, asked for without a key, and nothing secret in them.
CACHEABLE: Final = frozenset({"/api/v1/openapi.json", "/api/docs"})


def no_store_middleware(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Keep pages, answers and the redirect to https out of caches and search engines (H6, B9).

    Our files may stay; a logo, whose address changes with it; and the contract where it was really answered: its errors
    are no-store, as all others.
    """

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        if request.path.startswith(settings.STATIC_URL) or "immutable" in response.get("Cache-Control", ""):
            return response
        if request.path not in CACHEABLE or response.status_code not in {HTTPStatus.OK, HTTPStatus.NOT_MODIFIED}:
            response["Cache-Control"] = "no-store"
        response["X-Robots-Tag"] = "noindex, nofollow"
        if _has_form(response):
            response["Referrer-Policy"] = "same-origin"
        return response

    return middleware


def head_middleware(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Answer HEAD with the headers of GET and no body (RFC 9110 section 9.3.2): gunicorn warns of each that has one."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        if request.method == "HEAD" and not response.streaming and response.content:
            response.headers.setdefault("Content-Length", str(len(response.content)))
            response.content = b""
        return response

    return middleware


def admin_policy_middleware(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Give the admin its own Content-Security-Policy, before django-csp writes the header."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        if request.path.startswith("/admin/"):
            response._csp_replace = ADMIN_POLICY  # type: ignore[attr-defined]  # what csp_replace() sets
        return response

    return middleware


def _has_form(response: HttpResponse) -> bool:
    """Under `no-referrer` Chromium sends a form with `Origin: null`, and Django's CSRF check answers 403 (H6).

    Every other answer has the `no-referrer` of the settings: addresses of ours carry link tokens, codes and states.
    """
    is_page = response.get("Content-Type", "").startswith("text/html")
    return is_page and not response.streaming and b"<form" in response.content


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


PREFIX: Final = "/api/"


def bot_paths_middleware(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Answer bots here, people behind."""
    answer: Any = convert_exception_to_response(refuse_nul_middleware(_answer))
    policy = build_policy()

    def middleware(request: HttpRequest) -> HttpResponse:
        if not request.path_info.startswith(PREFIX):
            return get_response(request)
        response: HttpResponse = answer(request)
        response.headers.setdefault("Content-Security-Policy", policy)
        # A 304 has said the length of the answer that it stands for (RFC 9110 section 8.6).
        response.headers.setdefault("Content-Length", str(len(response.content)))
        return response

    return middleware


def _answer(request: HttpRequest) -> HttpResponse:
    """Find the view and call it. Raises what Django makes error pages of: `Http404`, `DisallowedHost`."""
    request.get_host()  # asked by nobody else here: a `Host` that is not ours is a 400 (B16)
    match = request.resolver_match = resolve(request.path_info)
    response: HttpResponse = match.func(request, *match.args, **match.kwargs)
    return response
