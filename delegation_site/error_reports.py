"""Error reports without secrets (H4).

Django's report of a failed callback holds code, state and cookies in its text form, and every local variable in its
HTML form: token, client secret, verifier. No handler of ours sends one; whoever adds one gets this.
"""

from collections.abc import ItemsView
from typing import Any

from django.http import HttpRequest
from django.views.debug import ExceptionReporter, SafeExceptionReporterFilter


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
