"""Statements that the ORM writes once, and that are run with other values each time.

Building and compiling a query takes Django five to ten times as long as the database needs for it, and its text is the
same each time. So the text is kept, with a `Parameter` wherever a call puts its own value; what comes back is converted
by the fields themselves, and made into the instances that the queryset would have given. Nothing else is kept between
two calls: a key that was revoked is gone at the next one.
"""

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, Generic, TypeVar
from weakref import WeakSet

from django.db import (
    DEFAULT_DB_ALIAS,
    InterfaceError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
    connections,
)
from django.db.models import Expression, Field, Model, QuerySet
from django.db.models.constants import OnConflict
from django.db.models.query import get_related_populators
from django.db.models.sql import InsertQuery, UpdateQuery

from delegation_site.crypto import checksum

# SQLSTATE of a prepared statement that is not there, and of one that is there already: the connection is not ours.
_POOLED = ("26000", "42P05")
# ... and of one whose columns have changed since it was prepared: a migration came by.
_STALE = "0A000"

Row = TypeVar("Row", bound=Model)


class Parameter(Expression):
    """Stands in a queryset where each call puts its own value; the field says how the database writes it."""

    def __init__(self, name: str, field: "Field[Any, Any]") -> None:
        super().__init__(output_field=field)
        self.name = name

    def as_sql(self, compiler: Any, connection: Any) -> Any:  # noqa: ARG002  # Django's signature
        """Return a placeholder, with itself among the parameters to be found again."""
        return "%s", [self]


class _Statement:
    """A text and its parameters, some of which are still to be filled in."""

    def __init__(self, sql: str, parameters: Any) -> None:
        self.sql, self._parameters = sql, tuple(parameters)

    def filled(self, database: Any, values: dict[str, Any]) -> list[Any]:
        """Return the parameters of a call."""
        return [
            parameter.output_field.get_db_prep_value(values[parameter.name], database)
            if isinstance(parameter, Parameter)
            else parameter
            for parameter in self._parameters
        ]


class CompiledRows:
    """A query of values, such as `values_list` makes; `prepared` only where no transaction is open.

    PostgreSQL plans it once for each connection then (PREPARE), which can take several times as long as running it. A
    pooler that gives each statement another connection has no use for that: told by its errors, it is sent as it is.
    """

    def __init__(self, queryset: Callable[[], QuerySet[Any]], *, prepared: bool = False) -> None:
        self._queryset, self._may_prepare = queryset, prepared
        self._prepared_on: WeakSet[Any] = WeakSet()

    def rows(self, **values: Any) -> list[Any]:
        """Run the query; return its rows as tuples of Python's values."""
        database: Any = connections[DEFAULT_DB_ALIAS]
        rows = self._fetched(database, self._statement.filled(database, values))
        return list(self._compiler.apply_converters(rows, self._converters)) if self._converters else rows

    def _fetched(self, database: Any, parameters: list[Any]) -> list[Any]:
        try:
            return fetched(lambda cursor: cursor.execute(self._text(database, cursor), parameters))
        except (OperationalError, ProgrammingError, NotSupportedError) as error:
            stale = _sqlstate(error) == _STALE
            if not self._may_prepare or not (stale or _is_pooled(error)):
                raise
            self._may_prepare = stale  # on a new connection it is prepared anew
            if not database.in_atomic_block:
                database.close()
            return fetched(lambda cursor: cursor.execute(self._text(database, cursor), parameters))

    def _text(self, database: Any, cursor: Any) -> str:
        if not self._may_prepare or database.vendor != "postgresql":
            return self._statement.sql
        prepare, execute = self._prepared
        if database.connection not in self._prepared_on:
            cursor.execute(prepare)
            self._prepared_on.add(database.connection)
        return execute

    @cached_property
    def _compiler(self) -> Any:
        return self._queryset().query.get_compiler(DEFAULT_DB_ALIAS)

    @cached_property
    def _statement(self) -> _Statement:
        return _Statement(*self._compiler.as_sql())

    @cached_property
    def _converters(self) -> Any:
        # SQLite's driver returns text for moments and UUIDs, PostgreSQL's returns text for JSON.
        return self._compiler.get_converters([expression for expression, _, _ in self._compiler.select])

    @cached_property
    def _prepared(self) -> tuple[str, str]:
        sql, marks = self._statement.sql, self._statement.sql.count("%s")
        # Named by its text: behind a pooler another version of ours may have prepared another query.
        name = f"compiled_{checksum(sql)}"
        numbered = sql % tuple(f"${number}" for number in range(1, marks + 1))
        return f"PREPARE {name} AS {numbered}", f"EXECUTE {name} ({', '.join(['%s'] * marks)})"


class CompiledQuery(CompiledRows, Generic[Row]):
    """A query of instances, those of `select_related` with them."""

    def __init__(self, queryset: Callable[[], QuerySet[Row]], *, prepared: bool = False) -> None:
        super().__init__(queryset, prepared=prepared)

    def all(self, **values: Any) -> list[Row]:
        """Run the query; return its instances."""
        return [self._instance(row) for row in self.rows(**values)]

    def first(self, **values: Any) -> Row | None:
        """Run the query; return the first instance."""
        return next(iter(self.all(**values)), None)

    def _instance(self, row: Any) -> Row:
        model, names, columns, populators = self._shape
        instance: Row = model.from_db(DEFAULT_DB_ALIAS, names, row[columns])
        for populator in populators:
            populator.populate(row, instance)
        return instance

    @cached_property
    def _shape(self) -> tuple[Any, list[str], slice, list[Any]]:
        # As `ModelIterable` does for each query; the statement has been compiled before.
        select, shape = self._compiler.select, self._compiler.klass_info
        columns = slice(shape["select_fields"][0], shape["select_fields"][-1] + 1)
        names = [column.target.attname for column, _, _ in select[columns]]
        populators = get_related_populators(shape, select, DEFAULT_DB_ALIAS)  # type: ignore[call-arg]  # 6.0's stubs
        return shape["model"], names, columns, populators


class CompiledUpdate:
    """A conditional UPDATE; the values to set may be parameters as those of the condition."""

    def __init__(self, queryset: Callable[[], QuerySet[Any]], **changes: Any) -> None:
        self._queryset, self._changes = queryset, changes

    def run(self, **values: Any) -> int:
        """Run it; return how many rows it changed."""
        database: Any = connections[DEFAULT_DB_ALIAS]
        with database.cursor() as cursor:
            cursor.execute(self._statement.sql, self._statement.filled(database, values))
            return int(cursor.rowcount)

    @cached_property
    def _statement(self) -> _Statement:
        query: Any = self._queryset().query.chain(UpdateQuery)
        query.add_update_values(self._changes)
        return _Statement(*query.get_compiler(DEFAULT_DB_ALIAS).as_sql())


class CompiledInsert:
    """The INSERT of a model. With `or_nothing` a row that a constraint refuses is left out."""

    def __init__(self, model: type[Model], *, or_nothing: bool = False) -> None:
        self._model, self._or_nothing = model, or_nothing
        self._fields = [field for field in model._meta.concrete_fields if not field.primary_key]

    def insert(self, instance: Model) -> bool:
        """Insert a new instance, as `save(force_insert=True)` does; return whether it is in."""
        database: Any = connections[DEFAULT_DB_ALIAS]
        values = [
            field.get_db_prep_save(field.pre_save(instance, add=True), connection=database) for field in self._fields
        ]
        with database.cursor() as cursor:
            cursor.execute(self._sql, values)
            row = cursor.fetchone()
        if row is None:
            return False
        instance.pk = row[0]
        # What a saved instance says of itself (documented as `Model._state`).
        instance._state.adding, instance._state.db = False, DEFAULT_DB_ALIAS  # noqa: SLF001
        return True

    @cached_property
    def _sql(self) -> str:
        query = InsertQuery(self._model, on_conflict=OnConflict.IGNORE if self._or_nothing else None)
        # Which instance does not matter: only its columns are in the text.
        query.insert_values(self._fields, [self._model()])
        compiler: Any = query.get_compiler(DEFAULT_DB_ALIAS)
        compiler.returning_fields = [self._model._meta.pk]
        return str(compiler.as_sql()[0][0])


def fetched(execute: Callable[[Any], object]) -> list[Any]:
    """Run one statement, and return its rows; once more on a new connection where the kept one turns out dead.

    So the statement itself is the check of a kept connection: asking first is a round trip for nothing. In a
    transaction there is no second time.
    """
    database: Any = connections[DEFAULT_DB_ALIAS]
    if not database.in_atomic_block:
        database.health_check_done = True
        try:
            return _rows_of(database, execute)
        except (OperationalError, InterfaceError) as error:
            if _is_pooled(error):
                raise
            database.close()
    return _rows_of(database, execute)


def _is_pooled(error: Exception) -> bool:
    return _sqlstate(error) in _POOLED


def _sqlstate(error: Exception) -> str | None:
    return getattr(error.__cause__, "pgcode", None)


def _rows_of(database: Any, execute: Callable[[Any], object]) -> list[Any]:
    with database.cursor() as cursor:
        execute(cursor)
        rows: list[Any] = cursor.fetchall()
    return rows


def placeholders(name: str, field: "Field[Any, Any]", count: int) -> Iterator[Parameter]:
    """Return parameters for an `IN` of so many values: `name0`, `name1` and on."""
    return (Parameter(f"{name}{number}", field) for number in range(count))
