"""Statements that the ORM writes once, and that are run with other values each time.

Building and compiling a query takes Django five to ten times as long as the database needs for it, and its text is the
same each time. So the text is kept, with a `Parameter` wherever a call puts its own value; what comes back is converted
by the fields themselves, and made into the instances that the queryset would have given. Nothing else is kept between
two calls: a key that was revoked is gone at the next one.
"""

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any, Generic, TypeVar

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.models import Expression, Field, Model, QuerySet
from django.db.models.base import ModelState
from django.db.models.constants import OnConflict
from django.db.models.query import get_related_populators
from django.db.models.sql import InsertQuery, UpdateQuery

from infrastructure.prepared import PreparedStatement

Row = TypeVar("Row", bound=Model)


class Parameter(Expression):
    """Stands in a queryset where each call puts its own value; the field says how the database writes it."""

    def __init__(self, name: str, field: "Field[Any, Any]") -> None:
        super().__init__(output_field=field)
        self.name = name

    def as_sql(self, compiler: Any, connection: Any) -> Any:  # noqa: ARG002  # Django's signature
        """Return a placeholder, with itself among the parameters to be found again."""
        return "%s", [self]


class _Statement(PreparedStatement):
    """A text and its parameters, some of which are filled in by each call."""

    def __init__(self, sql: str, parameters: Iterable[Any]) -> None:
        places = dict(enumerate(parameters))
        self._parameters = [parameter for parameter in places.values() if isinstance(parameter, Parameter)]
        constants = {place: value for place, value in places.items() if not isinstance(value, Parameter)}
        super().__init__(sql, constants)

    def filled(self, values: dict[str, Any]) -> list[Any]:
        """Return what this call fills in."""
        database = connections[DEFAULT_DB_ALIAS]
        return [
            parameter.output_field.get_db_prep_value(values[parameter.name], database) for parameter in self._parameters
        ]


class CompiledRows:
    """A query of values, such as `values_list` makes."""

    def __init__(self, queryset: Callable[[], QuerySet[Any]]) -> None:
        self._queryset = queryset

    def rows(self, **values: Any) -> list[Any]:
        """Run the query; return its rows as tuples of Python's values."""
        compiler, statement, converters = self._compiled
        rows = statement.rows(statement.filled(values))
        return list(compiler.apply_converters(rows, converters)) if converters else rows

    @cached_property
    def _compiled(self) -> tuple[Any, _Statement, Any]:
        # All at once: of two threads that come first, each has a compiler that has compiled.
        compiler: Any = self._queryset().query.get_compiler(DEFAULT_DB_ALIAS)
        statement = _Statement(*compiler.as_sql())
        # SQLite's driver returns text for moments and UUIDs, PostgreSQL's returns text for JSON.
        return compiler, statement, compiler.get_converters([expression for expression, _, _ in compiler.select])


class CompiledQuery(CompiledRows, Generic[Row]):
    """A query of instances, those of `select_related` with them."""

    def __init__(self, queryset: Callable[[], QuerySet[Row]]) -> None:
        super().__init__(queryset)

    def all(self, **values: Any) -> list[Row]:
        """Run the query; return its instances."""
        return [self._instance(row) for row in self.rows(**values)]

    def first(self, **values: Any) -> Row | None:
        """Run the query; return the first instance."""
        return next(iter(self.all(**values)), None)

    def get(self, **values: Any) -> Row:
        """Run the query; return its instance. Raises the model's `DoesNotExist`."""
        found = self.first(**values)
        if found is None:
            raise self._queryset().model.DoesNotExist
        return found

    def _instance(self, row: Any) -> Row:
        model, names, columns, populators = self._shape
        instance: Row = loaded(model, names, row[columns])
        for populator in populators:
            _populate(populator, row, instance)
        return instance

    @cached_property
    def _shape(self) -> tuple[Any, list[str], slice, list[Any]]:
        # As `ModelIterable` does for each query.
        compiler, _, _ = self._compiled
        select, shape = compiler.select, compiler.klass_info
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
        return self._statement.run(self._statement.filled(values), lambda cursor: int(cursor.rowcount))

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
        row = self._statement.run(values, lambda cursor: cursor.fetchone())
        if row is None:
            return False
        instance.pk = row[0]
        # What a saved instance says of itself (documented as `Model._state`).
        instance._state.adding, instance._state.db = False, DEFAULT_DB_ALIAS  # noqa: SLF001
        return True

    @cached_property
    def _statement(self) -> PreparedStatement:
        query = InsertQuery(self._model, on_conflict=OnConflict.IGNORE if self._or_nothing else None)
        # Which instance does not matter: only its columns are in the text.
        query.insert_values(self._fields, [self._model()])
        compiler: Any = query.get_compiler(DEFAULT_DB_ALIAS)
        compiler.returning_fields = [self._model._meta.pk]
        return PreparedStatement(compiler.as_sql()[0][0])


def _populate(populator: Any, row: Any, instance: Model) -> None:
    """Do what `RelatedPopulator.populate` does, with `loaded`."""
    values = row[populator.cols_start : populator.cols_end]
    if values[populator.pk_idx] is None:
        populator.local_setter(instance, None)
        return
    related = loaded(populator.model_cls, populator.init_list, values)
    for further in populator.related_populators:
        _populate(further, row, related)
    populator.local_setter(instance, related)
    populator.remote_setter(related, instance)


def loaded(model: type[Row], names: Iterable[str], values: Iterable[Any]) -> Row:
    """Return an instance with these columns, as `Model.from_db` does in three times the time.

    A column that is not named is fetched when it is asked for. No signal of a new instance is sent: we listen to none.
    """
    instance = model.__new__(model)
    state = ModelState()
    state.adding, state.db = False, DEFAULT_DB_ALIAS
    vars(instance).update(zip(names, values, strict=True), _state=state)
    return instance


def placeholders(name: str, field: "Field[Any, Any]", count: int) -> list[Parameter]:
    """Return parameters for an `IN` of so many values: `name0`, `name1` and on."""
    return [Parameter(f"{name}{number}", field) for number in range(count)]


def numbered(name: str, values: Iterable[Any]) -> dict[str, Any]:
    """Return the values of a call for the `placeholders` of that name."""
    return {f"{name}{number}": value for number, value in enumerate(values)}
