"""Error responses: problem details (RFC 9457) for bots, HTML pages for people.

Error reports must hold no secrets (H4). Django's report of a failed callback contains code, state and cookies, and in
HTML all local variables: token, client secret, verifier. No logging handler sends error reports today. If one is added,
it must use `QuietExceptionReporter`, as the settings say.
"""

import logging
import sys
from collections.abc import Callable, ItemsView, Iterator
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from django.conf import settings
from django.contrib import admin
from django.contrib.sessions.exceptions import SessionInterrupted
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.debug import ExceptionReporter, SafeExceptionReporterFilter

from infrastructure.database_errors import is_unavailable, sqlstate
from infrastructure.logs import current_request_id
from web.pages import render_page


class Problem(Exception):
    """An error that ends an API call. `code` is stable; `detail` says in one sentence what to do next.

    `next_operation` is the operation id of the call that helps. It is empty if the request, the key or the
    configuration must change first. The bot API looks up the method and URL of that operation, and passes them to
    `response`.
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
        """Encode as `application/problem+json`. The member `next` is `next_call`; null means that no call helps."""
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
    """Build the problem for an exceeded limit (G8). `retry_after` is in seconds (RFC 9110 section 10.2.3)."""
    return Problem(429, "rate_limited", detail, headers={"Retry-After": str(retry_after)})


def json_response(
    body: Any, *, status: int = 200, content_type: str = "application/json", headers: dict[str, str] | None = None
) -> HttpResponse:
    """Encode a body as JSON. Datetimes become RFC 3339 in UTC."""
    return HttpResponse(msgspec.json.encode(body), status=status, content_type=content_type, headers=headers)


logger = logging.getLogger("consumer_delegation.errors")


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer 400. If the session could not be saved because the database is down, answer 503.

    In that case Django raises `SessionInterrupted`, which says that the session was deleted.
    """
    if isinstance(exception, SessionInterrupted):
        for cause in _causes(exception):
            if is_unavailable(cause):
                return _unavailable(request, cause)
    return _answer(request, 400, "bad_request", "The request could not be read.")


def _causes(exception: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions during whose handling this one was raised, the latest first."""
    context = exception.__context__
    while context is not None:
        yield context
        context = context.__context__


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:  # noqa: ARG001  # Django's signature
    return _answer(request, 403, "forbidden", "This is not allowed.", reason="not_allowed")


# Django's words for a form from our own page whose token is not the cookie's. A sign-in renews the cookie.
_OTHER_TOKEN: Final = "CSRF token from POST incorrect."


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Answer a form that did not come from our own page (B22), or whose browser stores no cookies.

    In the admin also a form that was open when somebody signed in. It stays refused: it may be that of another account.
    """
    why = "form" if settings.CSRF_COOKIE_NAME in request.COOKIES else "cookies"
    if why == "form" and reason == _OTHER_TOKEN and request.path_info.startswith("/admin/"):
        why = "older"
    return _answer(request, 403, "form_not_ours", "The form was not sent from our own page.", reason=why)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:  # noqa: ARG001  # Django's signature
    return _answer(request, 404, "not_found", "There is nothing at this address.")


def too_many_requests(request: HttpRequest, retry_after: int) -> HttpResponse:
    """Answer a browser over a limit (G8). No link or state was used up, so the same URL works again later."""
    response = _answer(request, 429, "rate_limited", "Too many calls. Wait as long as Retry-After says.")
    response["Retry-After"] = str(retry_after)
    return response


def server_error(request: HttpRequest) -> HttpResponse:
    """Answer 500, or 503 if the database is unavailable. The page shows the request id of the log line."""
    error = sys.exc_info()[1]
    if error is not None and is_unavailable(error):
        return _unavailable(request, error)
    return _answer(request, 500, "internal_error", "Something failed on our side. Try again.")


def _unavailable(request: HttpRequest, error: BaseException) -> HttpResponse:
    response = _answer(request, 503, "unavailable", "Not available right now. Try again.")
    response["Retry-After"] = "30"
    # Replaces Django's log record: its traceback of a hundred lines would be written for each request of an outage.
    reason = {"sqlstate": sqlstate(error), "error": type(error).__name__}
    logger.error("the database is not available", extra=reason)
    response._has_been_logged = True  # type: ignore[attr-defined]  # noqa: SLF001  # as `log_response` reads it
    return response


def refuse_nul_middleware(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Answer 400 to a NUL character in the query or a cookie: PostgreSQL fails on it, and no honest client sends it."""

    def middleware(request: HttpRequest) -> HttpResponse:
        if has_nul(request.META):
            return _answer(request, 400, "bad_request", "The request could not be read.")
        return get_response(request)

    return middleware


def has_nul(environ: dict[str, Any]) -> bool:
    """Whether the query or a cookie of a request contains a NUL character, in any of its spellings."""
    query_and_cookies = environ.get("QUERY_STRING", "") + environ.get("HTTP_COOKIE", "")
    return "%00" in query_and_cookies or "\\000" in query_and_cookies or "\0" in query_and_cookies


def _reference() -> str:
    """Return the start of the request id, short enough to read aloud and long enough to find in the log."""
    return f"{current_request_id()[:5]} {current_request_id()[5:10]}".strip()


# Title and advice of the admin's own error pages. If the database may be away, the consumer's page needs no query.
_ADMIN_PAGES: Final = {
    400: ("This request could not be read", "Nothing was changed. Go back and begin again from a list."),
    403: ("This is not allowed", "Nothing was changed. Your operator can allow it to your account."),
    404: ("There is nothing here", "The address is wrong, or what it names does not exist."),
}
_FORM_NOT_ACCEPTED: Final = (
    "This form was not accepted",
    (
        "Nothing was changed. Go back, load the page again, and send the form again. If it does not help, allow "
        "cookies for this website, and switch off add-ons that change what your browser sends."
    ),
)
_FORM_OLDER_THAN_SIGN_IN: Final = (
    "Somebody has signed in since this form was opened",
    (
        "It was in this browser, perhaps in another tab. So the form was not accepted, and nothing was changed. "
        "Open it again, and look at the top of the page who is signed in. What was typed has to be typed once more."
    ),
)
_OF_FORMS: Final = {
    "form": _FORM_NOT_ACCEPTED,
    "cookies": _FORM_NOT_ACCEPTED,
    "older": _FORM_OLDER_THAN_SIGN_IN,
}


def _admin_page(request: HttpRequest, status: int, reason: str) -> HttpResponse:
    """Render an error in the admin's style. Without a sign-in it shows nothing but the sentence."""
    title, advice = _OF_FORMS[reason] if reason in _OF_FORMS else _ADMIN_PAGES[status]
    context = {**admin.site.each_context(request), "title": title, "advice": advice, "reference": _reference()}
    if reason == "older":
        context["form_address"] = _address_of_form(request)
    return render(request, "admin/error.html", context, status=status)


def _address_of_form(request: HttpRequest) -> str:
    """Return the address of the page that sent a form, else of the admin's first page. To open it changes nothing."""
    page = request.headers.get("Referer", "")
    is_ours = url_has_allowed_host_and_scheme(page, {request.get_host()}, require_https=request.is_secure())
    path = urlsplit(page)._replace(scheme="", netloc="").geturl() if is_ours else ""
    return path if path.startswith("/admin/") else reverse("admin:index")


def _answer(request: HttpRequest, status: int, code: str, detail: str, **context: str) -> HttpResponse:
    if request.path_info.startswith("/api/"):
        return Problem(status, code, detail, request_id=current_request_id()).response()
    if request.path_info.startswith("/admin/") and status in _ADMIN_PAGES and hasattr(request, "user"):
        return _admin_page(request, status, context.get("reason", ""))
    return render_page(request, f"errors/{status}.html", {"reference": _reference(), **context}, status=status)


class QuietReporterFilter(SafeExceptionReporterFilter):
    """Reduces an error report to method, path and lines of code: no query, cookie, header, setting or variable."""

    def get_safe_settings(self) -> dict[str, Any]:
        return {}

    def get_safe_request_meta(self, request: HttpRequest) -> dict[str, Any]:
        return {"REQUEST_METHOD": request.method, "PATH_INFO": request.path}

    def get_safe_cookies(self, request: HttpRequest) -> dict[str, Any]:  # noqa: ARG002  # Django's signature
        return {}

    def get_post_parameters(self, request: HttpRequest | None) -> dict[str, Any]:  # noqa: ARG002  # Django's signature
        return {}

    def get_traceback_frame_variables(self, request: Any, tb_frame: Any) -> ItemsView[str, Any]:  # noqa: ARG002
        return {}.items()


class QuietExceptionReporter(ExceptionReporter):
    """Removes the query from an error report, which `QuietReporterFilter` does not do."""

    def _get_raw_insecure_uri(self) -> str:
        return self.request.path if self.request else ""

    def get_traceback_data(self) -> dict[str, Any]:
        return super().get_traceback_data() | {"request_GET_items": [], "request_insecure_uri": ""}
