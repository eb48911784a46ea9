"""One JSON object a line on standard output, each with the id of its request; and loggers that must stay quiet."""

import logging
import re
import sys
import uuid
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final

from django.http import HttpRequest, HttpResponse

_request_id: ContextVar[str] = ContextVar("request_id", default="")

# At DEBUG these print codes, verifiers, client secrets and tokens (H2). urllib3 does at WARNING, too: headers that it
# cannot read, with a traceback that holds the server's bytes.
LOUD_LOGGERS: Final = {
    "oauthlib": "WARNING",
    "requests": "WARNING",
    "requests_oauthlib": "WARNING",
    "requests_hardened": "WARNING",
    "urllib3": "ERROR",
}


def log_stream(arguments: list[str]) -> str:
    """Return where lines go: standard output, where they are collected; but for a command whose output is its result.

    `create_bot_key` prints a key and nothing else, `apply_config` one JSON object.
    """
    program, command = Path(arguments[0]).name, "".join(arguments[1:2])
    prints_a_result = program == "manage.py" and command not in {"worker", "runserver"}
    return "ext://sys.stderr" if prints_a_result else "ext://sys.stdout"


LOGGING_TO_STANDARD_OUTPUT: Final[dict[str, Any]] = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"request_id": {"()": "delegation_site.logs.RequestIdFilter"}},
    "formatters": {
        "json": {
            "()": "pythonjsonlogger.json.JsonFormatter",
            "fmt": "%(asctime)s %(levelname)s %(name)s %(message)s %(request_id)s",
        },
    },
    "handlers": {
        "stdout": {
            "class": "logging.StreamHandler",
            "stream": log_stream(sys.argv),
            "formatter": "json",
            "filters": ["request_id"],
        },
    },
    "root": {"handlers": ["stdout"], "level": "INFO"},
    "loggers": {
        # Django's own handlers would print a second copy and mail a report that holds the callback's query (H4).
        "django": {"handlers": [], "level": "INFO", "propagate": True},
        "django.server": {"handlers": [], "level": "WARNING", "propagate": False},
        **{name: {"level": level} for name, level in LOUD_LOGGERS.items()},
    },
}


# A link's, a receipt's and a callback's address each hold what must not be known to whoever reads the lines.
_SECRET_PATH: Final = re.compile(r"^/(c|r|callback)/[^/]+")


class RequestIdFilter(logging.Filter):
    """Put the current request's id on each record, and take the request and the secret part of its path off it.

    Django hangs the whole request on its records, whose query holds the code and the state; and it names the path of
    every answer from 400 on: a form without its cookie is enough to write a live link down (H1).
    """

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = _request_id.get()
        record.__dict__.pop("request", None)
        if isinstance(record.args, tuple):
            record.args = tuple(_without_secret(argument) for argument in record.args)
        return True


def _without_secret(argument: object) -> object:
    return _SECRET_PATH.sub(r"/\1/...", argument) if isinstance(argument, str) else argument


def current_request_id() -> str:
    """Return the id that this request's log lines carry; empty outside a request."""
    return _request_id.get()


def request_id_middleware(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Give each request an id of our own, in its log lines and in `X-Request-Id`. A caller's id is not taken over."""

    def middleware(request: HttpRequest) -> HttpResponse:
        # Not reset at the end: Django logs a 4xx or 5xx after the middleware returned. The next request sets its own.
        _request_id.set(uuid.uuid4().hex)
        response = get_response(request)
        response["X-Request-Id"] = _request_id.get()
        return response

    return middleware
