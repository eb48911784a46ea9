"""`DATABASE_URL` names a primary and its standby. The primary is killed and the standby promoted: 503, and never 500.

Nothing is restarted, and what was acknowledged is there, because the standby was synchronous.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any, Final

import pytest
import requests

from tests.installation import Installation
from tests.own_postgresql import OwnPostgreSQL, own_postgresql
from tests.served import installation_at_a_free_port, prepared, serving

THREADS: Final = 4
CHALLENGES: Final = 20

pytestmark = [pytest.mark.full, pytest.mark.timeout(180)]


class Bots:
    """Two of Acme's bots that do not stop asking: one reads a token, the other creates challenges."""

    def __init__(self, installation: Installation, key: str) -> None:
        self._base, self._headers = installation.settings["PUBLIC_BASE_URL"], {"Authorization": f"Bearer {key}"}
        self.statuses: list[int] = []
        self.tokens: set[str] = set()
        self.acknowledged: dict[str, str] = {}

    def call(self, method: str, path: str) -> requests.Response:
        return requests.request(method, f"{self._base}{path}", headers=self._headers, timeout=60)

    def token(self) -> requests.Response:
        return self.call("GET", "/api/v1/conversations/web:0/token")

    def read(self) -> None:
        answer = self.token()
        self.statuses.append(answer.status_code)
        if answer.ok:
            self.tokens.add(answer.json()["access_token"])

    def create(self) -> None:
        chat = f"load:{len(self.statuses)}"
        answer = self.call("POST", f"/api/v1/conversations/{chat}/challenges")
        self.statuses.append(answer.status_code)
        if answer.ok:
            self.acknowledged[chat] = answer.json()["challenge_id"]

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Let both ask until the block ends."""
        stop = Event()

        def ask_on(step: Callable[[], None]) -> None:
            while not stop.is_set():
                step()

        threads = [Thread(target=ask_on, args=(step,)) for step in (self.read, self.create)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def kill(server: OwnPostgreSQL) -> None:
    """SIGKILL to the first process; its children end when they notice. Nothing is written or said to clients."""
    os.kill(int((server.folder / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)


@pytest.fixture
def pair() -> Iterator[tuple[OwnPostgreSQL, OwnPostgreSQL]]:
    """A primary, and a standby without which it confirms no COMMIT."""
    with own_postgresql() as primary:
        standby = OwnPostgreSQL(primary.folder.parent / "standby")
        standby.make_standby_of(primary)
        standby.start()
        primary.set("synchronous_standby_names", "'*'")
        wait_until(lambda: primary.sql("SELECT sync_state FROM pg_stat_replication") == [("sync",)])
        yield primary, standby


def installation_on(folder: Path, *servers: OwnPostgreSQL) -> Installation:
    hosts = ",".join(f"127.0.0.1:{server.port}" for server in servers)
    installation = installation_at_a_free_port(folder, THREADS=str(THREADS))
    installation.database_url = f"postgres://postgres@{hosts}/postgres?target_session_attrs=read-write"
    return installation


@pytest.mark.parametrize("is_primary_first", [True, False], ids=["primary named first", "standby named first"])
def test_a_standby_that_takes_over_is_found_without_a_restart(
    tmp_path: Path, pair: tuple[OwnPostgreSQL, OwnPostgreSQL], is_primary_first: bool
) -> None:
    primary, standby = pair
    installation = installation_on(tmp_path, *(pair if is_primary_first else pair[::-1]))
    made: dict[str, Any] = prepared(installation, ["completed"])
    bots = Bots(installation, made["key"])
    with serving(installation) as printed:
        with bots.asking():
            wait_until(lambda: len(bots.acknowledged) >= CHALLENGES)
            kill(primary)
            wait_until(lambda: 503 in bots.statuses)
            told = bots.token()
            ready = bots.call("GET", "/health/ready")
            standby.promote()
            before = len(bots.acknowledged)
            wait_until(lambda: len(bots.acknowledged) >= before + CHALLENGES)
        read = [bots.token() for _ in range(2 * THREADS)]
        found = {bots.call("GET", f"/api/v1/challenges/{one}").status_code for one in bots.acknowledged.values()}
    assert (told.status_code, told.json()["code"], told.headers["Retry-After"]) == (503, "unavailable", "30")
    assert (ready.status_code, ready.json()["code"]) == (503, "database_unavailable")
    assert set(bots.statuses) == {200, 201, 503}
    assert {(answer.status_code, answer.json()["access_token"]) for answer in read} == {(200, "token-0")}
    assert (bots.tokens, found) == ({"token-0"}, {200})
    assert printed[0].count("Booting worker") == 1
