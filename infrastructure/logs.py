"""One JSON object a line on standard output, each with the id of its request; and loggers that must stay quiet."""

import logging
import re
import sys
import uuid
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path, PurePath
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
    "filters": {"request_id": {"()": "infrastructure.logs.RequestIdFilter"}},
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


def _in_any_writing(word: str) -> str:
    """Return a pattern for a word whose characters may be percent-encoded, more than once, too."""
    return "".join(f"(?:{re.escape(char)}|%(?:25)*(?:{ord(char):x}|{ord(char.upper()):x}))" for char in word)


_SLASH: Final = rf"(?:{_in_any_writing('/')}|{_in_any_writing(chr(92))})"
_SPACE: Final = r"(?:\s|%(?:25)*20)"
# 20 or 32 random bytes in base64url: link tokens, and receipts, states and cookies; or one with something behind it.
_LOOK_ALIKE: Final = (
    r"(?:[A-Za-z0-9_-]{43}(?![\w-])|[A-Za-z0-9_-]{27}(?![\w-])|(?=[\w-]*[A-Z])(?=[\w-]*[a-z])[A-Za-z0-9_-]{28,})"
)
# Segments `c`, `r` or `callback`, however they are written, what may stand before the next one, and that one.
# Possessive, so that no path which a stranger wrote is tried in a thousand ways.
_AFTER_A_NAME: Final = re.compile(
    rf"((?:(?<![\w.%-])|(?<=2f)|(?<=5c))(?:(?:{'|'.join(map(_in_any_writing, ('callback', 'c', 'r')))})"
    rf"{_SLASH}(?:{_SLASH}|\.{{1,2}}{_SLASH}|{_SPACE})*+)+)"
    rf"(?:(?!{_in_any_writing('/')})[^\s?#\"'<>])++",
    re.IGNORECASE,
)
# Stands for what was hidden after a name, until the rest of its line has been looked at: a space or quote in the middle
# of a token leaves its second half there. Words and short numbers stay.
_HIDDEN: Final = "\0"
_REST_OF_LINE: Final = re.compile(rf"{_HIDDEN}(?:\s*\n)?[^\n]*")
_PIECE: Final = re.compile(
    r"(?<![A-Za-z0-9_-])(?!(?:[A-Z]?[a-z]+|[A-Z]{1,5}|[0-9]{1,4})(?![A-Za-z0-9_-]))[A-Za-z0-9_-]{2,}"
)
_QUERY: Final = re.compile(r"(?<=[\w/.~%-])\?[^\s\"'<>]+")
_ELSEWHERE: Final = re.compile(rf"(?:(?<=[/\\=&?#;:])|(?<=%2[fF6])|(?<=%3[aAbBdDfF])|(?<=%5[cC])){_LOOK_ALIKE}(?!\.py)")
# What bots call: a conversation may be named `c`, and has nothing secret behind it. Dots could lead out of it.
_API: Final = re.compile(r"(?<![\w./\\%-])(?:https?://[^\s/]+)?/api/(?!\S*(?:\.|%(?:25)*2[eE]){2})[^\s?\"']*")
_ORDINARY: Final = range(400, 500)


def without_secrets(text: str) -> str:
    """Return a line's text without queries and without what addresses of links, receipts and callbacks hold (H1).

    Whatever a browser can be sent to ends up in a line: `//c/TOKEN`, `/C/TOKEN`, `/en/c/TOKEN`, `/%63/TOKEN`.
    """
    if not _LEADS_SOMEWHERE.search(text):
        return text
    text, pieces, end = text.replace(_HIDDEN, ""), [], 0
    for path in _API.finditer(text):
        pieces += [_hidden(text[end : path.start()]), path.group()]
        end = path.end()
    return "".join([*pieces, _hidden(text[end:])])


_LEADS_SOMEWHERE: Final = re.compile(r"[/\\%?=]")


def _hidden(text: str) -> str:
    text = _AFTER_A_NAME.sub(rf"\1{_HIDDEN}", _QUERY.sub("?...", text))
    text = _REST_OF_LINE.sub(lambda rest: _PIECE.sub("...", rest[0]), text)
    return _ELSEWHERE.sub("...", text.replace(_HIDDEN, "..."))


class RequestIdFilter(logging.Filter):
    """Put the current request's id on each record; take off it the request and what must not be written down.

    Django hangs the whole request on its records, whose query holds the code and the state; and it names the path of
    every answer from 400 on: a form without its cookie is enough to write a live link down (H1).
    """

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = _request_id.get()
        record.__dict__.pop("request", None)
        _lower_what_strangers_cause(record)
        if isinstance(record.msg, str) or record.args:
            record.msg, record.args = without_secrets(_message(record)), None
        for name in record.__dict__.keys() - _OF_EVERY_RECORD:
            record.__dict__[name] = _value_without_secrets(record.__dict__[name])
        if record.exc_info:
            # Formatters take the text where it is there: an exception's message may hold the path, too.
            record.exc_text = without_secrets(_TRACEBACKS.formatException(record.exc_info))
            record.exc_info = None
        return True


_TRACEBACKS: Final = logging.Formatter()
# All others are of `extra`; a message may be an object, too. `exc_info` and `args` become texts on their own.
_OF_EVERY_RECORD: Final = logging.makeLogRecord({}).__dict__.keys() - {"msg", "stack_info"} | {"request_id"}


def _value_without_secrets(value: Any) -> Any:
    """Return a field of a record as it may be written: texts, also those within lists, mappings and exceptions."""
    if isinstance(value, str | Exception | PurePath | bytes):
        return without_secrets(value.decode("utf8", "replace") if isinstance(value, bytes) else str(value))
    if isinstance(value, dict):
        return {_value_without_secrets(key): _value_without_secrets(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_value_without_secrets(inner) for inner in value]
    return value


def _message(record: logging.LogRecord) -> str:
    """Return the message, its paths with spaces encoded: Django decodes them, and a space would end what is hidden."""
    if isinstance(record.args, tuple):
        record.args = tuple(
            re.sub(r"\s", "%20", argument) if isinstance(argument, str) and argument.startswith("/") else argument
            for argument in record.args
        )
    return record.getMessage()


def _lower_what_strangers_cause(record: logging.LogRecord) -> None:
    """Make an ordinary answer (404, 409, 429 ...) a line of INFO, and what Django's checks refused one of WARNING.

    A warning is what somebody should look at, and an error what has failed here: a scanner raises neither. Of what was
    refused many at once are a wrong `ALLOWED_HOSTS` or proxy; its traceback is Django's own code each time.
    """
    status = getattr(record, "status_code", None)
    if record.name == "django.request" and status in _ORDINARY:
        record.levelno, record.levelname = logging.INFO, "INFO"
    elif record.name.startswith("django.security.") and status in {None, *_ORDINARY}:
        record.levelno, record.levelname, record.exc_info = logging.WARNING, "WARNING", None


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
