"""Where log lines go, and what each of them carries."""

import json
import logging
import os
from collections.abc import Iterator
from io import StringIO
from typing import Any

import pytest
import time_machine
from django.test import Client
from hypothesis import given, settings
from hypothesis import strategies as st
from pythonjsonlogger.json import JsonFormatter

from infrastructure.logs import (
    JSON_LOGGING,
    LineFormatter,
    RequestIdFilter,
    collect_no_more_than_is_written,
    log_stream,
    without_secrets,
)
from tests.cast import Bot, Browser, code_on
from tests.fake_authorization_server import FakeAuthorizationServer


@pytest.mark.parametrize(
    ("arguments", "stream"),
    [
        (["/srv/app/manage.py", "create_bot_key", "acme"], "ext://sys.stderr"),
        (["manage.py", "apply_config", "-"], "ext://sys.stderr"),
        (["manage.py"], "ext://sys.stderr"),
        (["manage.py", "worker"], "ext://sys.stdout"),
        (["manage.py", "runserver"], "ext://sys.stdout"),
        (["/srv/app/.venv/bin/gunicorn", "-c", "delegation_site/gunicorn.py"], "ext://sys.stdout"),
    ],
)
def test_a_command_whose_output_is_its_result_logs_to_standard_error(arguments: list[str], stream: str) -> None:
    """The bug: the audit line of a new bot key stood beside the key."""
    assert log_stream(arguments) == stream


class Collected(logging.Handler):
    """Keeps what is collected on standard output: each line as the filter leaves it."""

    def __init__(self) -> None:
        super().__init__()
        self.addFilter(RequestIdFilter())
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def collected() -> Iterator[list[str]]:
    handler = Collected()
    logging.getLogger().addHandler(handler)
    yield handler.lines
    logging.getLogger().removeHandler(handler)


@pytest.mark.django_db(transaction=True)
def test_no_line_holds_a_live_link_or_receipt(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, collected: list[str]
) -> None:
    """H1. The bug: Django wrote the path of each 403, 405, 429 and 500, and with it a link that still worked."""
    link = acme_bot.challenge()["url"].rpartition("/")[2]
    for path in (f"/c/{link}", f"/c/{link}/cancel", f"/r/{link}/end", f"/callback/{link}"):
        assert ada.client.post(path, secure=True).status_code in {303, 403, 405}
    assert {line for line in collected if link in line} == set()
    assert any(line.endswith("/c/.../cancel") for line in collected)
    assert code_on(ada.sign_in(f"https://delegation.test/c/{link}", acme_login))


TOKEN = "AbCdEfGhIjKlMnOpQrStUvWxY01"
HOLDING_A_TOKEN = [
    f"/c/{TOKEN}", f"//c/{TOKEN}", f"/c//{TOKEN}", f"/C/{TOKEN}", f"/en/c/{TOKEN}", f"/x/y/r/{TOKEN}/end",
    f"/R/{TOKEN}", f"/c/c/{TOKEN}", f"/callback/{TOKEN}", f"/CallBack/{TOKEN}", f"/%63/{TOKEN}", f"/%43/{TOKEN}",
    f"/%2563/{TOKEN}", f"/c%61llback/{TOKEN}",
    f"%2Fc%2F{TOKEN}", f"/%2fC%2f{TOKEN}", f"%252Fc%252F{TOKEN}", f"/c/./{TOKEN}", f"/c/../{TOKEN}", f"/c/ {TOKEN}",
    f"/c/%20{TOKEN}", f"/c/x {TOKEN}", f"/c\\{TOKEN}",
    f"/c/\u200b{TOKEN}", f"/c/{TOKEN}\u200b", f"/c/{TOKEN}.",
    f"/c;x/{TOKEN}",
    f"/{TOKEN}", f"/x?token={TOKEN}", f"/x?{TOKEN}", f"/x%3Ftoken%3D{TOKEN}", f"/callback/x?code={TOKEN}&state={TOKEN}",
    f"https://delegation.test/c/{TOKEN}", f"'path': 'c/{TOKEN}'", f"GET /c/{TOKEN} HTTP/1.1", f"b'GET //c/{TOKEN}'",
    f"/c./{TOKEN}x", f"/c,/{TOKEN}_", f"/api/%2e%2e/c/{TOKEN}", f"/api/%2E./c/{TOKEN}",
    f"/api/../c/{TOKEN}", f"/apis/c/{TOKEN}", f"/api/v1/x?token={TOKEN}",
]  # fmt: skip


@pytest.mark.parametrize("path", HOLDING_A_TOKEN)
def test_no_writing_of_a_path_keeps_its_token(path: str, collected: list[str]) -> None:
    """H1. The bug: //c/TOKEN, /C/TOKEN and /en/c/TOKEN stood in clear. In arguments, in the text, in an exception."""
    logger = logging.getLogger("consumer_delegation.test")
    logger.warning("Not Found: %s", path)
    logger.warning(f"Not Found: {path}")  # noqa: G004  the writing under test
    try:
        raise LookupError(path)
    except LookupError:
        logger.exception("a failure")
    assert len(collected) == 3
    assert "LookupError" in collected[2]
    assert [line for line in collected if TOKEN in line] == []


BROKEN = [f"/c/{TOKEN[:3]}{between}{TOKEN[3:]}" for between in (*" \t\n\"'<>/?#", "\r\n", " '", "%0A", "\u00a0", "' '")]


@pytest.mark.parametrize("path", [*BROKEN, f"/c/x y {TOKEN}", f"c/{TOKEN[:9]} {TOKEN[9:18]} {TOKEN[18:]}"])
def test_no_token_that_is_broken_by_something_keeps_its_second_half(path: str, collected: list[str]) -> None:
    """H1. The bug: behind a space or quote the path seemed to be over, and 24 of 27 characters stood in clear."""
    logger = logging.getLogger("consumer_delegation.test")
    logger.warning("Not Found: %s", path)
    logger.warning(f"Not Found: {path} HTTP/1.1")  # noqa: G004  the writing under test
    logger.warning("Not Found: %(path)s", {"path": path})
    logger.warning("It was", exc_info=LookupError(path))
    logger.warning(LookupError(path))
    halves = [line for line in collected if TOKEN[18:] in line or TOKEN[9:18] in line]
    assert (len(collected), halves) == (5, [])


@pytest.mark.parametrize("path", [f"/c/{TOKEN}", f"/c/{TOKEN[:3]} {TOKEN[3:]}", f"/callback/x?code={TOKEN}"])
def test_no_extra_field_keeps_a_token(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """H1. The bug: only the message was read, and `extra` was written as it came."""
    written = StringIO()
    handler = logging.StreamHandler(written)
    handler.addFilter(RequestIdFilter())
    handler.setFormatter(JsonFormatter("%(message)s"))
    logger = logging.getLogger("consumer_delegation.test")
    monkeypatch.setattr(logger, "handlers", [handler])
    fields = {"path": path, "in_list": [path], "nested": {"a": ({path: path},)}, "error": LookupError(path)}
    logger.warning("x", extra=fields | {"raw": path.encode(), "seconds": 3, "challenge": "7b2f-aA1"})
    logger.warning({"message": "a mapping", "path": path})
    assert TOKEN[3:] not in written.getvalue()
    assert '"seconds": 3, "challenge": "7b2f-aA1"' in written.getvalue()


PLAIN = st.none() | st.booleans() | st.integers() | st.text(max_size=20)
FIELDS = st.dictionaries(
    st.sampled_from(["purpose", "_hidden", "actor", "levelno2", "\u00e9", "taskName"]),
    PLAIN | st.floats() | st.lists(PLAIN, max_size=2) | st.datetimes() | st.uuids() | st.binary(max_size=5),
)
MESSAGES = st.text(max_size=40) | st.dictionaries(st.text(max_size=5), PLAIN, max_size=3)


@settings(derandomize=True, max_examples=500)
@given(message=MESSAGES, fields=FIELDS, created=st.floats(0, 2**32), fails=st.booleans())
def test_a_line_is_the_library_s_to_the_byte(message: Any, fields: dict[str, Any], created: float, fails: bool) -> None:
    """Also where half of a surrogate pair, a number beyond 64 bits, a list or an exception makes msgspec unfit."""
    format_ = JSON_LOGGING["formatters"]["json"]["fmt"]
    record = logging.makeLogRecord({"msg": message, "name": "x", "request_id": "1", "created": created, **fields})
    record.msecs = int((created - int(created)) * 1000) + 0.0
    record.exc_text = "Traceback" if fails else None
    copies = [logging.makeLogRecord(vars(record)) for _ in range(2)]
    assert LineFormatter(format_).format(copies[0]) == JsonFormatter(format_).format(copies[1])


def test_a_server_process_writes_the_same_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """It collects no thread, process name or place in the code, because no line has them."""
    written = StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(LineFormatter(JSON_LOGGING["formatters"]["json"]["fmt"]))
    logger = logging.getLogger("consumer_delegation.test")
    monkeypatch.setattr(logger, "handlers", [handler])
    for name in ("logThreads", "logMultiprocessing", "_srcfile"):
        monkeypatch.setattr(f"logging.{name}", getattr(logging, name))
    with time_machine.travel(0, tick=False):
        logger.warning("x", extra={"a": 1})
        collect_no_more_than_is_written()
        logger.warning("x", extra={"a": 1})
    before, after = written.getvalue().splitlines()
    assert before == after
    assert logging.makeLogRecord({}).thread is None


def test_lines_of_one_second_and_of_the_next_have_their_moments() -> None:
    formatter = LineFormatter(JSON_LOGGING["formatters"]["json"]["fmt"])
    records = [logging.makeLogRecord({"created": 1.25e9 + step, "msecs": step * 1000}) for step in (0, 0.5, 1)]
    found = [json.loads(formatter.format(record))["asctime"] for record in records]
    assert found == [formatter.formatTime(record) for record in records]


def test_what_follows_a_hidden_segment_can_be_read() -> None:
    text = "GET /c/AbCdEfGhIjKlMnOpQrStUvWxY01/cancel HTTP/1.1 was refused after 12 seconds\n\nDuring it"
    assert without_secrets(text) == text.replace(TOKEN, "...")


@pytest.mark.parametrize(
    "text",
    [
        "Not Found: /api/v1/conversations/c/challenges", "https://delegation.test/api/v1/conversations/callback/token",
        f"Conflict: /api/v1/conversations/r/{TOKEN}", "a sign-in failed", "and/or", "Not Found: /etc/x", "/cc/x",
        'File "/srv/app/delegation_site/logs.py", line 55, in inner', "What?",
    ],
)  # fmt: skip
def test_other_lines_stay_as_they_are(text: str) -> None:
    """G6: a conversation may be named `c`, and its calls can be followed."""
    assert without_secrets(text) == text


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "text", ["/c/" * 3_000, "/" * 8_000, "/c/" + "/ " * 4_000, "%25" * 3_000, "c%2f" * 2_000, "/c/" + "./" * 4_000]
)
def test_a_long_path_is_read_once(text: str) -> None:
    """The bug of a first version: spaces that matched in two ways took for ever."""
    assert without_secrets(text)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("path", "method", "level"),
    [
        ("/nowhere", "get", "INFO"),
        ("/api/v1/challenges/x", "get", "INFO"),
        ("/api/docs", "post", "INFO"),
        (f"/c/{TOKEN}", "post", "WARNING"),
    ],
)
def test_an_ordinary_answer_is_no_warning(
    path: str, method: str, level: str, collected: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The bug: 44 of 49 warnings of a normal run were 404, 409 and the like. What CSRF refused may be a wrong proxy."""
    client = Client(enforce_csrf_checks=True, SERVER_NAME="delegation.test")
    assert getattr(client, method)(path, secure=True).status_code in range(400, 500)
    assert [record.levelname for record in caplog.records] == [level]


@pytest.mark.django_db
def test_a_host_that_is_not_ours_is_a_warning_without_a_traceback(
    collected: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """B16. The bug: an ERROR that any scanner could cause."""
    assert Client(SERVER_NAME="evil.example").get("/api/v1/challenges/x", secure=True).status_code == 400
    assert [(record.levelname, record.exc_info) for record in caplog.records] == [("WARNING", None)]


@pytest.mark.django_db
def test_a_fault_of_ours_stays_an_error(
    collected: list[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """H4: with its traceback, as text."""
    monkeypatch.setattr("delegation_site.health.connection.cursor", lambda: os.environ["PLANTED"])
    answered = Client(SERVER_NAME="delegation.test", raise_request_exception=False).get("/health/ready", secure=True)
    assert answered.status_code == 500
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "KeyError" in collected[0]
