"""Readiness and the check at the start: what this process cannot do, in words, and nothing that a rotation needs."""

import re
import time
from pathlib import Path
from typing import Any

import pytest
import requests
from django.db import OperationalError, connection
from django.db.migrations.recorder import MigrationRecorder
from django.test.utils import CaptureQueriesContext

from brands.models import AuthorizationServer, BotKey
from conversations.models import AccessToken
from delegation_site import health
from delegation_site.health import check_database
from tests import environment
from tests.cast import Bot, Browser, client_of_ours, code_on
from tests.fake_authorization_server import FakeAuthorizationServer
from tests.installation import Installation
from tests.served import installation_at_a_free_port, serving

OLD = environment.TEST_ENVIRONMENT["ENCRYPTION_KEYS"]
OLD_ID = OLD.partition(":")[0]
OLD_BYTES = OLD.partition(":")[2].partition(",")[0]
NEW_BYTES = "3hSxq0CkB7dT9rYwVbN2mZ5fJ8gLpQeRtUiOaXcKvMs="
READ_ONLY_ON_AND_OFF = """
from django.db import connection
from django.test import Client
for switch in ("ON", "OFF"):
    connection.cursor().execute(f"PRAGMA query_only = {switch}")
    answer = Client().get("/health/ready", secure=True)
    print(answer.status_code, answer.json().get("code", ""))
print(*connection.cursor().execute("PRAGMA user_version").fetchone())
"""
NEW = f"new:{NEW_BYTES}"


def ready() -> tuple[int, str, str]:
    """Return status, code and detail, as a process that was just started answers."""
    health.reset_in_process()
    answer = client_of_ours().get("/health/ready", secure=True)
    document = answer.json()
    return answer.status_code, document.get("code", ""), document.get("detail", "")


def check_ids() -> list[str | None]:
    return [message.id for message in check_database(databases=["default"])]


@pytest.fixture
def granted(acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer) -> Bot:
    """Return a bot whose chat has a token."""
    url = acme_bot.challenge()["url"]
    assert acme_bot.complete(code_on(ada.sign_in(url, acme_login)))[0] == 200
    return acme_bot


@pytest.mark.parametrize("ring", [OLD, f"{OLD},{NEW}", f"{NEW},{OLD}"])
def test_every_step_of_a_rotation_is_ready(granted: Bot, settings: Any, ring: str) -> None:
    """K4: rows under several keys of the ring, and keys that nothing is under yet."""
    settings.ENCRYPTION_KEYS = ring
    granted.challenge(replace=True)
    assert (ready(), check_ids()) == ((200, "", ""), [])


def test_a_ring_that_lacks_a_key_says_which_and_what_is_under_it(granted: Bot, settings: Any) -> None:
    """The bug: every bot read 401, and the probe found everything in order."""
    settings.ENCRYPTION_KEYS = NEW
    status, code, detail = ready()
    assert (status, code, check_ids()) == (503, "encryption_keys_do_not_fit", ["delegation.W004"])
    assert f"lacks the key {OLD_ID}. It is needed for: access tokens, bot keys, client secrets" in detail
    assert OLD_BYTES not in detail


def test_another_key_under_an_old_id_is_found_out(granted: Bot, settings: Any) -> None:
    """As where somebody made a new key from the example, and kept its id."""
    settings.ENCRYPTION_KEYS = f"{OLD_ID}:{NEW_BYTES}"
    status, code, detail = ready()
    assert (status, code) == (503, "encryption_keys_do_not_fit")
    assert f"has another key {OLD_ID} than the one" in detail


def test_one_row_that_was_tampered_with_takes_nobody_out_of_service(granted: Bot) -> None:
    AccessToken.objects.update(ciphertext=AuthorizationServer.objects.get().client_secret_ciphertext)
    assert ready() == (200, "", "")


def test_what_is_over_needs_no_key(granted: Bot, settings: Any) -> None:
    """A key that was revoked, a server that was switched off and ended tokens recognise and read nothing any more."""
    granted.in_chat("DELETE")
    BotKey.objects.update(revoked_at="2026-01-01T00:00:00Z")
    AuthorizationServer.objects.update(is_active=False)
    settings.ENCRYPTION_KEYS = NEW
    assert ready() == (200, "", "")


@pytest.mark.django_db
def test_a_database_that_knows_more_than_this_version_is_ready() -> None:
    """A rolling upgrade: the next version has migrated, and this one still answers."""
    MigrationRecorder(connection).record_applied("conversations", "9999_of_the_next_version")
    MigrationRecorder(connection).record_applied("an_app_of_the_next_version", "0001_initial")
    assert (ready(), check_ids()) == ((200, "", ""), [])


@pytest.mark.django_db
def test_a_database_that_lacks_a_migration_of_this_version_is_not_ready() -> None:
    recorder = MigrationRecorder(connection)
    name = recorder.Migration.objects.filter(app="conversations").latest("name").name
    recorder.record_unapplied("conversations", name)
    status, code, detail = ready()
    assert (status, code, check_ids()) == (503, "database_not_migrated", ["delegation.W003"])
    assert f"lacks migrations of this version: 1, the first is conversations.{name}. Run manage.py migrate." in detail


def test_a_sqlite_that_takes_no_writes_is_not_ready(tmp_path: Path) -> None:
    """Its `BEGIN IMMEDIATE` does not always tell; PostgreSQL's is in test_database_away.py."""
    address = f"sqlite:///{tmp_path}/one.sqlite3"
    installation = Installation(tmp_path, OLD, {"DATABASE_URL": address, "ALLOWED_HOSTS": "testserver"})
    installation.manage("migrate", "-v0")
    installation.manage("worker", "--once")
    assert installation.python(READ_ONLY_ON_AND_OFF).splitlines()[-3:] == ["503 database_read_only", "200 ", "0"]


@pytest.mark.django_db
def test_probes_do_not_ask_for_the_content_each_time() -> None:
    assert ready() == (200, "", "")
    with CaptureQueriesContext(connection) as queries:
        for _ in range(3):
            assert client_of_ours().get("/health/ready", secure=True).status_code == 200
        assert client_of_ours().get("/health/live", secure=True).status_code == 200
    tables = [query["sql"] for query in queries if re.search(r"FROM|django_migrations", query["sql"])]
    assert tables == []


def test_a_lock_keeps_the_last_answer(granted: Bot, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table that somebody holds is no reason to take every process out of service."""
    assert ready() == (200, "", "")

    def locked(*_: Any) -> None:
        raise OperationalError("canceling statement due to lock timeout")

    check = health._CachedCheck(health._problem_with_content)
    assert check.finding() is None
    monkeypatch.setattr(check, "_check", locked)
    check._until = 0.0
    assert check.finding() is None


def test_a_database_without_tables_is_said_at_the_start_and_to_the_probe(tmp_path: Path) -> None:
    """The bug: ready was 200 and every call 500. Once it is migrated, the same process says so."""
    installation = installation_at_a_free_port(tmp_path, THREADS="2")
    base = installation.settings["PUBLIC_BASE_URL"]
    with serving(installation) as printed:
        before = requests.get(f"{base}/health/ready", timeout=30)
        assert requests.get(f"{base}/health/live", timeout=30).status_code == 200
        migrated = installation.run("manage.py", "migrate", "-v0")
        # What is wrong is asked anew every five seconds.
        while requests.get(f"{base}/health/ready", timeout=30).status_code != 200:
            time.sleep(0.2)
    assert (before.status_code, before.json()["code"]) == (503, "database_not_migrated")
    assert "Run manage.py migrate." in before.json()["detail"]
    assert (migrated.returncode, "delegation.W" in migrated.stderr) == (0, False)
    assert "delegation.W003" in printed[0]
    assert "Traceback" not in printed[0]


def test_the_check_command_says_it_in_words(tmp_path: Path) -> None:
    result = Installation(tmp_path, OLD).run("manage.py", "check", "--database", "default", "--fail-level", "WARNING")
    assert result.returncode == 1
    assert "delegation.W003" in result.stderr
    assert "HINT: Run manage.py migrate." in result.stderr
    assert "Traceback" not in result.stderr


def test_the_check_says_why_the_database_is_not_reached_and_not_the_password(tmp_path: Path) -> None:
    """H1. The bug: "does not answer", also where it refused our password or had no such user."""
    refused = Installation(tmp_path, OLD, {"DATABASE_URL": "postgres://delegation:PLANTED@127.0.0.1:1/delegation"})
    result = refused.run("manage.py", "check", "--database", "default")
    assert "The database does not answer. " in result.stderr
    assert "port 1 failed: Connection refused" in result.stderr
    assert "PLANTED" not in result.stdout + result.stderr


def test_a_database_that_is_away_at_the_start_is_one_warning(tmp_path: Path) -> None:
    installation = installation_at_a_free_port(tmp_path, DATABASE_URL=f"sqlite:///{tmp_path}/nowhere/there.sqlite3")
    with serving(installation) as printed:
        assert requests.get(f"{installation.settings['PUBLIC_BASE_URL']}/health/live", timeout=30).status_code == 200
    assert printed[0].count("delegation.W001") == 1
    assert "Traceback" not in printed[0]
