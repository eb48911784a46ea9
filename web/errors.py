"""Errors: problem details (RFC 9457) for bots, a page with one sentence and one thing to do for people.

Error reports hold no secrets (H4). Django's report of a failed callback holds code, state and cookies in its text form,
and every local variable in its HTML form: token, client secret, verifier. No handler of ours sends one; whoever adds
one gets ours.
"""

import logging
import sys
from collections.abc import Callable, ItemsView
from typing import Any

import msgspec
from django.conf import settings
from django.contrib.sessions.exceptions import SessionInterrupted
from django.http import HttpRequest, HttpResponse
from django.views.debug import ExceptionReporter, SafeExceptionReporterFilter

from infrastructure.database_errors import is_unavailable, sqlstate
from infrastructure.logs import current_request_id
from web.pages import render_page


class Problem(Exception):
    """An error that ends an API call; `code` is stable, `detail` says what to do next, in one sentence.

    `next_operation` is the call of the contract that helps; empty where the request, the key or the configuration has
    to change first.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        next_operation: str = "",
        headers: dict[str, str] | None = None,
        **members: Any,
    ) -> None:
        super().__init__(code)
        self.status, self.code, self.detail, self.members = status, code, detail, members
        self.next_operation, self.headers = next_operation, headers or {}

    def response(self, next_call: dict[str, str] | None = None) -> HttpResponse:
        """Return the problem as `application/problem+json`; `next` is the call to make, or null where none helps."""
        document = {
            "type": f"urn:consumer-delegation:problem:{self.code}",
            "title": self.code.replace("_", " ").capitalize(),
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "next": next_call,
            **self.members,
        }
        return json_response(
            document, status=self.status, content_type="application/problem+json", headers=self.headers
        )


def rate_limited(retry_after: int, detail: str = "Too many calls. Wait as long as Retry-After says.") -> Problem:
    """Return the problem of every limit (G8); `Retry-After` is in whole seconds (RFC 9110 section 10.2.3)."""
    return Problem(429, "rate_limited", detail, headers={"Retry-After": str(retry_after)})


def json_response(
    body: Any, *, status: int = 200, content_type: str = "application/json", headers: dict[str, str] | None = None
) -> HttpResponse:
    """Encode a body as JSON; moments become RFC 3339 in UTC."""
    return HttpResponse(msgspec.json.encode(body), status=status, content_type=content_type, headers=headers)


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


class QuietReporterFilter(SafeExceptionReporterFilter):
    """Shows method and path of the request, and the lines of code; no query, cookie, header, setting or variable."""

    def get_safe_settings(self) -> dict[str, Any]:
        """Show no setting."""
        return {}

    def get_safe_request_meta(self, request: HttpRequest) -> dict[str, Any]:
        """Show no header, and no query string."""
        return {"REQUEST_METHOD": request.method, "PATH_INFO": request.path}

    def get_safe_cookies(self, request: HttpRequest) -> dict[str, Any]:  # noqa: ARG002  # Django's signature
        """Show no cookie."""
        return {}

    def get_post_parameters(self, request: HttpRequest | None) -> dict[str, Any]:  # noqa: ARG002  # Django's signature
        """Show nothing that was posted."""
        return {}

    def get_traceback_frame_variables(self, request: Any, tb_frame: Any) -> ItemsView[str, Any]:  # noqa: ARG002
        """Show no local variable."""
        return {}.items()


class QuietExceptionReporter(ExceptionReporter):
    """Leaves out the query, which the filter is not asked about."""

    def _get_raw_insecure_uri(self) -> str:
        return self.request.path if self.request else ""

    def get_traceback_data(self) -> dict[str, Any]:
        """Return Django's data without the query."""
        return super().get_traceback_data() | {"request_GET_items": [], "request_insecure_uri": ""}
