"""JSON logging to standard output: each line has a request id, and secrets are removed."""

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

# At DEBUG these log codes, verifiers, client secrets and tokens (H2). urllib3 logs unparsable headers at WARNING, with
# the server's bytes in the traceback.
LOUD_LOGGERS: Final = {
    "oauthlib": "WARNING",
    "requests": "WARNING",
    "requests_oauthlib": "WARNING",
    "requests_hardened": "WARNING",
    "urllib3": "ERROR",
}


def log_stream(arguments: list[str]) -> str:
    """Standard error for commands that print their result, otherwise standard output."""
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
        # Django's handlers would print every line twice and mail a report with the callback's query (H4).
        "django": {"handlers": [], "level": "INFO", "propagate": True},
        "django.server": {"handlers": [], "level": "WARNING", "propagate": False},
        **{name: {"level": level} for name, level in LOUD_LOGGERS.items()},
    },
}


def _in_any_writing(word: str) -> str:
    """Build a pattern for a word whose characters may be percent-encoded, even several times."""
    return "".join(f"(?:{re.escape(char)}|%(?:25)*(?:{ord(char):x}|{ord(char.upper()):x}))" for char in word)


_SLASH: Final = rf"(?:{_in_any_writing('/')}|{_in_any_writing(chr(92))})"
_SPACE: Final = r"(?:\s|%(?:25)*20)"
# 20 or 32 random bytes in base64url (link tokens, receipts, states, cookies), or such a value with a suffix.
_LOOK_ALIKE: Final = (
    r"(?:[A-Za-z0-9_-]{43}(?![\w-])|[A-Za-z0-9_-]{27}(?![\w-])|(?=[\w-]*[A-Z])(?=[\w-]*[a-z])[A-Za-z0-9_-]{28,})"
)
# A segment `c`, `r` or `callback` in any encoding, the separators after it, and the next segment. The quantifiers are
# possessive: a hostile path must not cause catastrophic backtracking.
_AFTER_A_NAME: Final = re.compile(
    rf"((?:(?<![\w.%-])|(?<=2f)|(?<=5c))(?:(?:{'|'.join(map(_in_any_writing, ('callback', 'c', 'r')))})"
    rf"{_SLASH}(?:{_SLASH}|\.{{1,2}}{_SLASH}|{_SPACE})*+)+)"
    rf"(?:(?!{_in_any_writing('/')})[^\s?#\"'<>])++",
    re.IGNORECASE,
)
# Marks a hidden segment while the rest of its line is searched: a space or quote inside a token would otherwise leave
# its second half visible. Words and short numbers stay.
_HIDDEN: Final = "\0"
_REST_OF_LINE: Final = re.compile(rf"{_HIDDEN}(?:\s*\n)?[^\n]*")
_PIECE: Final = re.compile(
    r"(?<![A-Za-z0-9_-])(?!(?:[A-Z]?[a-z]+|[A-Z]{1,5}|[0-9]{1,4})(?![A-Za-z0-9_-]))[A-Za-z0-9_-]{2,}"
)
_QUERY: Final = re.compile(r"(?<=[\w/.~%-])\?[^\s\"'<>]+")
_ELSEWHERE: Final = re.compile(rf"(?:(?<=[/\\=&?#;:])|(?<=%2[fF6])|(?<=%3[aAbBdDfF])|(?<=%5[cC])){_LOOK_ALIKE}(?!\.py)")
# API paths are kept: a conversation may be named `c`, with nothing secret after it. Dot segments could leave /api/.
_API: Final = re.compile(r"(?<![\w./\\%-])(?:https?://[^\s/]+)?/api/(?!\S*(?:\.|%(?:25)*2[eE]){2})[^\s?\"']*")
_ORDINARY: Final = range(400, 500)


def without_secrets(text: str) -> str:
    """Remove queries, and the tokens in the paths of links, receipts and callbacks (H1).

    Variants that a browser may request are covered: `//c/TOKEN`, `/C/TOKEN`, `/en/c/TOKEN`, `/%63/TOKEN`.
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
    """Add the request id to each record, and remove the request and all secrets.

    Django attaches the whole request, whose query holds code and state. It also logs the path of every 4xx and 5xx
    response: a form without its cookie would put a live link into the log (H1).
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
            # Formatters prefer this text. An exception's message may contain the path, too.
            record.exc_text = without_secrets(_TRACEBACKS.formatException(record.exc_info))
            record.exc_info = None
        return True


_TRACEBACKS: Final = logging.Formatter()
# The fields of every record. All others come from `extra` and are filtered. `msg` may be an object, so it is, too.
_OF_EVERY_RECORD: Final = logging.makeLogRecord({}).__dict__.keys() - {"msg", "stack_info"} | {"request_id"}


def _value_without_secrets(value: Any) -> Any:
    """Filter one field of a record: text, also inside lists, mappings and exceptions."""
    if isinstance(value, str | Exception | PurePath | bytes):
        return without_secrets(value.decode("utf8", "replace") if isinstance(value, bytes) else str(value))
    if isinstance(value, dict):
        return {_value_without_secrets(key): _value_without_secrets(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_value_without_secrets(inner) for inner in value]
    return value


def _message(record: logging.LogRecord) -> str:
    """Format the message. Spaces in paths are encoded again: Django decodes them, and one would end the match."""
    if isinstance(record.args, tuple):
        record.args = tuple(
            re.sub(r"\s", "%20", argument) if isinstance(argument, str) and argument.startswith("/") else argument
            for argument in record.args
        )
    return record.getMessage()


def _lower_what_strangers_cause(record: logging.LogRecord) -> None:
    """Log ordinary refusals (404, 409, 429 ...) at INFO, and those of Django's security checks at WARNING.

    A warning asks for a look and an error means a failure here; a scanner must cause neither. Many security refusals at
    once mean a wrong `ALLOWED_HOSTS` or proxy. Their traceback is dropped, because it only shows Django's code.
    """
    status = getattr(record, "status_code", None)
    if record.name == "django.request" and status in _ORDINARY:
        record.levelno, record.levelname = logging.INFO, "INFO"
    elif record.name.startswith("django.security.") and status in {None, *_ORDINARY}:
        record.levelno, record.levelname, record.exc_info = logging.WARNING, "WARNING", None


def current_request_id() -> str:
    """Empty outside a request."""
    return _request_id.get()


def request_id_middleware(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Give each request a new id, for its log lines and `X-Request-Id`. An id sent by the client is ignored."""

    def middleware(request: HttpRequest) -> HttpResponse:
        # Never reset: Django logs a 4xx or 5xx after the middleware has returned. The next request sets its own.
        _request_id.set(uuid.uuid4().hex)
        response = get_response(request)
        response["X-Request-Id"] = _request_id.get()
        return response

    return middleware
