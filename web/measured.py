"""Count every answered request for Prometheus. `delegation_site/wsgi.py` uses this only if `METRICS_FOLDER` is set."""

from collections.abc import Callable, Iterable
from time import perf_counter
from typing import Any

from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest

from infrastructure import metrics
from web.answered_before import ANSWERED_BEFORE

Application = Callable[..., Iterable[bytes]]


class MeasuredHandler(WSGIHandler):
    """Django's handler, which counts its responses: here the status is final, and the route is known."""

    def get_response(self, request: HttpRequest) -> Any:
        """Answer as Django does, and count the answer."""
        began = perf_counter()
        response: Any = super().get_response(request)
        metrics.count_call(operation_of(request), request.method or "", response.status_code, perf_counter() - began)
        return response


def operation_of(request: HttpRequest) -> str:
    """Return the name of a request's route. It is one of ours, whatever the path and the method are."""
    if request.path_info.startswith("/admin"):
        return "admin"
    if request.resolver_match is None:
        return "static" if request.path_info.startswith(settings.STATIC_URL) else "unmatched"
    return request.resolver_match.url_name or "unnamed"


def measured(before: Callable[[Application], Application]) -> Application:
    """Put `before`, which answers some requests and passes on all others, in front of the measured handler.

    It says what it has answered in `ANSWERED_BEFORE`.
    """
    in_front = before(MeasuredHandler())

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        began = perf_counter()
        answer = in_front(environ, start_response)
        if ANSWERED_BEFORE in environ:
            operation, status = environ[ANSWERED_BEFORE]
            metrics.count_call(operation, environ["REQUEST_METHOD"], status, perf_counter() - began)
        return answer

    return application
