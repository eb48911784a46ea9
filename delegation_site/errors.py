"""Error pages: a problem document for bots, one sentence and one thing to do for people, a reference for support."""

import logging
import sys
from collections.abc import Callable

from django.conf import settings
from django.contrib.sessions.exceptions import SessionInterrupted
from django.http import HttpRequest, HttpResponse

from delegation_site.database_errors import is_unavailable, sqlstate
from delegation_site.logs import current_request_id
from delegation_site.page import render_page
from delegation_site.problems import Problem

logger = logging.getLogger("consumer_delegation.errors")


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer what Django could not read, and what it takes for that.

    Of a session that could not be stored it says that somebody else has deleted it, whatever the database said.
    """
    cause: BaseException | None = exception
    while isinstance(exception, SessionInterrupted) and (cause := cause and cause.__context__):
        if is_unavailable(cause):
            return _unavailable(request, cause)
    return _answer(request, 400, "bad_request", "The request could not be read.")


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:  # noqa: ARG001  # Django's signature
    """Answer what is not allowed."""
    return _answer(request, 403, "forbidden", "This is not allowed.", cause="not_allowed")


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:  # noqa: ARG001  # Django's signature
    """Answer a form that was not sent from our own page (B22), or by a browser that keeps no cookies."""
    cause = "form" if settings.CSRF_COOKIE_NAME in request.COOKIES else "cookies"
    return _answer(request, 403, "form_not_ours", "The form was not sent from our own page.", cause=cause)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:  # noqa: ARG001  # Django's signature
    """Answer an address that leads nowhere."""
    return _answer(request, 404, "not_found", "There is nothing at this address.")


def too_many_requests(request: HttpRequest, retry_after: int) -> HttpResponse:
    """Answer a browser that is over a limit (G8); nothing was used up, so the same address works again later."""
    response = _answer(request, 429, "rate_limited", "Too many calls. Wait as long as Retry-After says.")
    response["Retry-After"] = str(retry_after)
    return response


def server_error(request: HttpRequest) -> HttpResponse:
    """Answer a fault of ours; the log line of the same reference says more. A database that is away comes back."""
    error = sys.exc_info()[1]
    if error is not None and is_unavailable(error):
        return _unavailable(request, error)
    return _answer(request, 500, "internal_error", "Something failed on our side. Try again.")


def _unavailable(request: HttpRequest, error: BaseException) -> HttpResponse:
    response = _answer(request, 503, "unavailable", "Not available right now. Try again.")
    response["Retry-After"] = "30"
    # One line in place of Django's, which has a traceback of a hundred: each request of an outage writes it.
    reason = {"sqlstate": sqlstate(error), "error": type(error).__name__}
    logger.error("the database is not available", extra=reason)
    response._has_been_logged = True  # type: ignore[attr-defined]  # noqa: SLF001  # as `log_response` reads it
    return response


def refuse_nul_middleware(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Answer 400 to a NUL character in a query or a cookie: no honest one has any, and PostgreSQL fails on it."""

    def middleware(request: HttpRequest) -> HttpResponse:
        query_and_cookies = request.META.get("QUERY_STRING", "") + request.META.get("HTTP_COOKIE", "")
        if "%00" in query_and_cookies or "\\000" in query_and_cookies or "\0" in query_and_cookies:
            return _answer(request, 400, "bad_request", "The request could not be read.")
        return get_response(request)

    return middleware


def _reference() -> str:
    """Return the beginning of the request's id, as somebody can read it out: enough to find it in the log."""
    return f"{current_request_id()[:5]} {current_request_id()[5:10]}".strip()


def _answer(request: HttpRequest, status: int, code: str, detail: str, **context: str) -> HttpResponse:
    if request.path.startswith("/api/"):
        return Problem(status, code, detail, request_id=current_request_id()).response()
    return render_page(request, f"errors/{status}.html", {"reference": _reference(), **context}, status=status)
