"""Statements that PostgreSQL plans once for each connection (PREPARE), and cursors without Django's own overhead.

Planning a join takes PostgreSQL several times as long as running it, and the text is the same each time. A pooler that
hands connections around between transactions has no use for that: it is told by its errors, or beforehand by
`DISABLE_SERVER_SIDE_CURSORS=true` in `DATABASE_URL`, which is Django's own word for such a pooler.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from itertools import count
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

from django.db import DEFAULT_DB_ALIAS, DatabaseError, InterfaceError, OperationalError, connections

# SQLSTATE of a prepared statement that is not there, and of one that is there already: the connection is not ours.
_POOLED: Final = {"26000", "42P05"}
# ... and of one whose columns have changed since it was prepared: a migration came by.
_STALE: Final = "0A000"

Result = TypeVar("Result")

logger = logging.getLogger("consumer_delegation.prepared")


class _Pooler:
    """Whether this process has met one. What was found out for one statement holds for all."""

    noticed = False


# What each connection knows: of two statements with one text, the second is prepared already.
_names_on: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()


class PreparedStatement:
    """A statement with `%s` for what each call fills in. Away from PostgreSQL it is sent as it is.

    `constants` are the values that are the same each time, by the number of their `%s`. They are written into what is
    prepared: a plan for any value whatever could not use an index of some rows alone (`WHERE ended_at IS NULL`).

    Raises Django's database errors; after one about its preparation the next time goes well.
    """

    def __init__(self, sql: str, constants: Mapping[int, Any] | None = None) -> None:
        self.sql = sql
        self._constants = constants or {}
        self._places = sql.count("%s")
        self._times_stale = 0
        self._preparation: _Preparation | None = None

    def rows(self, values: Iterable[Any]) -> list[Any]:
        """Run it, and return its rows; once more on a new connection where the kept one turns out dead.

        So the statement itself is the check of a kept connection: asking first is a round trip for nothing. In a
        transaction there is no second time.
        """
        database: Any = connections[DEFAULT_DB_ALIAS]
        given = list(values)
        if not database.in_atomic_block:
            database.health_check_done = True
            try:
                return self._run(database, given, _all_rows)
            except (OperationalError, InterfaceError):
                database.close()
        return self._run(database, given, _all_rows)

    def run(self, values: Iterable[Any], read: Callable[[Any], Result]) -> Result:
        """Run it once; return what `read` makes of the cursor."""
        return self._run(connections[DEFAULT_DB_ALIAS], list(values), read)

    def _run(self, database: Any, values: list[Any], read: Callable[[Any], Result]) -> Result:
        try:
            return self._run_once(database, values, read)
        except DatabaseError as error:
            # Without its preparation nothing of it was run. A transaction, though, has ended with the error.
            if database.in_atomic_block or _sqlstate(error) not in _POOLED | {_STALE}:
                raise
        return self._run_once(database, values, read)

    def _run_once(self, database: Any, values: list[Any], read: Callable[[Any], Result]) -> Result:
        with _open_cursor(database) as cursor:
            self._execute(database, cursor, values)
            return read(cursor)

    def _execute(self, database: Any, cursor: Any, values: list[Any]) -> None:
        pooled = _Pooler.noticed or database.settings_dict.get("DISABLE_SERVER_SIDE_CURSORS")
        if pooled or database.vendor != "postgresql":
            cursor.execute(self.sql, list(self._filled(values)))
            return
        try:
            cursor.execute(self._prepared(database, cursor), values)
        except Exception as error:
            self._learn_from(_sqlstate(error))
            raise

    def _filled(self, values: list[Any]) -> Iterator[Any]:
        given = iter(values)
        for place in range(self._places):
            yield self._constants[place] if place in self._constants else next(given)

    def _prepared(self, database: Any, cursor: Any) -> str:
        preparation = self._preparation or self._prepare(cursor)
        names = _names_on.setdefault(database.connection, set())
        if preparation.name not in names:
            cursor.execute(preparation.prepare)
            names.add(preparation.name)
        return preparation.execute

    def _prepare(self, cursor: Any) -> "_Preparation":
        literals = {place: cursor.mogrify("%s", [value]).decode() for place, value in self._constants.items()}
        numbers = count(1)
        written = (literals.get(place) or f"${next(numbers)}" for place in range(self._places))
        self._preparation = _Preparation.of(self.sql % tuple(written), self._places - len(literals), self._times_stale)
        return self._preparation

    def _learn_from(self, sqlstate: str | None) -> None:
        if sqlstate in _POOLED:
            logger.warning("a pooler: statements are planned each time; see DISABLE_SERVER_SIDE_CURSORS")
            _Pooler.noticed = True
        elif sqlstate == _STALE:
            self._times_stale += 1
            self._preparation = None


@dataclass(frozen=True, slots=True)
class _Preparation:
    """The two texts under one name."""

    name: str
    prepare: str
    execute: str

    @classmethod
    def of(cls, text: str, values: int, times_stale: int) -> "_Preparation":
        """Name a text by itself: behind a pooler another version of ours may have prepared another one."""
        name = f"compiled_{sha256(text.encode()).hexdigest()[:24]}_{times_stale}"
        given = f" ({', '.join(['%s'] * values)})" if values else ""
        return cls(name, f"PREPARE {name} AS {text}", f"EXECUTE {name}{given}")


def forget_in_process() -> None:
    """Forget that there was a pooler; tests begin without one."""
    _Pooler.noticed = False


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


def _sqlstate(error: BaseException) -> str | None:
    """Return the code of the driver's error, whether or not Django's stands before it."""
    return getattr(error.__cause__ or error, "pgcode", None)
