"""Health endpoints and database checks: is the process alive, and can it do its work?

A process is not ready if the database is down or read-only, lacks migrations of this version, or holds values that
`ENCRYPTION_KEYS` cannot decrypt. Additional tables (a rolling upgrade) and several keys in use (a rotation) are normal.
"""

import logging
import sqlite3
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any, Final

from django.core.checks import CheckMessage, Tags, register
from django.core.checks import Warning as CheckWarning
from django.db import Error, connection, transaction
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from conversations.flow.events import report_waiting_deliveries
from conversations.flow.key_usage import unreadable_keys
from infrastructure.database_clock import report_wrong_clock
from infrastructure.database_errors import is_unavailable, sqlite_code
from infrastructure.outbox import report_silent_worker
from web.errors import Problem, json_response

# Probes come every few seconds, from several machines.
_CACHE_SECONDS_READY: Final = 60.0
_CACHE_SECONDS_NOT_READY: Final = 5.0

# Check ids, by the problem code of /health/ready.
_DATABASE_IDS = {
    "database_unavailable": "delegation.W001",
    "database_read_only": "delegation.W002",
    "database_not_migrated": "delegation.W003",
    "encryption_keys_do_not_fit": "delegation.W004",
}

logger = logging.getLogger("consumer_delegation.health")


@dataclass(frozen=True)
class Finding:
    """Why this process cannot work: a stable problem code, a sentence, and what the operator should do.

    `cause` is what the driver said, with host and user. Only the check shows it, since anybody may ask /health/ready.
    """

    code: str
    words: str
    remedy: str
    cause: str = ""


_READ_ONLY: Final = Finding(
    "database_read_only",
    "The database is read-only.",
    "It is a standby, or default_transaction_read_only is on: point DATABASE_URL at the primary.",
)
_UNAVAILABLE: Final = Finding(
    "database_unavailable", "The database does not answer.", "See the database's log, and DATABASE_URL."
)


@require_safe
def live(request: HttpRequest) -> HttpResponse:  # noqa: ARG001  # Django's signature
    """Liveness: the process answers. It does not query the database."""
    return json_response({"status": "ok"})


@require_safe
def ready(request: HttpRequest) -> HttpResponse:  # noqa: ARG001  # Django's signature
    """Readiness: the database accepts writes and is migrated, and `ENCRYPTION_KEYS` can decrypt its values."""
    found = _problem_with_server() or _content_check.finding()
    if found is None:
        return json_response({"status": "ok"})
    return Problem(503, found.code, f"{found.words} {found.remedy}").response()


def findings() -> list[Finding]:
    """Check everything now, without the cache. Database errors become findings."""
    found = _problem_with_server()
    if found is None:
        try:
            found = _problem_with_content()
        except Error:
            logger.exception("the database could not be checked")
            found = _UNAVAILABLE
    return [found] if found else []


@register(Tags.database)
def check_database(databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    """The checks W001 to W004. gunicorn and `check --database default` run them.

    They are warnings: an error would keep the web processes from starting, and they become ready without a restart as
    soon as the database is repaired.
    """
    if not databases or sys.argv[1:2] == ["migrate"]:  # migrate is the remedy, and it runs all checks first
        return []
    return [
        CheckWarning(f"{found.words} {found.cause}".strip(), hint=found.remedy, id=_DATABASE_IDS[found.code])
        for found in findings()
    ]


class _CachedCheck:
    """Caches the last finding about the database's content, which takes several queries."""

    def __init__(self, check: Callable[[], Finding | None]) -> None:
        self._check = check
        self.forget()

    def forget(self) -> None:
        self._found: Finding | None = None
        self._until = 0.0

    def finding(self) -> Finding | None:
        if monotonic() >= self._until:
            try:
                self._found = self._check()
            except Error as error:
                # `is_unavailable` is also true if a table is locked. The server itself answered a moment ago, so keep
                # the last finding: a process that was ready must stay in service.
                if not is_unavailable(error):
                    logger.exception("the database could not be checked")
                    self._found = _UNAVAILABLE
            self._until = monotonic() + (_CACHE_SECONDS_NOT_READY if self._found else _CACHE_SECONDS_READY)
        return self._found


def _problem_with_server() -> Finding | None:
    try:
        return None if _takes_writes() else _READ_ONLY
    except Error as error:
        if sqlite_code(error) == sqlite3.SQLITE_READONLY:
            return _READ_ONLY
        return replace(_UNAVAILABLE, cause=str(error).partition("\n")[0])


def _takes_writes() -> bool:
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT current_setting('transaction_read_only')")
            return bool(cursor.fetchone() == ("off",))
    # SQLite says that it is read-only only when we write. So set `user_version`, a number in the file's header that
    # nobody uses, and roll back.
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("PRAGMA user_version = 1")
        transaction.set_rollback(True)
    return True


def _problem_with_content() -> Finding | None:
    report_wrong_clock()  # only logs
    if found := _missing_migrations():
        return found
    report_waiting_deliveries()  # only logs
    report_silent_worker()  # only logs
    return _unreadable_keys()


def _missing_migrations() -> Finding | None:
    executor: Any = MigrationExecutor(connection)
    missing = [str(migration) for migration, _ in executor.migration_plan(executor.loader.graph.leaf_nodes())]
    if not missing:
        return None
    words = f"The database lacks migrations of this version: {len(missing)}, the first is {missing[0]}."
    return Finding("database_not_migrated", words, "Run manage.py migrate.")


def _unreadable_keys() -> Finding | None:
    sentences = unreadable_keys()
    if not sentences:
        return None
    remedy = "Add the key that encrypted them to ENCRYPTION_KEYS, behind the first (newest) key, and restart."
    return Finding("encryption_keys_do_not_fit", " ".join(sentences), remedy)


_content_check = _CachedCheck(_problem_with_content)


def reset_in_process() -> None:
    """Clear the cache. Tests call it before each test."""
    _content_check.forget()
