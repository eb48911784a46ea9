"""A log that nobody reads stops no process."""

import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from io import StringIO
from multiprocessing import get_context
from pathlib import Path
from unittest.mock import Mock

import pytest

from infrastructure import log_stream
from infrastructure.log_stream import DROPPED, PatientHandler, PatientStream
from infrastructure.logs import LineFormatter

LINE = "a line " * 100


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int]]:
    """The reading and the writing end of a pipe that is full after 4 KB; nobody waits a second for its reader."""
    monkeypatch.setattr(log_stream, "PATIENCE_SECONDS", 0.01)
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    yield reading, writing
    os.close(reading)
    os.close(writing)


@pytest.fixture
def log(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> logging.Logger:
    """A logger to the pipe, and the only handler of the product's own logger."""
    handler = PatientHandler(os.fdopen(pipe[1], "w", closefd=False))
    handler.setFormatter(LineFormatter("%(levelname)s %(message)s"))
    for name in ("consumer_delegation.test", "consumer_delegation.logs"):
        logger = logging.getLogger(name)
        monkeypatch.setattr(logger, "handlers", [handler])
        monkeypatch.setattr(logger, "propagate", False)
    return logging.getLogger("consumer_delegation.test")


def lines_in(reading: int) -> list[str]:
    return [json.loads(line)["message"] for line in os.read(reading, 1 << 20).decode().splitlines()]


def test_lines_that_nobody_reads_are_dropped_and_counted(log: logging.Logger, pipe: tuple[int, int]) -> None:
    """The bug: the thread that wrote to the full pipe waited for its reader, and each other thread for that one."""
    for _ in range(500):
        log.error(LINE)
    written = lines_in(pipe[0])
    log.error("again")
    again, told = os.read(pipe[0], 1 << 20).decode().splitlines()
    assert set(written) == {LINE}
    assert (json.loads(again)["message"], json.loads(told)["message"]) == ("again", DROPPED)
    assert (json.loads(told)["lines"], json.loads(told)["levelname"]) == (500 - len(written), "ERROR")


def test_a_reader_that_reads_gets_every_line_whole(log: logging.Logger, pipe: tuple[int, int]) -> None:
    longest = "x" * 20_000
    log.error(longest)
    log.error("the next")
    assert lines_in(pipe[0]) == [longest, "the next"]


def test_the_line_after_one_that_was_cut_stands_alone(log: logging.Logger, pipe: tuple[int, int]) -> None:
    log.error("x" * 200_000)
    cut = os.read(pipe[0], 1 << 20)
    log.error("the next")
    assert (b"\n" in cut, json.loads(os.read(pipe[0], 1 << 20).splitlines()[1])["message"]) == (False, "the next")


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_nobody_waits_if_another_process_takes_the_room_first(kind: str, pipe: tuple[int, int]) -> None:
    """The bug: each process asked for room, and all wrote into the same room. All but one waited in the write."""
    reading, writing = socket.socketpair() if kind == "socket" else (None, None)
    stream = PatientStream(writing.fileno() if writing else pipe[1])
    stream._room = Mock(poll=Mock(return_value=[1]))
    for _ in range(2000):
        stream.write(LINE)
    assert stream._dropped > 0
    for end in (reading, writing):
        if end:
            end.close()


def test_a_stream_that_is_no_file_is_written_to_as_it_is() -> None:
    written = StringIO()
    log_stream.patient(written).write("a line\n")
    assert written.getvalue() == "a line\n"
    assert isinstance(log_stream.patient(sys.__stdout__ or sys.stdout), PatientStream)


def test_the_count_is_not_forgotten_if_nobody_reads_the_line_that_says_it(
    log: logging.Logger, pipe: tuple[int, int]
) -> None:
    """The bug: there was room for one line, not for the count after it. The count began again at one."""
    stream = log.handlers[0].stream  # type: ignore[attr-defined]
    for _ in range(500):
        log.error("x" * 3000)
    dropped = stream._dropped
    os.read(pipe[0], 4096)
    log.error("y" * 3900)
    assert (dropped > 0, stream._dropped) == (True, dropped)
    os.read(pipe[0], 1 << 20)
    log.error("again")
    assert json.loads(os.read(pipe[0], 1 << 20).decode().splitlines()[-1])["lines"] == dropped


def test_a_forked_process_does_not_count_what_its_parent_has_dropped(
    log: logging.Logger, pipe: tuple[int, int]
) -> None:
    """The bug: each web process said again how many lines gunicorn's first process had dropped."""
    for _ in range(500):
        log.error(LINE)
    os.read(pipe[0], 1 << 20)
    child = get_context("fork").Process(target=log.error, args=("of the child",))
    child.start()
    child.join()
    assert lines_in(pipe[0]) == ["of the child"]


def write_long_lines(path: Path, letter: str) -> None:
    with path.open("a") as file:
        stream = PatientStream(file.fileno())
        for _ in range(300):
            stream.write(letter * 20_000 + "\n")


def test_long_lines_of_several_processes_stay_whole_in_a_file(tmp_path: Path) -> None:
    """The bug: they were written in parts, and a traceback of one process had lines of another one in it."""
    path = tmp_path / "log"
    writers = [get_context("fork").Process(target=write_long_lines, args=(path, letter)) for letter in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert set(path.read_text().splitlines()) == {"a" * 20_000, "b" * 20_000}


def test_the_last_lines_of_a_process_are_written() -> None:
    """The bug: the pipe was closed at the interpreter's exit, before the lines of other exit functions."""
    code = (
        "import atexit, logging, sys; atexit.register(lambda: logging.error('the last'))\n"
        "from infrastructure.log_stream import PatientHandler\n"
        "logging.basicConfig(handlers=[PatientHandler(sys.stdout)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("ERROR:root:the last\n", "")
