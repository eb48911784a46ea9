"""Response headers that every answer carries, and the admin's own Content-Security-Policy."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from csp.constants import NONE, SELF
from django.conf import settings
from django.http import HttpRequest, HttpResponse

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
