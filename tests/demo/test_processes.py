"""The demo's servers are processes: one that does not start is told with its log, and none is left behind."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo import processes
from demo.addresses import DemoError
from demo.preparation import inherited_environment
from demo.processes import Server, Servers, run_command, wait_until_it_answers

# Each writes into the pipe that it is given once it is up.
STUBBORN = """
import pathlib, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path(sys.argv[1]).write_text("up")
while True:
    signal.pause()
"""
BROKEN = """
import pathlib, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
class Broken(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_error(503)
with HTTPServer(("127.0.0.1", 0), Broken) as server:
    pathlib.Path(sys.argv[1]).write_text(str(server.server_port))
    server.serve_forever()
"""


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    with Servers(tmp_path) as servers:
        yield servers


def started(servers: Servers, code: str) -> tuple[Server, str]:
    """Start a process; return it, and what it says once it is up."""
    pipe = servers.log_folder / "up"
    os.mkfifo(pipe)
    server = servers.start_worker("sample", ["-c", code, str(pipe)], inherited_environment())
    return server, pipe.read_text()


def ended(servers: Servers, code: str) -> Server:
    """Start a process that ends by itself, and wait for that."""
    server = servers.start_worker("sample", ["-c", code], inherited_environment())
    server.process.wait()
    return server


def test_a_server_that_ends_at_once_is_told_with_the_end_of_its_log(servers: Servers, tmp_path: Path) -> None:
    server = ended(servers, "raise SystemExit('\\n'.join(f'line {number}' for number in range(100)))")
    with pytest.raises(DemoError) as told:
        wait_until_it_answers(server, "http://127.0.0.1:1/", True)
    end = [f"line {number}" for number in range(75, 100)]
    log = f"--- the last lines of {tmp_path}/sample.log ---"
    assert str(told.value).splitlines() == ["The sample did not start.", log, *end]


def test_a_server_that_answers_with_errors_alone_is_told(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "SECONDS_TO_START", 0.3)
    server, port = started(servers, BROKEN)
    with pytest.raises(DemoError, match=rf"^The sample does not answer at http://127.0.0.1:{port}/ after 0.3 s\."):
        wait_until_it_answers(server, f"http://127.0.0.1:{port}/", True)


def test_a_server_that_does_not_stop_when_asked_is_killed(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "SECONDS_TO_STOP", 0.1)
    server, _ = started(servers, STUBBORN)
    servers.stop(server)
    assert (server.process.returncode, servers.running) == (-signal.SIGKILL, [])


def test_a_server_that_has_ended_already_is_no_trouble(servers: Servers) -> None:
    server = ended(servers, "")
    servers.stop(server)
    assert (server.process.returncode, servers.running) == (0, [])


def test_a_set_up_command_that_fails_is_told_with_what_it_printed() -> None:
    with pytest.raises(DemoError) as told:
        run_command(["-c", "print('half done', flush=True); raise SystemExit('no room left')"], inherited_environment())
    assert str(told.value).splitlines()[1:] == ["half done", "no room left"]
    assert str(told.value).startswith("`python -c print('half done'")
