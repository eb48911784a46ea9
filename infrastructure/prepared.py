"""Run statements as PostgreSQL prepared statements, once per connection.

Planning a join takes PostgreSQL several times as long as running it. After five executions PostgreSQL caches a generic
plan if it is no worse. Only server processes prepare: a command that runs once gains nothing.

Prepared statements do not work behind a transaction pooler. It is detected by its errors, or declared with
`DISABLE_SERVER_SIDE_CURSORS=true` in `DATABASE_URL`, which is Django's own option.
"""

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from itertools import count
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

from django.db import DEFAULT_DB_ALIAS, DatabaseError, Error, connections

from infrastructure.database_errors import is_unavailable, sqlstate

# SQLSTATEs of a missing and of a duplicate prepared statement. They mean that a pooler shares our connection.
_POOLED: Final = {"26000", "42P05"}
# SQLSTATEs of a prepared statement whose columns changed their type in a migration.
_STALE: Final = {"0A000", "42804", "42883"}
_PLACES: Final = re.compile("%%|%s")

Result = TypeVar("Result")

logger = logging.getLogger("consumer_delegation.prepared")


@dataclass
class _Process:
    """State for all statements of this process. `generation` counts the schema changes that were noticed."""

    prepares: bool = False
    generation: int = 0

    def learn_from(self, sqlstate: str | None, generation: int, *, was_prepared: bool) -> None:
        """Stop preparing, or prepare everything again, so that other statements do not hit the same error.

        An error of a statement that was prepared just now means a wrong statement, not a stale one. It must not
        make all statements be prepared again.
        """
        if sqlstate in _POOLED and self.prepares:
            self.prepares = False
            logger.warning("a pooler was detected: statements are no longer prepared; see DISABLE_SERVER_SIDE_CURSORS")
        elif sqlstate in _STALE and was_prepared and generation == self.generation:
            self.generation += 1


_process = _Process()
# The statements that each connection has prepared. Two objects with the same text share one.
_names_on: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()


def prepare_from_now_on() -> None:
    """Use prepared statements in this process. A server process calls it at the start."""
    _process.prepares = True


@dataclass(frozen=True, slots=True)
class _Written:
    """The SQL of one prepared statement: its name, the PREPARE and the EXECUTE."""

    name: str
    prepare: str
    execute: str
    generation: int


class PreparedStatement:
    """A statement with `%s` for each value. On other databases than PostgreSQL it runs unprepared.

    `constants` holds values that never change, by the number of their `%s`. They become part of the prepared text,
    because a generic plan could not use a partial index (`WHERE ended_at IS NULL`) otherwise.

    Raises Django's database errors. Errors about preparing are retried, except in a transaction, which has failed then.
    """

    def __init__(self, sql: str, constants: Mapping[int, Any] | None = None) -> None:
        self.sql = sql
        self._constants = constants or {}
        self._places = _PLACES.findall(sql).count("%s")
        self._written: _Written | None = None

    def rows(self, values: Iterable[Any]) -> list[Any]:
        """Run the statement and return its rows. Retry once on a new connection if the kept one is dead or read-only.

        The statement itself checks the kept connection, which saves the round trip of Django's health check. In a
        transaction nothing is retried.
        """
        database: Any = connections[DEFAULT_DB_ALIAS]
        given = list(values)
        if not database.in_atomic_block:
            database.health_check_done = True
            try:
                return self._run(database, given, _all_rows)
            except Error as error:
                if not is_unavailable(error) or database.connection is None or database.is_usable():
                    raise
                database.close()
        return self._run(database, given, _all_rows)

    def run(self, values: Iterable[Any], read: Callable[[Any], Result]) -> Result:
        """Run the statement and return `read(cursor)`. Django checks the connection first."""
        return self._run(connections[DEFAULT_DB_ALIAS], list(values), read)

    def later(self, values: Iterable[Any]) -> None:
        """Send the statement with the next one of this transaction, at the latest with COMMIT. Its result is not read.

        The next statement, or COMMIT, raises its errors. It runs at once outside of a transaction, on SQLite, and while
        query logging or an execute wrapper is active.
        """
        database: Any = connections[DEFAULT_DB_ALIAS]
        given = list(values)
        is_watched = database.queries_logged or database.execute_wrappers
        if database.vendor != "postgresql" or not database.in_atomic_block or is_watched:
            self._run(database, given, _nothing)
            return
        with _open_cursor(database) as cursor:
            if _prepares_on(database):
                written, _ = self._prepared(database, cursor)
                statement = cursor.mogrify(written.execute, given)
                generation = written.generation
            else:
                statement, generation = cursor.mogrify(self.sql, list(self._filled(given))), _process.generation
            database.connection.send_later(
                statement, lambda error: _process.learn_from(sqlstate(error), generation, was_prepared=True)
            )

    def _run(self, database: Any, values: list[Any], read: Callable[[Any], Result]) -> Result:
        try:
            return self._run_once(database, values, read)
        except DatabaseError as error:
            # Preparing failed, so the statement did not run and may be repeated.
            if database.in_atomic_block or sqlstate(error) not in _POOLED | _STALE:
                raise
        return self._run_once(database, values, read)

    def _run_once(self, database: Any, values: list[Any], read: Callable[[Any], Result]) -> Result:
        with _open_cursor(database) as cursor:
            if _prepares_on(database):
                self._execute_prepared(database, cursor, values)
            else:
                cursor.execute(self.sql, list(self._filled(values)))
            return read(cursor)

    def _filled(self, values: list[Any]) -> Iterator[Any]:
        given = iter(values)
        for place in range(self._places):
            yield self._constants[place] if place in self._constants else next(given)

    def _execute_prepared(self, database: Any, cursor: Any, values: list[Any]) -> None:
        written, was_prepared = self._prepared(database, cursor)
        try:
            cursor.execute(written.execute, values)
        except Exception as error:
            _process.learn_from(sqlstate(error), written.generation, was_prepared=was_prepared)
            raise

    def _prepared(self, database: Any, cursor: Any) -> tuple[_Written, bool]:
        """Prepare the statement on this connection. Also return whether it was prepared before."""
        written, names = self._as_written(cursor), _names_on.setdefault(database.connection, set())
        if written.name in names:
            return written, True
        try:
            cursor.execute(written.prepare)
        except Exception as error:
            _process.learn_from(sqlstate(error), written.generation, was_prepared=False)
            raise
        names.add(written.name)
        return written, False

    def _as_written(self, cursor: Any) -> _Written:
        if self._written is None or self._written.generation != _process.generation:
            literals = {place: cursor.mogrify("%s", [value]).decode() for place, value in self._constants.items()}
            numbers = count(1)
            marks = tuple(literals.get(place) or f"${next(numbers)}" for place in range(self._places))
            self._written = _written(self.sql % marks, self._places - len(literals), _process.generation)
        return self._written


def _prepares_on(database: Any) -> bool:
    pooled = database.settings_dict.get("DISABLE_SERVER_SIDE_CURSORS")
    return _process.prepares and database.vendor == "postgresql" and not pooled


def _written(text: str, values: int, generation: int) -> _Written:
    # Named by a hash of the text: behind a pooler, another version of our code may have prepared other statements.
    name = f"compiled_{sha256(text.encode()).hexdigest()[:24]}_{generation}"
    given = f" ({', '.join(['%s'] * values)})" if values else ""
    return _Written(name, f"PREPARE {name} AS {text}", f"EXECUTE {name}{given}", generation)


def _open_cursor(database: Any) -> Any:
    """Open the driver's cursor. Use Django's slower one only while query logging or an execute wrapper is active."""
    if database.queries_logged or database.execute_wrappers:
        return database.cursor()
    if database.connection is None or not database.health_check_done:
        database.close_if_health_check_failed()
        database.ensure_connection()
    database.validate_no_broken_transaction()
    return _DriverCursor(database)


class _DriverCursor:
    """The driver's cursor, as a context that raises Django's database errors.

    A connection of ours to PostgreSQL keeps its cursor for the next statement: each has been read when it ends.
    """

    __slots__ = ("_cursor", "_database", "_is_kept")

    def __init__(self, database: Any) -> None:
        self._database, self._is_kept = database, hasattr(database.connection, "kept_cursor")

    def __enter__(self) -> Any:
        connection = self._database.connection
        self._cursor: Any = connection.kept_cursor if self._is_kept else None
        if self._cursor is None:
            self._cursor = self._database.create_cursor()
            if self._is_kept:
                connection.kept_cursor = self._cursor
        return self._cursor

    def __exit__(self, *error: object) -> None:
        if not self._is_kept:
            self._cursor.close()
        self._database.wrap_database_errors.__exit__(*error)


def _nothing(cursor: Any) -> None:
    """Read no result."""


def _all_rows(cursor: Any) -> list[Any]:
    rows: list[Any] = cursor.fetchall()
    return rows
