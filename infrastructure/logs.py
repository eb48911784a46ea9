"""JSON logging to standard output, or standard error: each line has a request id, and secrets are removed."""

import logging
import os
import re
import sys
import time
from collections.abc import Callable
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path, PurePath
from typing import Any, Final

import msgspec
from django.http import HttpRequest, HttpResponse
from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

from infrastructure.log_stream import PatientHandler

REQUEST_ID_HEADER: Final = "X-Request-Id"
# WSGI variable with the id of a request that had one before Django's handler. No client can set it: headers have HTTP_.
REQUEST_ID: Final = "consumer_delegation.request_id"
_request_id: ContextVar[str] = ContextVar("request_id", default="")

# At level DEBUG these libraries write authorization codes, verifiers, client secrets and tokens into the log (H2), and
# botocore the keys that AWS KMS has unwrapped (K8).
# urllib3 logs headers that it cannot parse at WARNING, with the server's bytes in the traceback.
LOUD_LOGGERS: Final = {
    "boto3": "WARNING",
    "botocore": "WARNING",
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


JSON_LOGGING: Final[dict[str, Any]] = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"request_id": {"()": "infrastructure.logs.RequestIdFilter"}},
    "formatters": {
        "json": {
            "()": "infrastructure.logs.LineFormatter",
            "fmt": "%(asctime)s %(levelname)s %(name)s %(message)s %(request_id)s",
        },
    },
    "handlers": {
        "stdout": {
            "class": "infrastructure.log_stream.PatientHandler",
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


def _in_any_encoding(word: str) -> str:
    """Build a pattern for a word whose characters may be percent-encoded, even several times."""
    return "".join(f"(?:{re.escape(char)}|%(?:25)*(?:{ord(char):x}|{ord(char.upper()):x}))" for char in word)


_SLASH: Final = rf"(?:{_in_any_encoding('/')}|{_in_any_encoding(chr(92))})"
_SPACE: Final = r"(?:\s|%(?:25)*20)"
# 20 or 32 random bytes in base64url (a link token, receipt token, state or cookie), or such a value with a suffix.
_LOOKS_LIKE_A_TOKEN: Final = (
    r"(?:[A-Za-z0-9_-]{43}(?![\w-])|[A-Za-z0-9_-]{27}(?![\w-])|(?=[\w-]*[A-Z])(?=[\w-]*[a-z])[A-Za-z0-9_-]{28,})"
)
# A segment `c`, `r` or `callback` in any encoding, the separators after it, and the next segment. The quantifiers are
# possessive: a hostile path must not cause catastrophic backtracking.
_TOKEN_AFTER_SEGMENT: Final = re.compile(
    rf"((?:(?<![\w.%-])|(?<=2f)|(?<=5c))(?:(?:{'|'.join(map(_in_any_encoding, ('callback', 'c', 'r')))})"
    rf"{_SLASH}(?:{_SLASH}|\.{{1,2}}{_SLASH}|{_SPACE})*+)+)"
    rf"(?:(?!{_in_any_encoding('/')})[^\s?#\"'<>])++",
    re.IGNORECASE,
)
# Placeholder for a removed token. The rest of the line is cleaned too, because a token that contains a space or a quote
# would be removed only up to that character. Words and short numbers stay.
_REMOVED: Final = "\0"
_REST_OF_LINE: Final = re.compile(rf"{_REMOVED}(?:\s*\n)?[^\n]*")
_PIECE_OF_TOKEN: Final = re.compile(
    r"(?<![A-Za-z0-9_-])(?!(?:[A-Z]?[a-z]+|[A-Z]{1,5}|[0-9]{1,4})(?![A-Za-z0-9_-]))[A-Za-z0-9_-]{2,}"
)
_QUERY: Final = re.compile(r"(?<=[\w/.~%-])\?[^\s\"'<>]+")
_TOKEN_ELSEWHERE: Final = re.compile(
    rf"(?:(?<=[/\\=&?#;:])|(?<=%2[fF6])|(?<=%3[aAbBdDfF])|(?<=%5[cC])){_LOOKS_LIKE_A_TOKEN}(?!\.py)"
)
# API paths are kept: a conversation may be named `c`, with nothing secret after it. With `..` a path can point outside
# /api/, so such paths are not kept.
_API: Final = re.compile(r"(?<![\w./\\%-])(?:https?://[^\s/]+)?/api/(?!\S*(?:\.|%(?:25)*2[eE]){2})[^\s?\"']*")
_CLIENT_ERRORS: Final = range(400, 500)
_MAY_HOLD_PATH_OR_QUERY: Final = re.compile(r"[/\\%?=]")


def without_secrets(text: str) -> str:
    """Remove queries, and the tokens in the paths of links, receipts and callbacks (H1).

    Variants that a browser may request are covered: `//c/TOKEN`, `/C/TOKEN`, `/en/c/TOKEN`, `/%63/TOKEN`.
    """
    if not _MAY_HOLD_PATH_OR_QUERY.search(text):
        return text
    text, pieces, end = text.replace(_REMOVED, ""), [], 0
    for path in _API.finditer(text):
        pieces += [_tokens_removed(text[end : path.start()]), path.group()]
        end = path.end()
    return "".join([*pieces, _tokens_removed(text[end:])])


def _tokens_removed(text: str) -> str:
    text = _TOKEN_AFTER_SEGMENT.sub(rf"\1{_REMOVED}", _QUERY.sub("?...", text))
    text = _REST_OF_LINE.sub(lambda rest: _PIECE_OF_TOKEN.sub("...", rest[0]), text)
    return _TOKEN_ELSEWHERE.sub("...", text.replace(_REMOVED, "..."))


class LineFormatter(JsonFormatter):
    """Writes the lines of `JsonFormatter`, byte for byte, in a quarter of the time if their values are plain."""

    def format(self, record: logging.LogRecord) -> str:
        """Encode the record as one line of JSON. What msgspec would write in another way is left to the slower one."""
        if record.exc_text or record.exc_info or record.stack_info or not isinstance(record.msg, str):
            return super().format(record)
        fields = {
            "asctime": self._asctime(record.created, record.msecs),
            "levelname": record.levelname,
            "name": record.name,
            "message": record.getMessage(),
            "request_id": record.__dict__.get("request_id"),
        }
        fields |= {
            name: value
            for name, value in record.__dict__.items()
            if name not in _NEVER_WRITTEN and not name.startswith("_")
        }
        line = _plain_line(fields)
        return super().format(record) if line is None else line

    def line_now(self, logger: logging.Logger, message: str, fields: dict[str, Any]) -> str | None:
        """Encode what a record of level INFO would give, without one. None if its values are not plain."""
        created = time.time()
        head: dict[str, Any] = {
            "asctime": self._asctime(created, created % 1 * 1000),
            "levelname": "INFO",
            "name": logger.name,
            "message": message,
            "request_id": _request_id.get(),
        }
        return _plain_line(head | fields)

    def _asctime(self, created: float, milliseconds: float) -> str:
        """Format the time as `formatTime` does, but format each second once."""
        second = int(created)
        if self._second[0] != second:
            self._second = second, time.strftime(self.default_time_format, self.converter(created))
        return f"{self._second[1]},{int(milliseconds):03d}"

    _second: tuple[int, str] = -1, ""


def _plain_line(fields: dict[str, Any]) -> str | None:
    """Encode fields whose JSON looks the same from both encoders; None for others."""
    if not _PLAIN.issuperset(map(type, fields.values())):
        return None
    try:
        line = msgspec.json.format(msgspec.json.encode(fields), indent=0).decode()
    except (UnicodeEncodeError, OverflowError):
        return None
    return line if line.isascii() and "\x7f" not in line else None


def info(logger: logging.Logger, message: str, fields: dict[str, Any]) -> None:
    """Write the line of `logger.info(message, extra=fields)`, in a third of the time if it is plain.

    The record and its way through loggers, filters and handlers were a fifth of a token read. Only a line that no
    filter would change is written without them, and only if no other handler, filter or factory of records, such as
    that of a tracing library, would see it.
    """
    if not logger.isEnabledFor(logging.INFO):
        return
    handler = _our_handler_alone(logger)
    if handler is not None and _are_written(tuple(fields)):
        line = handler.formatter.line_now(logger, message, fields)  # type: ignore[union-attr]  # it is a LineFormatter
        if line is not None and not _MAY_HOLD_PATH_OR_QUERY.search(line) and handler.write_line(line):
            return
    logger.info(message, extra=fields)


@lru_cache(maxsize=256)
def _are_written(names: tuple[str, ...]) -> bool:
    """Whether a line has all of these fields, as they were given."""
    return not any(name in _NEVER_WRITTEN or name in _CHANGED or name.startswith("_") for name in names)


def _our_handler_alone(logger: logging.Logger) -> PatientHandler | None:
    """Return our handler, if a line of this logger goes to it alone, and as `JSON_LOGGING` configures it."""
    handlers: list[logging.Handler] = []
    above: logging.Logger | None = logger
    while above is not None:
        handlers += above.handlers
        above = above.parent if above.propagate else None
    if len(handlers) != 1 or logger.filters:
        return None
    (handler,) = handlers
    is_ours = (
        type(handler) is PatientHandler
        and type(handler.formatter) is LineFormatter
        and [type(one) for one in handler.filters] == [RequestIdFilter]
        and handler.level <= logging.INFO
        and logging.getLogRecordFactory() is logging.LogRecord
    )
    return handler if is_ours else None  # type: ignore[return-value]  # is_ours holds its type


def collect_no_more_than_is_written() -> None:
    """Let records have no thread, process name or place in the code, which no line of ours has. For server processes.

    Python's logging HOWTO describes these three switches under "Optimization".
    """
    logging.logThreads = logging.logMultiprocessing = False
    logging._srcfile = None  # noqa: SLF001  # the documented name


# JSON of these types looks the same in both encoders, unless it has other characters than those of printable ASCII.
_PLAIN: Final = frozenset({str, int, bool, type(None)})
_NEVER_WRITTEN: Final = frozenset(RESERVED_ATTRS)
# Set or removed by `RequestIdFilter`.
_CHANGED: Final = frozenset({"request_id", "request"})


class RequestIdFilter(logging.Filter):
    """Add the request id to each record, and remove the request and all secrets.

    Django attaches the whole request, whose query holds code and state. It also logs the path of every 4xx and 5xx
    response. A form that is refused for a missing cookie is a 403, and its path contains a link that still works (H1).
    """

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = _request_id.get()
        record.__dict__.pop("request", None)
        _lower_level_of_client_errors(record)
        if isinstance(record.msg, str) or record.args:
            record.msg, record.args = without_secrets(_message(record)), None
        for name in record.__dict__.keys() - _OF_EVERY_RECORD:
            record.__dict__[name] = _value_without_secrets(record.__dict__[name])
        if record.exc_info:
            # Formatters write `exc_text` if it is set. An exception's message may contain the path, too.
            record.exc_text = without_secrets(_TRACEBACKS.formatException(record.exc_info))
            record.exc_info = None
        return True


_TRACEBACKS: Final = logging.Formatter()
# The fields of every record. All others come from `extra` and are filtered. `msg` and `stack_info` are filtered too,
# because `msg` may be an object.
_OF_EVERY_RECORD: Final = logging.makeLogRecord({}).__dict__.keys() - {"msg", "stack_info"} | {"request_id"}


def _value_without_secrets(value: Any) -> Any:
    """Filter one field of a record: text, also inside lists, mappings and exceptions."""
    if type(value) is str:
        return without_secrets(value)
    if isinstance(value, str | Exception | PurePath | bytes):
        return without_secrets(value.decode("utf8", "replace") if isinstance(value, bytes) else str(value))
    if isinstance(value, dict):
        return {_value_without_secrets(key): _value_without_secrets(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_value_without_secrets(inner) for inner in value]
    return value


def _message(record: logging.LogRecord) -> str:
    """Format the message. Encode the spaces in paths again, which Django decoded: a space would end the match early."""
    if record.args and isinstance(record.args, tuple):
        record.args = tuple(
            re.sub(r"\s", "%20", argument) if isinstance(argument, str) and argument.startswith("/") else argument
            for argument in record.args
        )
    return record.getMessage()


def _lower_level_of_client_errors(record: logging.LogRecord) -> None:
    """Log ordinary refusals (404, 409, 429 ...) at INFO, and those of Django's security checks at WARNING.

    A warning asks the operator to look, and an error means a failure here; a scanner must cause neither. Exception:
    security refusals stay warnings, because many at once mean a wrong `ALLOWED_HOSTS` or proxy. Their traceback is
    dropped, because it only shows Django's code.
    """
    status = getattr(record, "status_code", None)
    if record.name == "django.request" and status in _CLIENT_ERRORS:
        record.levelno, record.levelname = logging.INFO, "INFO"
    elif record.name.startswith("django.security.") and status in {None, *_CLIENT_ERRORS}:
        record.levelno, record.levelname, record.exc_info = logging.WARNING, "WARNING", None


def current_request_id() -> str:
    """Return the id of the request that this thread answers; an empty string outside a request."""
    return _request_id.get()


def begin_request(request_id: str = "") -> str:
    """Give this thread's request an id, a new one if it has none yet, and return it.

    The id is never reset: Django logs a 4xx or 5xx after the middleware has returned. The next request sets another.
    """
    request_id = request_id or os.urandom(16).hex()
    _request_id.set(request_id)
    return request_id


def request_id_middleware(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Give each request a new id, for its log lines and `X-Request-Id`. An id sent by the client is ignored."""

    def middleware(request: HttpRequest) -> HttpResponse:
        request_id = begin_request(request.META.get(REQUEST_ID, ""))
        response = get_response(request)
        response[REQUEST_ID_HEADER] = request_id
        return response

    return middleware
