"""Statements that PostgreSQL plans once for each connection (PREPARE), and cursors without Django's own overhead.

Planning a join takes PostgreSQL several times as long as running it, and the text is the same each time. A pooler that
hands connections around between transactions has no use for that: it is told by its errors, or beforehand by
`DISABLE_SERVER_SIDE_CURSORS=true` in `DATABASE_URL`, which is Django's own word for such a pooler.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, Final
from weakref import WeakKeyDictionary

from django.db import DEFAULT_DB_ALIAS, DatabaseError, InterfaceError, OperationalError, connections

from delegation_site.crypto import checksum

# SQLSTATE of a prepared statement that is not there, and of one that is there already: the connection is not ours.
_POOLED: Final = {"26000", "42P05"}
# ... and of one whose columns have changed since it was prepared: a migration came by.
_STALE: Final = "0A000"

logger = logging.getLogger("consumer_delegation.prepared")


class _Pooler:
    """Whether this process has met one. What was found out for one statement holds for all."""

    noticed = False


# What each connection knows: of two statements with one text, the second is prepared already.
_names_on: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()


class PreparedStatement:
    """A statement with `%s` for what each call fills in. Away from PostgreSQL it is sent as it is."""

    def __init__(self, sql: str) -> None:
        self.sql = sql
        self._preparation = _Preparation(sql)

    def execute(self, cursor: Any, parameters: Sequence[Any]) -> None:
        """Execute it. Raises Django's database errors; after one about its preparation the next time goes well."""
        try:
            cursor.execute(self._text(cursor), parameters)
        except Exception as error:
            if _sqlstate(error) in _POOLED:
                logger.warning("a pooler: statements are planned each time; see DISABLE_SERVER_SIDE_CURSORS")
                _Pooler.noticed = True
            elif _sqlstate(error) == _STALE:
                self._preparation = _Preparation(self.sql, self._preparation.number + 1)
            raise

    def _text(self, cursor: Any) -> str:
        database: Any = connections[DEFAULT_DB_ALIAS]
        pooled = _Pooler.noticed or database.settings_dict.get("DISABLE_SERVER_SIDE_CURSORS")
        if pooled or database.vendor != "postgresql":
            return self.sql
        preparation, names = self._preparation, _names_on.setdefault(database.connection, set())
        if preparation.name not in names:
            cursor.execute(preparation.prepare)
            names.add(preparation.name)
        return preparation.execute


class _Preparation:
    """The two texts under one name; `number` counts how often its columns have changed."""

    def __init__(self, sql: str, number: int = 0) -> None:
        self.number = number
        marks = sql.count("%s")
        # Named by its text: behind a pooler another version of ours may have prepared another one.
        self.name = f"compiled_{checksum(sql)}_{number}"
        numbered = sql % tuple(f"${place}" for place in range(1, marks + 1))
        self.prepare = f"PREPARE {self.name} AS {numbered}"
        self.execute = f"EXECUTE {self.name} ({', '.join(['%s'] * marks)})" if marks else f"EXECUTE {self.name}"


def forget_in_process() -> None:
    """Forget that there was a pooler; tests begin without one."""
    _Pooler.noticed = False


def fetched(execute: Callable[[Any], object]) -> list[Any]:
    """Run one statement, and return its rows; once more on a new connection where the kept one turns out dead.

    So the statement itself is the check of a kept connection: asking first is a round trip for nothing. In a
    transaction there is no second time.
    """
    database: Any = connections[DEFAULT_DB_ALIAS]
    if not database.in_atomic_block:
        database.health_check_done = True
        try:
            return _rows_of(execute)
        except DatabaseError as error:
            if not _is_about_preparation(error):
                if not isinstance(error, OperationalError):
                    raise
                database.close()
        except InterfaceError:
            database.close()
    return _rows_of(execute)


@contextmanager
def open_cursor() -> Iterator[Any]:
    """Open the driver's own cursor as Django does; one of Django's, which costs more, where somebody looks on."""
    database: Any = connections[DEFAULT_DB_ALIAS]
    if database.queries_logged or database.execute_wrappers:
        with database.cursor() as cursor:
            yield cursor
        return
    database.close_if_health_check_failed()
    database.ensure_connection()
    database.validate_no_broken_transaction()
    with database.wrap_database_errors, closing(database.create_cursor()) as cursor:
        yield cursor


def _rows_of(execute: Callable[[Any], object]) -> list[Any]:
    with open_cursor() as cursor:
        execute(cursor)
        rows: list[Any] = cursor.fetchall()
    return rows


def _is_about_preparation(error: Exception) -> bool:
    return _sqlstate(error) in _POOLED | {_STALE}


def _sqlstate(error: BaseException) -> str | None:
    """Return the code of the driver's error, whether or not Django's stands before it."""
    return getattr(error.__cause__ or error, "pgcode", None)
