"""gunicorn on a PostgreSQL of its own that stops, crashes, becomes a standby, is full or locked: 503, and never 500.

Then it comes back, and the next calls work: no process is restarted, and nothing that was acknowledged is lost.
"""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any, Final
from uuid import uuid4

import pytest
import requests

from tests.installation import Installation
from tests.own_postgresql import OwnPostgreSQL, own_postgresql, pgbouncer
from tests.served import installation_at_a_free_port, prepared, serving

THREADS: Final = 4
# Longer than a lock is waited for, shorter than anybody waits who is stuck.
SOON: Final = 60
ROLE: Final = "delegation"
PASSWORD: Final = "the operators own passphrase"
_SUPERUSER: Final = f"""
from django.contrib.auth import get_user_model
get_user_model().objects.create_superuser("operator", "operator@acme.example", "{PASSWORD}")
"""

pytestmark = pytest.mark.timeout(180)


@dataclass
class Site:
    """The product as it is served, on a database that the tests do harm to."""

    database: OwnPostgreSQL
    installation: Installation
    made: dict[str, Any] = field(default_factory=dict)

    @property
    def base(self) -> str:
        return self.installation.settings["PUBLIC_BASE_URL"]

    def call(self, method: str, path: str, **body: Any) -> requests.Response:
        headers = {"Authorization": f"Bearer {self.made['key']}"}
        json = body or None
        return requests.request(method, f"{self.base}{path}", headers=headers, json=json, timeout=60)

    def challenge(self, chat: str) -> requests.Response:
        return self.call("POST", f"/api/v1/conversations/{chat}/challenges")

    def answers(self) -> dict[str, requests.Response]:
        """Ask for one of each kind: a bot's read and write, a person's page, a form that is sent, the admin, probes."""
        return {
            "token": self.call("GET", "/api/v1/conversations/web:0/token"),
            "challenge": self.challenge("web:1"),
            "page": self.call("GET", f"/c/{uuid4().hex}"),
            "admin": self.call("GET", "/admin/account/login/"),
            "live": self.call("GET", "/health/live"),
            "ready": self.call("GET", "/health/ready"),
        }

    def statuses(self) -> dict[str, int]:
        return {name: answer.status_code for name, answer in self.answers().items()}


class AdminOverHttp:
    """An admin's browser; it keeps Secure cookies on plain http, as browsers do on loopback."""

    def __init__(self, base: str) -> None:
        self.base, self.cookies = base, dict[str, str]()

    def post(self, path: str, **fields: str) -> requests.Response:
        page = self._send("GET", path)
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
        assert token, page.text
        return self._send("POST", path, {"csrfmiddlewaretoken": token[1]} | fields)

    def _send(self, method: str, path: str, data: dict[str, str] | None = None) -> requests.Response:
        cookies = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        headers = {"Cookie": cookies, "Referer": self.base + path}
        answer = requests.request(
            method, self.base + path, data=data, headers=headers, timeout=60, allow_redirects=False
        )
        self.cookies |= {cookie.name: str(cookie.value) for cookie in answer.cookies}
        return answer


WELL: Final = {"token": 200, "challenge": 200, "page": 404, "admin": 200, "live": 200, "ready": 200}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    with own_postgresql() as database:
        # Not the superuser, which is let in where others are not.
        database.sql(f"CREATE ROLE {ROLE} LOGIN; GRANT ALL ON SCHEMA public TO {ROLE}")
        installation = installation_at_a_free_port(folder, THREADS=str(THREADS))
        installation.database_url = database.url.replace("postgres@", f"{ROLE}@")
        made = Site(database, installation, prepared(installation, ["completed", "issued"]))
        with serving(installation) as printed:
            yield made
        Path(folder / "printed").write_text(printed[0], encoding="utf8")


@pytest.fixture(autouse=True)
def well(site: Site) -> Iterator[None]:
    """Begin and end with everything working, each thread's kept connection included."""
    for _ in range(THREADS):
        assert site.statuses() == WELL
    yield
    assert site.statuses() == WELL


def is_told_to_come_back(answers: dict[str, requests.Response], code: str) -> None:
    """Check that bots and people were told so, each in their way, and which reason the probe names."""
    assert {name: answer.status_code for name, answer in answers.items() if name in {"live", "ready"}} == {
        "live": 200,
        "ready": 503,
    }
    assert answers["ready"].json()["code"] == code
    told = answers["challenge"]
    assert (told.status_code, told.headers["Retry-After"]) == (503, "30")
    assert (told.headers["Content-Type"], told.json()["code"]) == ("application/problem+json", "unavailable")
    page = answers["page"]
    assert (page.status_code, page.headers["Retry-After"]) == (503, "30")
    assert "We cannot answer right now" in page.text
    assert answers["token"].status_code in {200, 503}


def test_read_only_is_503_on_every_kept_connection_and_passes(site: Site) -> None:
    """The bug: 25006 is an InternalError, so 500 for ten minutes, while the probe found everything in order."""
    site.database.set("default_transaction_read_only", "on")
    for _ in range(THREADS):
        is_told_to_come_back(site.answers(), "database_read_only")
    site.database.set("default_transaction_read_only", "off")


def test_an_admin_whose_session_cannot_be_stored_is_told_to_come_back(site: Site) -> None:
    """The bug: Django makes "your session was deleted", a 400, of any database error while it stores one."""
    site.installation.python(_SUPERUSER)
    admin = AdminOverHttp(site.base)
    assert admin.post("/admin/account/login/", login="operator", password=PASSWORD).status_code == 302
    with site.database.locked("django_session", mode="EXCLUSIVE"):
        told = admin.post("/admin/account/reauthenticate/", password=PASSWORD)
    assert (told.status_code, told.headers.get("Retry-After")) == (503, "30")
    assert admin.post("/admin/account/reauthenticate/", password=PASSWORD).status_code == 302


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_restart_is_503_and_passes(site: Site, mode: str) -> None:
    """57P01, a crash, and nobody there."""
    site.database.stop(mode)
    is_told_to_come_back(site.answers(), "database_unavailable")
    site.database.start()


def test_a_database_that_still_starts_is_503_and_passes(site: Site) -> None:
    """57P03: it listens, and lets nobody in."""
    site.database.stop()
    (site.database.folder / "standby.signal").touch()
    site.database.start("-c hot_standby=off", is_awaited=False)
    is_told_to_come_back(site.answers(), "database_unavailable")
    site.database.stop("immediate")
    (site.database.folder / "standby.signal").unlink()
    site.database.start()


def test_a_switchover_to_a_standby_and_back_needs_no_restart(site: Site) -> None:
    """A real standby behind the address that was the primary's, then promoted."""
    standby = OwnPostgreSQL(site.database.folder.parent / "standby")
    standby.make_standby_of(site.database)
    site.database.stop()
    standby.port = site.database.port
    standby.start()
    for _ in range(THREADS):
        is_told_to_come_back(site.answers(), "database_read_only")
    standby.promote()
    assert site.statuses() == WELL
    standby.stop()
    site.database.start()


def test_too_many_connections_are_503_and_pass(site: Site) -> None:
    """53300."""
    site.database.sql(f"ALTER ROLE {ROLE} CONNECTION LIMIT 0")
    site.database.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'delegation'")
    is_told_to_come_back(site.answers(), "database_unavailable")
    site.database.sql(f"ALTER ROLE {ROLE} CONNECTION LIMIT -1")


@pytest.mark.parametrize("state", ["53100", "53200", "40001", "40P01", "58030"])
def test_what_a_statement_meets_is_503_and_passes(site: Site, state: str) -> None:
    """Disk full, out of memory, conflict, deadlock, a broken disk: as the server reports them from within a write."""
    site.database.sql(
        f"CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE SQLSTATE '{state}'; END $$;"
        " CREATE TRIGGER fail BEFORE INSERT ON conversations_conversation EXECUTE FUNCTION fail()"
    )
    told = site.challenge("web:new")
    site.database.sql("DROP FUNCTION fail CASCADE")
    assert (told.status_code, told.json()["code"], told.headers["Retry-After"]) == (503, "unavailable", "30")


def test_a_missing_table_is_a_fault_and_no_time_to_wait(site: Site) -> None:
    """42P01: another try does not make it."""
    site.database.sql("ALTER TABLE conversations_conversation RENAME TO gone")
    told = site.challenge("web:new")
    site.database.sql("ALTER TABLE gone RENAME TO conversations_conversation")
    assert (told.status_code, told.json()["code"], "Retry-After" in told.headers) == (500, "internal_error", False)


def test_one_lock_stops_neither_the_probes_nor_all_threads_for_good(site: Site) -> None:
    """The bug: without a time-out each thread waited for it, then nothing answered any more."""
    tables = ("conversations_conversation", "conversations_challenge", "brands_botkey", "brands_authorizationserver")
    with site.database.locked(*tables), ThreadPoolExecutor(THREADS) as bots:
        stuck = [bots.submit(site.challenge, f"web:{number}") for number in range(THREADS)]
        live = requests.get(f"{site.base}/health/live", timeout=SOON)
        ready = requests.get(f"{site.base}/health/ready", timeout=SOON)
        told = [call.result(timeout=SOON) for call in stuck]
        read = site.call("GET", "/api/v1/conversations/web:0/token")
    assert (live.status_code, ready.status_code) == (200, 200)
    assert {(answer.status_code, answer.headers["Retry-After"]) for answer in [*told, read]} == {(503, "30")}


def test_what_was_acknowledged_before_a_crash_is_there_after_it(site: Site) -> None:
    acknowledged: dict[str, str] = {}
    others: set[int] = set()
    stop = Event()

    def ask_on() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            answer = site.challenge(f"crash:{number}")
            if answer.status_code == 201:
                acknowledged[f"crash:{number}"] = answer.json()["challenge_id"]
            else:
                others.add(answer.status_code)

    bot = Thread(target=ask_on)
    bot.start()
    while len(acknowledged) < 20:
        assert bot.is_alive()
    for _ in range(2):
        site.database.stop("immediate")
        site.database.start()
    before = len(acknowledged)
    while len(acknowledged) < before + 5:
        assert bot.is_alive()
    stop.set()
    bot.join()
    found = {chat: site.call("GET", f"/api/v1/challenges/{uuid}").status_code for chat, uuid in acknowledged.items()}
    assert set(found.values()) == {200}
    assert others <= {503}


@pytest.mark.parametrize("named", ["", "?DISABLE_SERVER_SIDE_CURSORS=true"], ids=["unnamed", "named"])
def test_behind_a_pooler_everything_works_and_a_lock_ends(site: Site, tmp_path: Path, named: str) -> None:
    """A real PgBouncer that refuses start-up options and hands connections around between transactions."""
    server = f"host=127.0.0.1 port={site.database.port} dbname=postgres user={ROLE}"
    with pgbouncer(server) as port:
        address = f"postgres://{ROLE}@127.0.0.1:{port}/postgres{named}"
        installation = installation_at_a_free_port(tmp_path, THREADS=str(THREADS), DATABASE_URL=address)
        pooled = Site(site.database, installation, site.made)
        with serving(installation) as printed:
            met = [status for _ in range(5) for status in pooled.statuses().values()]
            assert [pooled.statuses() for _ in range(5)] == [WELL] * 5
            with site.database.locked("conversations_conversation"):
                told = pooled.challenge("web:0")
    assert set(met) <= {200, 404, 503}
    assert (told.status_code, told.headers["Retry-After"]) == (503, "30")
    assert ("a pooler" in printed[0]) is not bool(named)
