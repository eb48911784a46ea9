"""Fixtures and hooks for every test: no network but loopback, optional programs, a certificate authority."""

import fcntl
import gc
import os
import shutil
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import time_machine
from django.core.cache import cache
from django.db import connection
from django.test import TransactionTestCase
from hypothesis import settings as hypothesis_settings

from conversations.flow import call_counts, read_counts
from delegation_site import health
from infrastructure import audit, database_clock, prepared, rate_limits
from infrastructure import cache as redis_or_memory
from tests import databases, measured_processes, measurements, network_guard, parts
from tests.handler import Handler
from tests.machine import missing
from tests.tls import Authority

# Third-party servers, and the demo. The cast (Acme, Ada, acme-bot; Rival, Rita, rival-bot) is in tests/cast.py.
pytest_plugins = [
    "tests.cast",
    "tests.brand_api",
    "tests.limits",
    "tests.webhook_receiver",
    "tests.admin_pages",
    "tests.peers.fixtures",
    "tests.peers.others.fixtures",
    "tests.demo.stage",
    "tests.typescript_client",
]

# Once is enough for what is the same on every database: the demo and the bots to copy run on the demo's SQLite, the
# benchmark and the made-up calls bring a PostgreSQL of their own, and an answer of a brand's server is read in memory.
SAME_ON_EVERY_DATABASE = [
    "demo",
    "docs",
    "generators",
    "sdks",
    *("clients/test_packages.py", "clients/test_typescript_client.py"),
    "test_bench.py",
    # What a page looks like and what a browser does with it; who may see which page is tried on both.
    "browser/firefox",
    "browser/test_doctor_page.py",
    *(f"browser/test_{name}.py" for name in ("api_docs", "bad_days", "first_visit", "gallery", "journeys", "looks")),
    "browser/test_page_script.py",
    # What a brand's server answers, what is typed into a form about it, and the headers of our answers.
    *("brands/test_credential_hosts.py", "brands/test_discover_button.py", "brands/test_doctor_page.py"),
    *(f"brands/test_{name}.py" for name in ("doctor", "doctor_answers", "doctor_mistakes", "ignored_metadata", "jwks")),
    *("brands/test_misconfigurations.py", "conversations/test_hostile_calls.py", "vendors"),
    *(f"brands/test_{name}.py" for name in ("discovered_servers", "dpop_settings", "openapi_page")),
    *("conversations/test_failed_authorization_requests.py", "conversations/test_scopes_on_the_wire.py"),
    "conversations/test_server_health_told.py",
    # Who may see and change what in the admin, through the ORM alone, and what its pages say of what is typed.
    *(f"brands/test_admin_{name}.py" for name in ("forms", "pages", "tenancy", "viewers")),
    "brands/test_confirmations.py",
    *("brands/test_dialect_settings.py", "brands/test_unsaved_secrets.py", "site/test_admin_look.py"),
    # Addresses and forms that are not what we gave out.
    *("conversations/test_consumer_forms.py", "conversations/test_damaged_links.py"),
    "site/test_headers.py",
    *("fuzz/test_contract_run.py", "fuzz/test_id_tokens.py", "fuzz/test_token_answers.py"),
]
# Plans, connections that die, and writers that wait for each other are PostgreSQL's.
ABOUT_POSTGRESQL = [
    *("conversations/test_tokens_that_cannot_be_stored.py", "conversations/test_database_goes_during_a_sign_in.py"),
    "conversations/test_worker_outages.py",
    "conversations/test_session_locks.py",
    "conversations/test_statistics_beside_writers.py",
    "test_query_plans.py",
    "brands/test_admin_hostile_input.py",  # text that PostgreSQL refuses
    *("site/test_audit_log_partitions.py", "site/test_migrations_keep_old_code.py"),
    *("site/test_compiled_connections.py", "site/test_prepared_connections.py"),
    *("site/test_database_away.py", "site/test_time_outs.py", "site/test_statements_together.py"),
    "site/test_several_database_hosts.py",
    "conversations/test_round_trips.py",
    *("conversations/test_changes_beside_bots.py", "conversations/test_token_at_once_connections.py"),
]
collect_ignore = ABOUT_POSTGRESQL if databases.chosen() == databases.SQLITE else SAME_ON_EVERY_DATABASE

# Hypothesis fails an example that takes 200 ms. No test of ours fails because the machine is slow.
hypothesis_settings.register_profile("suite", deadline=None)
hypothesis_settings.load_profile("suite")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add options for `tests.run`: select a part of the suite; leave out tests that use no database."""
    choices = (*parts.PARTS, parts.CHANGE)
    parser.addoption("--part", choices=choices, help="only the tests of this part; without it, all that are named")
    parser.addoption("--touching-a-database", action="store_true", help="leave out what is the same on every database")
    without = "of tests with servers, only what is the same on every database"
    parser.addoption("--servers-without-a-database", action="store_true", help=without)


@pytest.hookimpl(wrapper=True)  # begins before pytest-xdist reads the groups, and ends after pytest-django has sorted
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    """Deselect other parts, and group tests that share servers, for `--dist=loadgroup`."""
    chosen = [item for item in items if _is_chosen(item, config)]
    if len(chosen) < len(items):
        kept = set(chosen)
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = chosen
    for item in items:
        if not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(parts.group_of(item)))
    yield
    if config.getoption("--part") == parts.CHANGE:
        items[:] = parts.spread(items)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect tests without Python's garbage collector, and in CI one process after the other.

    The collector went through all loaded tests again and again: a tenth of a run's time. What is loaded now stays.
    In a new clone the first process compiles the tests, and the others need not do the same at the same time.
    """
    gc.disable()
    with (databases.run_folder() / "collecting.lock").open("w") as lock:
        if os.environ.get("CI"):
            fcntl.flock(lock, fcntl.LOCK_EX)
        collected = yield
    gc.freeze()
    gc.enable()
    return collected


def _is_chosen(item: pytest.Item, config: pytest.Config) -> bool:
    """Whether a test is in the part that is asked for, and in the half that this database has of it."""
    asked, part = config.getoption("--part"), parts.part_of(item)
    if not (asked in {None, part} or (asked == parts.CHANGE and part != parts.FULL)):
        return False
    if parts.touches_a_database(item):
        elsewhere = part == parts.SERVED and config.getoption("--servers-without-a-database")
        return not elsewhere or parts.is_in(item, SAME_ON_EVERY_DATABASE)
    return not config.getoption("--touching-a-database")


def pytest_configure() -> None:
    """Create the run's folder before the first worker process starts."""
    databases.make_run_folder()
    if "PYTEST_XDIST_WORKER" not in os.environ:
        measurements.forget()


def pytest_sessionfinish() -> None:
    """Forget what is counted: the databases are gone when this process ends and would write it."""
    read_counts.reset_in_process()
    call_counts.reset_in_process()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was measured in this run."""
    for line in measurements.lines():
        terminalreporter.write_line(line)


@pytest.fixture(autouse=True, scope="session")
def _measured_processes() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        measured_processes.install(patched)
        yield


@pytest.fixture(autouse=True, scope="session")
def _clients_take_the_way_of_production() -> Iterator[None]:
    """Every test client goes through the fast path of token reads, as `delegation_site/wsgi.py` does."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("django.test.client.ClientHandler", Handler)
        yield


@pytest.fixture(autouse=True)
def _loopback_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test that connects to another machine, even if the product caught the error."""
    refused: list[str] = []
    network_guard.install(monkeypatch, refused)
    yield
    if refused:
        pytest.fail(f"this test reached for another machine: {', '.join(refused)}")


@pytest.fixture(autouse=True)
def _nothing_known_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clear in-process caches before each test: they outlive a rolled-back transaction."""
    rate_limits.reset_in_process()
    redis_or_memory.reset_in_process()
    monkeypatch.setattr(prepared, "_process", prepared._Process(prepares=True))
    monkeypatch.setattr(database_clock, "_last_measured", database_clock._LastMeasured())
    read_counts.reset_in_process()
    call_counts.reset_in_process()
    health.reset_in_process()
    cache.clear()  # for allauth's rate limits


@pytest.fixture(autouse=True)
def _no_window_ends_by_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let limits count in the window in which the test began, until the test itself moves time.

    The bug: three calls were counted in two windows if a minute ended between them, and the third was not refused.
    """
    began = time.time()

    def now() -> float:
        return time.time() if time_machine.escape_hatch.is_travelling() else began

    monkeypatch.setattr("infrastructure.rate_limits.time", SimpleNamespace(time=now))


@pytest.fixture(autouse=True)
def _the_database_travels_along(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let PostgreSQL's clock follow a test that moves time, as SQLite's does. `real_clocks` turns it off."""
    if "real_clocks" not in request.keywords:
        monkeypatch.setattr(database_clock, "_database_time", lambda: None)


@pytest.fixture(autouse=True, scope="session")
def _flush_empties_what_has_rows() -> Iterator[None]:
    """End each transactional test by deleting rows, also the audit log's, whose triggers refuse it.

    Django's own flush truncates all tables, which is much slower on PostgreSQL, and makes the content types and
    permissions anew, which no test changes. Worker processes have their own databases.
    """

    def flush(_test_case: TransactionTestCase) -> None:
        audit.remove(connection)
        try:
            connection.ops.execute_sql_flush(_deletes())
        finally:
            audit.install(connection)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(TransactionTestCase, "_fixture_teardown", flush)
        yield


def _deletes() -> list[str]:
    """DELETE statements for the tables that have rows, except those that `migrate` fills."""
    tables = set(connection.introspection.django_table_names(only_existing=True, include_views=False))
    emptied = sorted(tables - {"auth_permission", "django_content_type"})
    asked = " UNION ALL ".join(f"SELECT '{table}' WHERE EXISTS (SELECT 1 FROM \"{table}\")" for table in emptied)  # noqa: S608  # ours
    with connection.cursor() as cursor:
        cursor.execute(asked)
        return [f'DELETE FROM "{table}"' for (table,) in cursor.fetchall()]  # noqa: S608  # as above


@pytest.fixture(scope="session")
def requires_redis() -> Path:
    """The path of Redis' executable."""
    found = shutil.which("redis-server")
    return Path(found) if found else missing("redis-server is not installed: tests with a real Redis did not run")


@pytest.fixture(scope="session")
def requires_chromium() -> Path:
    """The path of the system's Chromium, for Playwright's `executable_path`."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    return Path(found) if found else missing("Chromium is not installed: tests in a real browser did not run")


@pytest.fixture(scope="session")
def requires_node() -> Path:
    """The path of Node's executable. The packages of `tests/peers` are installed."""
    found = shutil.which("node")
    if not found:
        missing("Node is not installed: tests against oidc-provider did not run")
    if not (Path(__file__).parent / "peers" / "node_modules" / "oidc-provider").is_dir():
        missing("npm packages of tests/peers are not installed: tests against oidc-provider did not run")
    return Path(found)


@pytest.fixture(scope="session")
def tls_authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A certificate authority for this run. Clients trust it by its `ca_file`."""
    return Authority(tmp_path_factory.mktemp("tls"))
