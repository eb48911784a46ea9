"""Answer a request on the fast path and on the full way, and compare all that can be seen."""

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from io import BytesIO
from typing import Any, Final

import pytest
from hypothesis import strategies as st

from brands.models import BotKey
from conversations import before_django
from conversations.flow import call_counts, read_counts
from infrastructure import rate_limits
from infrastructure.logs import LineFormatter
from tests.cast import HOST
from tests.fuzz.cases import rolled_back
from tests.handler import Handler

HANDLER: Final = Handler()
ABSENT: Final = None
LATIN: Final = st.text(alphabet=st.characters(max_codepoint=255), max_size=30)
KEY: Final = "the bot's key"
OTHER_KEY: Final = "a key of the same brand without token:read"
RIVALS_KEY: Final = "a key of another brand"

Changes = dict[str, Any]


def sent(name: str, *values: str | None, also: st.SearchStrategy[str] | None = None) -> st.SearchStrategy[Changes]:
    """Strategy for one WSGI variable: one of these values, or of the other strategy."""
    chosen: st.SearchStrategy[str | None] = st.sampled_from(values) if values else st.nothing()
    return (chosen if also is None else chosen | also).map(lambda value: {name: value})


def with_body(body: bytes) -> Changes:
    """Change the body, and say its length."""
    return {"body": body, "CONTENT_LENGTH": str(len(body))}


HOSTS: Final = [
    *(f"{HOST}{end}" for end in (":443", ":", ".", "..", "/", "\n", f",{HOST}")),
    *(f"{start}{HOST}" for start in (".", "a.", "a@", " ")),
    *(HOST.upper(), ABSENT, "", "*", "elsewhere.example", "bad host", "[::1]", "127.0.0.1"),
]  # fmt: skip
KEYS: Final = [
    *(f"{start}{KEY}" for start in ("bearer ", "BEARER ", "Bearer  ", "Bearer\t", "Basic ", "Bearer,", "", " Bearer ")),
    *(f"Bearer {KEY}{end}" for end in (" ", "\n", "\xa0", "x", ", Bearer x", "\0")),
    *(f"Bearer {OTHER_KEY}", f"Bearer {RIVALS_KEY}", ABSENT, "", "Bearer", "Bearer cdk_x", f"Bearer {KEY.upper()}"),
]  # fmt: skip
# Variables that no call reads, or that only middleware judges.
OF_EVERY_REQUEST: Final[st.SearchStrategy[Changes]] = st.one_of(
    sent("HTTP_X_FORWARDED_PROTO", "https", "http", "HTTPS", "https, http", "http, https", " https ", ""),
    sent("HTTP_COOKIE", "a=b", "a=\\000", "a=%00", "a=\0", "__Host-session=x"),
    sent("HTTP_IF_NONE_MATCH", "*", '"x"', 'W/"x", "y"'),
    sent("HTTP_IF_MODIFIED_SINCE", "Thu, 01 Jan 2099 00:00:00 GMT"),
    sent("HTTP_RANGE", "bytes=0-1"),
    sent("HTTP_ACCEPT", "text/html"),
    sent("HTTP_ACCEPT_LANGUAGE", "de"),
    sent("HTTP_X_FORWARDED_HOST", "elsewhere.example"),
    sent("HTTP_X_REQUEST_ID", "chosen-by-the-client"),
    sent("HTTP_TRANSFER_ENCODING", "chunked"),
)
# Read counts begin a new hour, a key's use is noted each minute, a token and a key expire; to the microsecond.
MOMENTS: Final = st.sampled_from([0, 59, 60, 1800, 3599, 3600, 3601, 86_400, -60, -3600]).flatmap(
    lambda seconds: st.sampled_from([-1, -0.000001, 0, 0.000001, 0.5]).map(
        lambda fraction: timedelta(seconds=seconds + fraction)
    )
)
TIMES: Final = MOMENTS | st.timedeltas(timedelta(days=-2), timedelta(days=2))


def stored(model: Any, name: str, *values: Any, also: Any = None) -> st.SearchStrategy[tuple[Any, Changes]]:
    """Strategy for one column of every row of a model. A `timedelta` is added to the start."""
    chosen = st.sampled_from(values) if values else st.nothing()
    return (chosen if also is None else chosen | also).map(lambda value: (model, {name: value}))


class Collected(logging.Handler):
    """Keeps the lines that are written, without their moment and request id."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.setFormatter(LineFormatter("%(levelname)s %(name)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        record.exc_info, record.exc_text = None, None
        record.__dict__.pop("request", None)
        record.created, record.msecs, record.request_id = 0, 0, ""
        self.lines.append(self.format(record))


def environ_of(changes: list[Changes], keys: dict[str, str], own: Changes) -> dict[str, Any]:
    """Build the variables of a request: those that every good one has, its own, and then the changes."""
    environ: dict[str, Any] = {
        "SERVER_NAME": HOST,
        "SERVER_PORT": "443",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.url_scheme": "https",
        "REMOTE_ADDR": "127.0.0.1",
        "SCRIPT_NAME": "",
        "QUERY_STRING": "",
        "HTTP_HOST": HOST,
        "HTTP_AUTHORIZATION": f"Bearer {KEY}",
    }
    for change in (own, *changes):
        environ |= change
    for name, key in keys.items():
        if isinstance(environ["HTTP_AUTHORIZATION"], str):
            environ["HTTP_AUTHORIZATION"] = environ["HTTP_AUTHORIZATION"].replace(name, key)
    return {name: value for name, value in environ.items() if value is not ABSENT}


def outcome(way: Any, environ: dict[str, Any], look: Callable[[], Any]) -> dict[str, Any]:
    """Answer on one way, from the same rows and counts. Return all that can be seen of it, and what `look` sees.

    The body is in the variable `body`, because each way reads its own.
    """
    collected = Collected()
    read_counts.reset_in_process()
    call_counts.reset_in_process()
    logging.disable(logging.NOTSET)
    logging.getLogger().addHandler(collected)
    try:
        with rolled_back():
            answer = way(environ | {"wsgi.input": BytesIO(environ.get("body", b"{}"))})
            seen = list(BotKey.objects.order_by("pk").values_list("last_used_at", "digest"))
            looked = look()
    finally:
        logging.getLogger().removeHandler(collected)
        logging.disable()
    headers = dict(answer.items())
    assert len(headers.pop("X-Request-Id")) == 32
    return {
        "status": answer.status_code,
        "headers": headers,
        "cookies": answer.cookies.output(),
        "body": answer.content if answer.status_code < 400 else answer.content[:40],  # it names the request's id
        "log": collected.lines,
        "keys": [(moment, bytes(digest)) for moment, digest in seen],
        "looked": looked,
        "counts": [dict(read_counts._pending._counts), dict(call_counts._pending._counts)],
        "limits": [dict(rate_limits._memory._counters), dict(rate_limits._shares._shares)],
    }


def same_on_both_ways(
    environ: dict[str, Any],
    answered_fast: list[int],
    monkeypatch: pytest.MonkeyPatch,
    look: Callable[[], Any] = list,
) -> None:
    """Answer on both ways and compare. Note in `answered_fast` if the fast one had an answer of its own."""
    full = outcome(HANDLER.django, environ, look)
    found: list[Any] = []
    real = before_django._answer

    def watched(*given: Any, **how: Any) -> Any:
        found.append(real(*given, **how))
        return found[-1]

    with monkeypatch.context() as patched:
        patched.setattr(before_django, "_answer", watched)
        assert outcome(HANDLER.behind_fast_path, environ, look) == full
    if any(found):
        assert full["status"] in {200, 201, 303, 304}
        answered_fast.append(1)


def at_moment(value: Any, start: datetime) -> Any:
    return start + value if isinstance(value, timedelta) else value
