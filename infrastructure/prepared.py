"""Statements that PostgreSQL parses once for each connection (PREPARE), and soon plans no more.

Planning a join takes PostgreSQL several times as long as running it. From the sixth time on it keeps one plan for any
values where that is no worse. A process that serves prepares; what runs once has nothing to gain, and no second time.

A pooler that hands connections around between transactions has no use for all that. It is named by
`DISABLE_SERVER_SIDE_CURSORS=true` in `DATABASE_URL`, Django's own word for it, or recognised by its errors.
"""

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from itertools import count
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

from django.db import DEFAULT_DB_ALIAS, DatabaseError, Error, connections

from infrastructure.database_errors import is_unavailable, sqlstate

# SQLSTATE of a prepared statement that is not there, and of one that is there already: the connection is not ours.
_POOLED: Final = {"26000", "42P05"}
# ... and of one whose columns have another type than when it was prepared: a migration came by.
_STALE: Final = {"0A000", "42804", "42883"}
_PLACES: Final = re.compile("%%|%s")

Result = TypeVar("Result")

logger = logging.getLogger("consumer_delegation.prepared")


@dataclass
class _Process:
    """What holds for all statements of this process; `generation` counts the migrations that came by."""

    prepares: bool = False
    generation: int = 0

    def learn_from(self, sqlstate: str | None, generation: int, *, was_prepared: bool) -> None:
        """Stop preparing, or prepare everything anew: what one statement found out spares the others its error.

        What was prepared only now is not out of date but wrong, and would have everything prepared anew each time.
        """
        if sqlstate in _POOLED and self.prepares:
            self.prepares = False
            logger.warning("a pooler: nothing is prepared from now on; see DISABLE_SERVER_SIDE_CURSORS")
        elif sqlstate in _STALE and was_prepared and generation == self.generation:
            self.generation += 1


_process = _Process()
# What each connection knows: of two statements with one text, the second is prepared already.
_names_on: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()


def prepare_from_now_on() -> None:
    """Say that this process serves."""
    _process.prepares = True


@dataclass(frozen=True, slots=True)
class _Written:
    """A statement as it is prepared, and as it is executed then."""

    name: str
    prepare: str
    execute: str
    generation: int


class PreparedStatement:
    """A statement with `%s` for what each call fills in. Away from PostgreSQL it is sent as it is.

    `constants` are the values that are the same each time, by the number of their `%s`. They are written into what is
    prepared: a plan for any value whatever could not use an index of some rows alone (`WHERE ended_at IS NULL`).

    Raises Django's database errors. One about its preparation is met by a transaction alone, which ends with it.
    """

    def __init__(self, sql: str, constants: Mapping[int, Any] | None = None) -> None:
        self.sql = sql
        self._constants = constants or {}
        self._places = _PLACES.findall(sql).count("%s")
        self._written: _Written | None = None

    def rows(self, values: Iterable[Any]) -> list[Any]:
        """Run it, and return its rows; once more on a new connection where the kept one turns out dead, or read-only.

        So the statement itself is the check of a kept connection: asking first is a round trip for nothing. In a
        transaction there is no second time.
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
        """Run it, and return what `read` makes of the cursor; Django has asked whether the connection is alive."""
        return self._run(connections[DEFAULT_DB_ALIAS], list(values), read)

    def _run(self, database: Any, values: list[Any], read: Callable[[Any], Result]) -> Result:
        try:
            return self._run_once(database, values, read)
        except DatabaseError as error:
            # Without its preparation nothing of it was run.
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
        written, names = self._as_written(cursor), _names_on.setdefault(database.connection, set())
        was_prepared = written.name in names
        try:
            if not was_prepared:
                cursor.execute(written.prepare)
                names.add(written.name)
            cursor.execute(written.execute, values)
        except Exception as error:
            _process.learn_from(sqlstate(error), written.generation, was_prepared=was_prepared)
            raise

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
    # Named by its text: behind a pooler another version of ours may have prepared another one.
    name = f"compiled_{sha256(text.encode()).hexdigest()[:24]}_{generation}"
    given = f" ({', '.join(['%s'] * values)})" if values else ""
    return _Written(name, f"PREPARE {name} AS {text}", f"EXECUTE {name}{given}", generation)


@contextmanager
def _open_cursor(database: Any) -> Iterator[Any]:
    """Open the driver's own cursor as Django does; one of Django's, which costs more, where somebody looks on."""
    if database.queries_logged or database.execute_wrappers:
        with database.cursor() as cursor:
            yield cursor
        return
    database.close_if_health_check_failed()
    database.ensure_connection()
    database.validate_no_broken_transaction()
    with database.wrap_database_errors, closing(database.create_cursor()) as cursor:
        yield cursor


def _all_rows(cursor: Any) -> list[Any]:
    rows: list[Any] = cursor.fetchall()
    return rows
