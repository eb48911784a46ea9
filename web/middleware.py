"""Middleware: security headers, the CSRF check of consumer forms, and a short path for the bot API."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

from csp.constants import NONE, SELF
from csp.utils import build_policy
from django.conf import settings
from django.core.handlers.exception import convert_exception_to_response
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import CsrfViewMiddleware
from django.urls import Resolver404, resolve
from django.utils.decorators import decorator_from_middleware
from django.utils.module_loading import import_string
from django.views.decorators.csrf import csrf_exempt

from web.answered_before import FAILED_BEFORE, RESPONSE_BEFORE
from web.errors import json_response, refuse_nul_middleware

# The admin's Content-Security-Policy: scripts, styles, forms and frames of our own origin, and none inline.
ADMIN_POLICY = {
    "default-src": [NONE],
    "style-src": [SELF],
    "script-src": [SELF],
    "img-src": [SELF, "data:"],
    "connect-src": [SELF],
    "form-action": [SELF],
    "frame-src": [SELF],
    "base-uri": [NONE],
    "frame-ancestors": [NONE],
}


# The OpenAPI document and its HTML page: public, not secret, and the same for everybody.
CACHEABLE: Final = frozenset({"/api/v1/openapi.json", "/api/docs"})
BOT_API_PREFIX: Final = "/api/"


def no_store_middleware(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Keep responses out of caches and search engines (H6, B9). This includes the redirects to https.

    Static files, and logos (`immutable`, because their URL changes with the image) are left as they are. The OpenAPI
    document and its page may be cached, if the response is a success. Pages with a form get another Referrer-Policy.
    """

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        if request.path.startswith(settings.STATIC_URL) or "immutable" in response.get("Cache-Control", ""):
            return response
        if request.path not in CACHEABLE or response.status_code not in {HTTPStatus.OK, HTTPStatus.NOT_MODIFIED}:
            response["Cache-Control"] = "no-store"
        response["X-Robots-Tag"] = "noindex, nofollow"
        # With the `no-referrer` of the settings, Chromium sends a form with `Origin: null`, and Django's CSRF check
        # answers 403 (H6). All other responses keep `no-referrer`, because our URLs contain link tokens, codes and
        # states.
        if _has_form(response):
            response["Referrer-Policy"] = "same-origin"
        return response

    return middleware


def head_middleware(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Answer HEAD like GET without the body (RFC 9110 section 9.3.2). gunicorn warns of each HEAD with a body."""

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
    """Set the admin's own Content-Security-Policy, unless the view has set one, before django-csp writes the header.

    The admin's error pages set only the hash of their stylesheet, and get the rest of the policy here.
    """

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        own = getattr(response, "_csp_replace", {})
        if request.path_info.startswith("/admin/") and "default-src" not in own:
            response._csp_replace = ADMIN_POLICY | own  # type: ignore[attr-defined]  # what csp_replace() sets
        return response

    return middleware


def _has_form(response: HttpResponse) -> bool:
    """Whether the response is a page with a form."""
    is_page = response.get("Content-Type", "").startswith("text/html")
    return is_page and not response.streaming and b"<form" in response.content


class _ConsumerFormMiddleware(CsrfViewMiddleware):
    """CSRF check that also accepts forms of browsers that send neither Origin nor Referer.

    Some people disable both headers, and some browsers and add-ons send `Origin: null`. The form token is still
    compared with the cookie. Another site cannot send that cookie (SameSite) or set it (`__Host-`). Django requires a
    Referer because of network attackers on plain http; those cannot set a `__Host-` cookie either.

    A request whose Origin or Referer names another origin is still refused. If both are missing, Sec-Fetch-Site (Fetch
    Metadata) decides: a page cannot forge it.
    """

    def _origin_verified(self, request: HttpRequest) -> bool:
        """Whether the Origin is ours, or is `null` and the request comes from our own page nevertheless.

        Sandboxed frames and cross-site redirects also send `Origin: null`. So `null` also needs `Sec-Fetch-Site:
        same-origin` and no Referer.
        """
        if request.META["HTTP_ORIGIN"] == "null":
            return "HTTP_REFERER" not in request.META and _sec_fetch_site(request) == "same-origin"
        return bool(super()._origin_verified(request))  # type: ignore[misc]  # django-stubs lack this method

    def _check_referer(self, request: HttpRequest) -> None:
        """Do Django's check of a request without an Origin. Raises Django's `RejectRequest`.

        It is skipped if there is no Referer either, and Sec-Fetch-Site does not name another site.
        """
        if "HTTP_REFERER" in request.META or _sec_fetch_site(request) not in {None, "same-origin"}:
            super()._check_referer(request)  # type: ignore[misc]  # django-stubs lack this method


def _sec_fetch_site(request: HttpRequest) -> str | None:
    return request.headers.get("Sec-Fetch-Site")


_check_consumer_form: Any = decorator_from_middleware(_ConsumerFormMiddleware)


def consumer_form(view: Any) -> Any:
    """Decorate a view: accept forms only from our own pages, by `_ConsumerFormMiddleware` instead of Django's check."""
    return csrf_exempt(_check_consumer_form(view))


def bot_api_middleware(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Serve /api/ before session, authentication, CSRF and message middleware run."""
    answer = _with_headers(convert_exception_to_response(refuse_nul_middleware(_bot_api_response)))

    def middleware(request: HttpRequest) -> HttpResponse:
        return answer(request) if request.path_info.startswith(BOT_API_PREFIX) else get_response(request)

    return middleware


def headers_of_bot_answers(environ: dict[str, Any]) -> dict[str, str]:
    """Return the headers that an answer to a bot gets on its way out. An empty one is sent through the middleware.

    `environ` is that of a request that the middleware does not refuse.
    """
    return _headers_behind("web.middleware.bot_api_middleware", _with_headers(lambda _: json_response({})), environ)


def headers_of_redirects(environ: dict[str, Any]) -> dict[str, str]:
    """As `headers_of_bot_answers`, for a redirect of the button."""
    return _headers_behind("web.middleware.sign_in_middleware", lambda _: HttpResponse(status=303), environ)


def _headers_behind(middleware: str, answer: Any, environ: dict[str, Any]) -> dict[str, str]:
    """Send an answer through what is in front of this middleware."""
    for name in reversed(settings.MIDDLEWARE[: settings.MIDDLEWARE.index(middleware)]):
        answer = import_string(name)(answer)
    return dict(answer(WSGIRequest(dict(environ))).items())


def _with_headers(answer: Any) -> Callable[[HttpRequest], HttpResponse]:
    policy = build_policy()

    def complete(request: HttpRequest) -> HttpResponse:
        response: HttpResponse = answer(request)
        response.headers.setdefault("Content-Security-Policy", policy)
        # A 304 already states the length of the full response (RFC 9110 section 8.6).
        response.headers.setdefault("Content-Length", str(len(response.content)))
        return response

    return complete


def sign_in_middleware(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Serve the button (`POST /c/...`) and the callback before session, authentication and message middleware run.

    Neither knows an admin. Only views that Django's own CSRF check leaves alone are served here: they check the form
    themselves (`consumer_form`), or have none.
    """
    answer: Any = convert_exception_to_response(_response_of_view)

    def middleware(request: HttpRequest) -> HttpResponse:
        is_button = request.method == "POST" and request.path_info.startswith("/c/")
        if not (is_button or request.path_info.startswith("/callback/")) or not _is_exempt(request):
            return get_response(request)
        response: HttpResponse = answer(request)
        response.headers.setdefault("Content-Length", str(len(response.content)))
        return response

    return middleware


def _is_exempt(request: HttpRequest) -> bool:
    """Find the view, and tell whether Django's CSRF check leaves it alone."""
    try:
        match = request.resolver_match = resolve(request.path_info)
    except Resolver404:
        return False
    return getattr(match.func, "csrf_exempt", False)


def _response_of_view(request: HttpRequest) -> HttpResponse:
    """Call the view that was found, unless that was done before Django's handler.

    Raises `DisallowedHost`, which Django turns into a response, and what the view has raised before.
    """
    if (error := request.META.pop(FAILED_BEFORE, None)) is not None:
        raise error
    if (answered := request.META.pop(RESPONSE_BEFORE, None)) is not None:
        found: HttpResponse = answered
        return found
    request.get_host()
    match: Any = request.resolver_match
    response: HttpResponse = match.func(request, *match.args, **match.kwargs)
    return response


def _bot_api_response(request: HttpRequest) -> HttpResponse:
    """Call the view of the URL. Raises `Http404` and `DisallowedHost`, which Django turns into responses."""
    request.get_host()  # nothing else here validates `Host`; a foreign one gives a 400 (B16)
    match = request.resolver_match = resolve(request.path_info)
    response: HttpResponse = match.func(request, *match.args, **match.kwargs)
    return response
