"""`manage.py worker` as a process, on a PostgreSQL of its own that stops, takes no writes, or has another clock.

It says an outage in one line and its end in another, loses nothing, and does nothing twice that it could note.
"""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any, Final

import pytest
from django.db import OperationalError, connection

from conversations.outbox import worker
from tests.demo.machines import free_ports
from tests.installation import ROOT, Installation
from tests.own_postgresql import OwnPostgreSQL, own_postgresql
from tests.served import KEY, prepared

pytestmark = pytest.mark.timeout(180)

AWAY: Final = "the database is unavailable: the worker waits"
BACK: Final = "the database is available again"
MAKE_ENDPOINT: Final = """
from brands.models import Brand, WebhookEndpoint
from brands.webhooks import create_webhook_endpoint
create_webhook_endpoint(WebhookEndpoint(brand=Brand.objects.get(), url="{url}/hooks"))
"""
SEND: Final = """
from django.utils import timezone
from brands.models import WebhookEndpoint
from conversations.flow.events import publish_test
publish_test(WebhookEndpoint.objects.get(), timezone.now())
"""
LIVE: Final = "from conversations.models import AccessToken as T; print(T.objects.filter(ended_at=None).count())"
STATE: Final = """
from conversations.models import WebhookDelivery as D
print(D.objects.waiting().count(), D.objects.exclude(lease_until=None).count())
"""
# This process's clock alone, for `datetime` and `time`: that of the database is right.
WITH_CLOCK: Final = """
import sys, time_machine, datetime
time_machine.travel(datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds={seconds})).start()
from django.core.management import execute_from_command_line
execute_from_command_line(["manage.py", *sys.argv[1:]])
"""


@dataclass
class Hooks:
    """A webhook endpoint that may do something before it answers 204."""

    received: list[str] = field(default_factory=list)
    before_answering: Callable[[], object] = lambda: None


@dataclass
class Site:
    database: OwnPostgreSQL
    installation: Installation
    hooks: Hooks
    log: Path
    process: "subprocess.Popen[bytes] | None" = None

    def start_worker(self, *program: str) -> None:
        command = [sys.executable, *(program or ("manage.py",)), "worker"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=self.installation.environment, stdout=log, stderr=log
            )

    def stop_worker(self) -> int:
        """Ask it to stop; return its exit status."""
        assert self.process
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=15)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def said(self) -> list[str]:
        return [line["message"] for line in self.lines() if line["name"] == "consumer_delegation.worker"]

    def send(self) -> None:
        self.installation.python(SEND)


def installed(folder: Path, database: OwnPostgreSQL) -> Installation:
    made = Installation(folder, KEY, {"PUBLIC_BASE_URL": "https://delegation.test", "ALLOW_LOCAL_ENDPOINTS": "1"})
    made.database_url = database.url
    return made


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture(scope="module")
def hooks_port() -> int:
    return free_ports(1)[0]


@pytest.fixture
def hooks(hooks_port: int) -> Iterator[Hooks]:
    made = Hooks()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            made.received.append(self.headers["webhook-id"])
            made.before_answering()
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", hooks_port), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield made
        server.shutdown()


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, hooks_port: int) -> Iterator[OwnPostgreSQL]:
    """Prepare a server with three chats and an endpoint, for each test to copy."""
    with own_postgresql() as database:
        installation = installed(tmp_path_factory.mktemp("prepared"), database)
        prepared(installation, ["completed"] * 3)
        installation.python(MAKE_ENDPOINT.format(url=f"http://127.0.0.1:{hooks_port}"))
        database.stop()
        yield database


@pytest.fixture
def site(tmp_path: Path, stopped: OwnPostgreSQL, hooks: Hooks) -> Iterator[Site]:
    with own_postgresql(stopped) as database:
        made = Site(database, installed(tmp_path, database), hooks, tmp_path / "worker.log")
        yield made
        if made.process:
            made.process.kill()
            made.process.wait()


def test_an_outage_is_one_line_and_its_end_another(site: Site) -> None:
    """The bug: wait() on finished futures returned at once: 5,783 tracebacks and 27 MB of log in ten seconds."""
    site.start_worker()
    site.send()
    wait_until(lambda: len(site.hooks.received) == 1)
    site.database.stop()
    wait_until(lambda: AWAY in site.said())
    time.sleep(5)
    site.database.start()
    site.send()
    wait_until(lambda: len(site.hooks.received) == 2)
    wait_until(lambda: BACK in site.said())
    assert site.said() == [AWAY, BACK]
    assert [line["name"] for line in site.lines()] == ["consumer_delegation.start", *["consumer_delegation.worker"] * 2]
    assert site.stop_worker() == 0


def test_it_stops_at_once_while_the_database_is_away(site: Site) -> None:
    site.database.stop()
    site.start_worker()
    wait_until(lambda: AWAY in site.said())
    time.sleep(3)
    began = time.monotonic()
    assert site.stop_worker() == 0
    assert time.monotonic() - began < 5
    assert site.said() == [AWAY]


def test_a_database_that_takes_no_writes_is_an_outage(site: Site) -> None:
    """The bug: 25006 is Django's InternalError, on a connection that was kept for good."""
    site.start_worker()
    site.send()
    wait_until(lambda: len(site.hooks.received) == 1)
    wait_until(lambda: site.installation.python(STATE) == "0 0")
    site.database.set("default_transaction_read_only", "on")
    with site.database.connected() as cursor:
        cursor.execute("UPDATE conversations_webhookdelivery SET delivered_at = NULL, next_attempt_at = now()")
    wait_until(lambda: AWAY in site.said())
    time.sleep(3)
    site.database.set("default_transaction_read_only", "off")
    wait_until(lambda: BACK in site.said())
    assert site.said() == [AWAY, BACK]


def test_what_was_done_is_noted_when_the_database_is_back_and_not_done_again(site: Site) -> None:
    """The bug: the row kept its endpoint's place for a minute, and then the event went out a second time."""
    is_down = Event()

    def stop_database() -> None:
        site.hooks.before_answering = lambda: None
        site.database.stop()
        is_down.set()

    site.hooks.before_answering = stop_database
    site.send()
    site.start_worker()
    wait_until(lambda: AWAY in site.said())
    # The worker may say it while the server still shuts down. `pg_ctl stop` would take one that is started now for the
    # old one and wait for it, the endpoint would not answer in time, and its event would rightly go out again.
    assert is_down.wait(60)
    site.database.start()
    wait_until(lambda: site.installation.python(STATE) == "0 0")
    site.send()
    wait_until(lambda: len(site.hooks.received) == 2)
    assert len(set(site.hooks.received)) == 2


@pytest.mark.parametrize("seconds", [3600, -3600, 20])
def test_a_worker_whose_clock_is_wrong_ends_nothing_and_delivers(site: Site, seconds: int) -> None:
    """K6. The bug: one that was an hour ahead ended every live token. One behind had nothing due for an hour."""
    site.start_worker("-c", WITH_CLOCK.format(seconds=seconds))
    site.send()
    wait_until(lambda: len(site.hooks.received) == 1)
    wait_until(lambda: site.installation.python(STATE) == "0 0")
    (line,) = [line for line in site.lines() if line["name"] == "consumer_delegation.worker"]
    assert (line["levelname"], line["message"]) == ("ERROR", "the clock is wrong: no sweep")
    assert re.search(r"clock is [0-9,]+\.[0-9] s", line["error"])
    assert ("ahead of" if seconds > 0 else "behind") in line["error"]
    assert site.installation.python(LIVE) == "3"


@pytest.mark.parametrize("seconds", [3600, 24 * 3600 * 40, -3600])
@pytest.mark.parametrize("command", [("prune",), ("worker", "--once")])
def test_no_command_ends_or_erases_by_a_wrong_clock(site: Site, command: tuple[str, ...], seconds: int) -> None:
    """K6: and cron sees that by the exit status, and by one line."""
    result = site.installation.run("-c", WITH_CLOCK.format(seconds=seconds), *command)
    assert result.returncode == 1
    assert "this machine's clock is" in result.stderr
    assert "Traceback" not in result.stderr
    assert site.installation.python(LIVE) == "3"


@pytest.mark.parametrize("command", [("prune",), ("worker", "--once")])
def test_a_command_without_its_database_is_one_line_and_an_exit_status(site: Site, command: tuple[str, ...]) -> None:
    site.database.stop()
    result = site.installation.run("manage.py", *command)
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert "The database cannot be used" in result.stderr


@pytest.mark.django_db(transaction=True)
def test_nothing_is_taken_up_again_where_the_database_takes_no_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bug: where nothing was due, nothing was written either, so a standby looked like the end of the outage."""
    taken: list[str] = []

    def take(queue: Any) -> list[Any]:
        taken.append(queue.name)
        return []

    monkeypatch.setattr(worker._Queue, "take", take)
    monkeypatch.setattr(connection, "close", lambda: None)  # a new one would be as well as ever
    loop = worker._Worker(Event())
    loop._database.failed(OperationalError("planted"))
    with ThreadPoolExecutor(1) as threads, read_only_session():
        loop.iterate(threads)
    assert (taken, loop._database.is_failing) == ([], True)


@contextmanager
def read_only_session() -> Iterator[None]:
    with connection.cursor() as cursor:
        cursor.execute("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
        yield
        cursor.execute("SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE")
