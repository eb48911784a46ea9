"""A line that is written without a log record is the line that the record would have given."""

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import pytest
import time_machine
from hypothesis import given, settings
from hypothesis import strategies as st

from infrastructure import logs
from infrastructure.log_stream import PatientHandler
from infrastructure.logs import JSON_LOGGING, LineFormatter, RequestIdFilter
from tests.site.test_logs import FIELDS, PLAIN, TOKEN

NOON = 1_800_014_400.25
# What our lines have, and what the filter looks at or changes.
NAMES = st.sampled_from(
    ["actor", "purpose", "operation", "milliseconds", "request_id", "request", "_hidden", "status_code"]
)
MESSAGES = st.sampled_from(["token.read", "api.call", f"/c/{TOKEN}", "100%"])
VALUES = PLAIN | st.sampled_from([f"/c/{TOKEN}", "a=b", "https://x.example/?code=1", "é", "\x7f", 2**70])


def writing_to(stream: TextIO) -> logging.Logger:
    """Return a logger with a handler like that of a server process."""
    handler = PatientHandler(stream)
    handler.setFormatter(LineFormatter(JSON_LOGGING["formatters"]["json"]["fmt"]))
    handler.addFilter(RequestIdFilter())
    logger = logging.Logger("tests.lines", logging.INFO)  # noqa: LOG001  # pytest adds its handlers to known ones
    logger.addHandler(handler)
    return logger


@pytest.fixture(scope="module")
def destination(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[logging.Logger, Path]]:
    path = tmp_path_factory.mktemp("log") / "lines"
    with path.open("w") as file:
        yield writing_to(file), path


def lines_of(path: Path, write: Callable[[], None]) -> str:
    before = path.stat().st_size
    logs.begin_request("0123456789abcdef")
    with time_machine.travel(NOON, tick=False):
        write()
    return path.read_text()[before:]


@settings(derandomize=True, max_examples=500, deadline=None)
@given(
    message=MESSAGES,
    fields=st.dictionaries(NAMES, VALUES) | FIELDS,
)
def test_it_is_the_same_line(destination: Any, message: str, fields: dict[str, Any]) -> None:
    """H1: also where a filter removes secrets, hides a field or changes it."""
    logger, path = destination
    usual = lines_of(path, lambda: logger.info(message, extra=dict(fields)))
    assert lines_of(path, lambda: logs.info(logger, message, dict(fields))) == usual
    assert TOKEN not in usual


def test_a_plain_line_has_no_record(destination: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above would pass without the faster way."""
    logger, path = destination
    monkeypatch.setattr(logger, "handle", None)
    assert '"actor": "bot:1"' in lines_of(path, lambda: logs.info(logger, "token.read", {"actor": "bot:1"}))
    with pytest.raises(TypeError):
        logs.info(logger, "token.read", {"actor": "/c/1"})


class Seen(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def look(self, record: logging.LogRecord) -> bool:
        self.emit(record)
        return True


def another_handler(logger: logging.Logger, seen: Seen, _: pytest.MonkeyPatch) -> None:
    logger.handlers.append(seen)


def a_handler_of_the_root(logger: logging.Logger, seen: Seen, patched: pytest.MonkeyPatch) -> None:
    root = logging.RootLogger(logging.INFO)
    root.addHandler(seen)
    patched.setattr(logger, "parent", root)


def a_filter_of_the_logger(logger: logging.Logger, seen: Seen, _: pytest.MonkeyPatch) -> None:
    logger.filters.append(seen.look)


def a_filter_of_the_handler(logger: logging.Logger, seen: Seen, _: pytest.MonkeyPatch) -> None:
    logger.handlers[0].filters.append(seen.look)


def a_factory_of_records(_: logging.Logger, seen: Seen, patched: pytest.MonkeyPatch) -> None:
    def make(*args: Any, **options: Any) -> logging.LogRecord:
        record = logging.LogRecord(*args, **options)
        seen.emit(record)
        return record

    patched.setattr("logging._logRecordFactory", make)


@pytest.mark.parametrize(
    "add",
    [another_handler, a_handler_of_the_root, a_filter_of_the_logger, a_filter_of_the_handler, a_factory_of_records],
)
def test_whoever_wants_to_see_records_sees_them(destination: Any, monkeypatch: pytest.MonkeyPatch, add: Any) -> None:
    """Such as the handler of a tracing library, and a test's."""
    logger, path = destination
    ours = logger.handlers[0]
    monkeypatch.setattr(logger, "handlers", [ours])
    monkeypatch.setattr(logger, "filters", [])
    monkeypatch.setattr(ours, "filters", list(ours.filters))
    seen = Seen()
    add(logger, seen, monkeypatch)
    assert lines_of(path, lambda: logs.info(logger, "token.read", {"actor": "bot:1"})).count("bot:1") == 1
    assert [(record.msg, vars(record)["actor"]) for record in seen.records] == [("token.read", "bot:1")]


@pytest.mark.parametrize("off", ["level", "handler", "disabled", "everything"])
def test_what_is_switched_off_is_not_written(destination: Any, monkeypatch: pytest.MonkeyPatch, off: str) -> None:
    logger, path = destination
    if off == "everything":
        monkeypatch.setattr(logger, "manager", logging.Manager(logging.RootLogger(logging.INFO)))
        monkeypatch.setattr(logger.manager, "disable", logging.INFO)
    else:
        where, name = (logger.handlers[0], "level") if off == "handler" else (logger, off)
        monkeypatch.setattr(where, name, logging.WARNING if name == "level" else True)
    logger._cache.clear()
    written = lines_of(path, lambda: logs.info(logger, "token.read", {}))
    logger._cache.clear()
    assert written == ""


def test_a_stream_that_fails_is_reported_as_ever(capfd: pytest.CaptureFixture[str]) -> None:
    """The service goes on, and standard error says what happened."""
    reading, writing = os.pipe()
    logger = writing_to(os.fdopen(writing, "w", closefd=False))
    os.close(reading)
    logs.info(logger, "token.read", {"actor": "bot:1"})
    os.close(writing)
    assert "BrokenPipeError" in capfd.readouterr().err
