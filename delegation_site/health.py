"""Health endpoints and database checks: is the process alive, and can it do its work?

A process is not ready if the database is down or read-only, lacks migrations of this version, or holds values that
`ENCRYPTION_KEYS` cannot decrypt. Additional tables (a rolling upgrade) and several keys in use (a rotation) are normal.
"""

import logging
import sqlite3
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final

from django.core.checks import CheckMessage, Tags, register
from django.core.checks import Warning as CheckWarning
from django.db import Error, connection, transaction
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from conversations.flow.key_usage import unreadable_keys
from infrastructure.database_clock import report_wrong_clock
from infrastructure.database_errors import is_unavailable, sqlite_code
from web.errors import Problem, json_response

# Seconds for which a result is cached. Probes come every few seconds, from several machines.
_BELIEVED: Final = 60.0
_BELIEVED_WHERE_WRONG: Final = 5.0

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
    """Why this process cannot work: a stable problem code, a sentence, and what the operator should do."""

    code: str
    words: str
    remedy: str


_READ_ONLY: Final = Finding(
    "database_read_only",
    "The database is read-only.",
    "It is a standby, or default_transaction_read_only is on: point DATABASE_URL at the primary.",
)
_UNAVAILABLE: Final = Finding("database_unavailable", "The database does not answer.", "See the database's log.")


@require_safe
def live(request: HttpRequest) -> HttpResponse:  # noqa: ARG001  # Django's signature
    """Liveness: the process answers. It does not query the database."""
    return json_response({"status": "ok"})


@require_safe
def ready(request: HttpRequest) -> HttpResponse:  # noqa: ARG001  # Django's signature
    """Readiness: the database accepts writes, is migrated, and is readable with this key ring."""
    found = _trouble_with_the_server() or _remembered.ask()
    if found is None:
        return json_response({"status": "ok"})
    return Problem(503, found.code, f"{found.words} {found.remedy}").response()


def findings() -> list[Finding]:
    """Check everything now, without the cache. Database errors become findings."""
    found = _trouble_with_the_server()
    if found is None:
        try:
            found = _trouble_with_the_content()
        except Error:
            logger.exception("the database could not be checked")
            found = _UNAVAILABLE
    return [found] if found else []


@register(Tags.database)
def check_database(databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    """W001 to W004: only warnings, as some are fixed in the admin. Run by `check --database default` and gunicorn."""
    if not databases or sys.argv[1:2] == ["migrate"]:  # migrate is the remedy, and it runs all checks first
        return []
    return [CheckWarning(found.words, hint=found.remedy, id=_DATABASE_IDS[found.code]) for found in findings()]


class _Remembered:
    """Caches the last finding about the database's content, which takes several queries."""

    def __init__(self, ask: Callable[[], Finding | None]) -> None:
        self._ask = ask
        self.forget()

    def forget(self) -> None:
        self._found: Finding | None = None
        self._until = 0.0

    def ask(self) -> Finding | None:
        if monotonic() >= self._until:
            try:
                self._found = self._ask()
            except Error as error:
                # If a table is locked, keep the last finding: a ready process must stay in service.
                if not is_unavailable(error):
                    logger.exception("the database could not be checked")
                    self._found = _UNAVAILABLE
            self._until = monotonic() + (_BELIEVED_WHERE_WRONG if self._found else _BELIEVED)
        return self._found


def _trouble_with_the_server() -> Finding | None:
    try:
        return None if _takes_writes() else _READ_ONLY
    except Error as error:
        return _READ_ONLY if sqlite_code(error) == sqlite3.SQLITE_READONLY else _UNAVAILABLE


def _takes_writes() -> bool:
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT current_setting('transaction_read_only')")
            return bool(cursor.fetchone() == ("off",))
    # SQLite reports read-only only on a write: set an unused number in its header and roll back.
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("PRAGMA user_version = 1")
        transaction.set_rollback(True)
    return True


def _trouble_with_the_content() -> Finding | None:
    report_wrong_clock()
    return _missing_migrations() or _unreadable_keys()


def _missing_migrations() -> Finding | None:
    executor: Any = MigrationExecutor(connection)
    missing = [str(migration) for migration, _ in executor.migration_plan(executor.loader.graph.leaf_nodes())]
    if not missing:
        return None
    words = f"The database lacks {len(missing)} migrations of this version, {missing[0]} first."
    return Finding("database_not_migrated", words, "Run manage.py migrate.")


def _unreadable_keys() -> Finding | None:
    sentences = unreadable_keys()
    if not sentences:
        return None
    remedy = "Add the key that encrypted them to ENCRYPTION_KEYS, after the newest, and restart."
    return Finding("encryption_keys_do_not_fit", " ".join(sentences), remedy)


_remembered = _Remembered(_trouble_with_the_content)


def forget_in_process() -> None:
    """Clear the cache. Tests call it before each test."""
    _remembered.forget()
