"""Compile a queryset once, run it again with new parameters.

Django needs five to ten times as long to build and compile a query as the database needs to run it. The SQL text is
kept, with a `Parameter` for each value that changes. Fields convert the results, and the same model instances come back
as from the queryset. Only the text is kept between calls, so a revoked key is refused at once.
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from functools import cache, cached_property
from typing import Any, Final, Generic, TypeVar
from uuid import UUID

from django.db import DEFAULT_DB_ALIAS, connections, models
from django.db.models import CharField, Expression, Field, Model, QuerySet, Subquery, TextField
from django.db.models.base import ModelState
from django.db.models.constants import OnConflict
from django.db.models.query import get_related_populators
from django.db.models.sql import InsertQuery, UpdateQuery

from infrastructure.prepared import PreparedStatement

Row = TypeVar("Row", bound=Model)


class Parameter(Expression):
    """Placeholder in a queryset for a value that each call supplies. `field` converts the value for the database."""

    def __init__(self, name: str, field: "Field[Any, Any]") -> None:
        super().__init__(output_field=field)
        self.name = name
        self._is_text = isinstance(field, TextField | CharField)

    def prepared(self, value: Any) -> Any:
        """Convert a value for the database. Text needs no conversion."""
        if self._is_text and type(value) is str:
            return value
        return self.output_field.get_db_prep_value(value, connections[DEFAULT_DB_ALIAS])

    def as_sql(self, compiler: Any, connection: Any) -> Any:  # noqa: ARG002  # Django's signature
        """Compile to `%s`, with this object as the parameter."""
        return "%s", [self]


class _Statement(PreparedStatement):
    """SQL text with its parameters. Constants are fixed; each `Parameter` is filled in by the call."""

    def __init__(self, sql: str, parameters: Iterable[Any]) -> None:
        places = dict(enumerate(parameters))
        self._parameters = [parameter for parameter in places.values() if isinstance(parameter, Parameter)]
        constants = {place: value for place, value in places.items() if not isinstance(value, Parameter)}
        super().__init__(sql, constants)

    def filled(self, values: dict[str, Any]) -> list[Any]:
        """Convert the values of one call, in the order of the parameters."""
        return [parameter.prepared(values[parameter.name]) for parameter in self._parameters]


class CompiledRows:
    """A compiled `values_list` query."""

    def __init__(self, queryset: Callable[[], QuerySet[Any]]) -> None:
        self._queryset = queryset

    def rows(self, **values: Any) -> list[Any]:
        """Run the query and return its rows as tuples of Python values."""
        compiler, statement, converters = self._compiled
        rows = statement.rows(statement.filled(values))
        return list(compiler.apply_converters(rows, converters)) if converters else rows

    def run_later(self, **values: Any) -> None:
        """Run the query with the transaction's next statement, for its locks: its rows are not read."""
        _, statement, _ = self._compiled
        statement.later(statement.filled(values))

    @cached_property
    def _compiled(self) -> tuple[Any, _Statement, Any]:
        # One property for all three: two threads that race here each get a complete set.
        compiler: Any = self._queryset().query.get_compiler(DEFAULT_DB_ALIAS)
        statement = _Statement(*compiler.as_sql())
        # Drivers return raw types: SQLite text for datetimes and UUIDs, PostgreSQL text for JSON.
        return compiler, statement, compiler.get_converters([expression for expression, _, _ in compiler.select])


class CompiledQuery(CompiledRows, Generic[Row]):
    """A compiled query that returns model instances, including those of `select_related`."""

    def __init__(self, queryset: Callable[[], QuerySet[Row]]) -> None:
        super().__init__(queryset)

    def all(self, **values: Any) -> list[Row]:
        return [self._instance(row) for row in self.rows(**values)]

    def first(self, **values: Any) -> Row | None:
        return next(iter(self.all(**values)), None)

    def get(self, **values: Any) -> Row:
        """As `first`, but raises the model's `DoesNotExist`."""
        found = self.first(**values)
        if found is None:
            raise self._queryset().model.DoesNotExist
        return found

    def _instance(self, row: Any) -> Row:
        model, names, columns, populators, annotations = self._shape
        instance: Row = loaded(model, names, row[columns])
        for populator in populators:
            _populate(populator, row, instance)
        for name, place in annotations:
            setattr(instance, name, row[place])
        return instance

    @cached_property
    def _shape(self) -> tuple[Any, list[str], slice, list[Any], list[tuple[str, int]]]:
        # The same steps as Django's `ModelIterable`.
        compiler, _, _ = self._compiled
        select, shape = compiler.select, compiler.klass_info
        columns = slice(shape["select_fields"][0], shape["select_fields"][-1] + 1)
        names = [column.target.attname for column, _, _ in select[columns]]
        populators = _related_populators(self._queryset(), shape, select)
        return shape["model"], names, columns, populators, list(compiler.annotation_col_map.items())


class CompiledUpdate:
    """A compiled conditional UPDATE. The new values may be parameters, as those of the condition."""

    def __init__(self, queryset: Callable[[], QuerySet[Any]], **changes: Any) -> None:
        self._queryset, self._changes = queryset, changes

    def run(self, **values: Any) -> int:
        """Run the statement and return how many rows it changed."""
        return self._statement.run(self._statement.filled(values), lambda cursor: int(cursor.rowcount))

    def run_later(self, **values: Any) -> None:
        """Run it with the transaction's next statement, if nobody has to know how many rows it changed."""
        self._statement.later(self._statement.filled(values))

    @cached_property
    def _statement(self) -> _Statement:
        query: Any = self._queryset().query.chain(UpdateQuery)
        query.add_update_values(self._changes)
        return _Statement(*query.get_compiler(DEFAULT_DB_ALIAS).as_sql())


class CompiledInsert:
    """The compiled INSERT of a model. `or_nothing` adds ON CONFLICT DO NOTHING.

    `found_by` names foreign keys to rows whose number is not known yet, each with the unique column to find its row by.
    """

    def __init__(
        self, model: type[Model], *, or_nothing: bool = False, found_by: "dict[str, Field[Any, Any]] | None" = None
    ) -> None:
        self._model, self._or_nothing, self._found_by = model, or_nothing, found_by or {}
        self._fields: Any = [field for field in model._meta.concrete_fields if not field.primary_key]

    def insert(self, instance: Model) -> bool:
        """Insert like `save(force_insert=True)`. Return whether the row was inserted."""
        row = self._statement.run(self._values(instance), lambda cursor: cursor.fetchone())
        if row is None:
            return False
        instance.pk = row[0]
        # As `save` does (documented as `Model._state`).
        instance._state.adding, instance._state.db = False, DEFAULT_DB_ALIAS  # noqa: SLF001
        return True

    def insert_later(self, instance: Model) -> None:
        """Insert with the transaction's next statement (`PreparedStatement.later`). The instance gets no number."""
        self._statement.later(self._values(instance))

    def _values(self, instance: Model) -> list[Any]:
        database: Any = connections[DEFAULT_DB_ALIAS]
        found = vars(instance)
        values = []
        for field, plain_type, by in self._columns:
            value = found[field.attname] if by is None else getattr(getattr(instance, field.name), by.name)
            is_plain = value is None or type(value) is plain_type
            values.append(value if is_plain else (by or field).get_db_prep_save(value, connection=database))
        return values

    @cached_property
    def _columns(self) -> list[tuple[Any, type | None, Any]]:
        """Each field, the type whose values need no conversion, and the column by which its row is found."""
        database: Any = connections[DEFAULT_DB_ALIAS]
        plain_types = _PLAIN_TYPES | (_PLAIN_ON_POSTGRESQL if database.vendor == "postgresql" else {})
        found_by = [self._found_by.get(field.name) for field in self._fields]
        return [
            (field, plain_types.get(type(by or field)), by) for field, by in zip(self._fields, found_by, strict=True)
        ]

    def _sample(self) -> Model:
        """Return an instance for the compiler: any will do, because the text contains only its columns."""
        sample = self._model()
        for name, by in self._found_by.items():
            rows = by.model._default_manager.filter(**{by.name: Parameter(name, by)})
            setattr(sample, f"{name}_id", Subquery(rows.order_by().values("pk")))
        return sample

    @cached_property
    def _statement(self) -> PreparedStatement:
        query = InsertQuery(self._model, on_conflict=OnConflict.IGNORE if self._or_nothing else None)
        query.insert_values(self._fields, [self._sample()])
        compiler: Any = query.get_compiler(DEFAULT_DB_ALIAS)
        compiler.returning_fields = [self._model._meta.pk]
        return PreparedStatement(compiler.as_sql()[0][0])


# Values of these types are stored as they are in columns of these kinds. To convert one, Django makes many calls.
_PLAIN_TYPES: Final[dict[Any, type]] = {
    models.CharField: str, models.TextField: str, models.BooleanField: bool, models.IntegerField: int,
    models.BigIntegerField: int, models.PositiveIntegerField: int, models.PositiveSmallIntegerField: int,
    models.ForeignKey: int,
}  # fmt: skip
_PLAIN_ON_POSTGRESQL: Final[dict[Any, type]] = {models.DateTimeField: datetime, models.UUIDField: UUID}


def _related_populators(queryset: Any, shape: Any, select: Any) -> list[Any]:
    """Return Django's populators of the related instances. From Django 6.1 on they want the queryset's fetch mode."""
    fetch_mode = [queryset._fetch_mode] if hasattr(queryset, "_fetch_mode") else []  # noqa: SLF001
    return list(get_related_populators(shape, select, DEFAULT_DB_ALIAS, *fetch_mode))


def _populate(populator: Any, row: Any, instance: Model) -> None:
    """Set a related instance, like `RelatedPopulator.populate`, but through `loaded`."""
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
    """Build an instance three times as fast as `Model.from_db`. Other columns are deferred; no signals are sent."""
    instance = model.__new__(model)
    state = ModelState()
    state.adding, state.db = False, DEFAULT_DB_ALIAS
    vars(instance).update(zip(names, values, strict=True), _state=state)
    return instance


def unsaved(model: type[Row], **values: Any) -> Row:
    """Build an instance for an insert, three times as fast as `model(...)`. No signals are sent; nothing is checked."""
    instance = model.__new__(model)
    constants, makers = _defaults(model)
    vars(instance).update(constants, _state=ModelState())
    for name, make in makers.items():
        if name not in values:
            setattr(instance, name, make())
    for name, value in values.items():
        setattr(instance, name, value)  # a related instance sets its key, too
    return instance


@cache
def _defaults(model: type[Model]) -> tuple[dict[str, Any], dict[str, Callable[[], Any]]]:
    """Return a model's defaults: those that are always the same, and what makes the others, by attribute."""
    fields = model._meta.concrete_fields
    makers = {field.attname: field.default for field in fields if field.has_default() and callable(field.default)}
    constants = {field.attname: field.get_default() for field in fields if field.attname not in makers}
    return constants, makers


def placeholders(name: str, field: "Field[Any, Any]", count: int) -> list[Parameter]:
    """Make `count` parameters for an `IN` list, named `name0`, `name1` and so on."""
    return [Parameter(f"{name}{number}", field) for number in range(count)]


def numbered(name: str, values: Iterable[Any]) -> dict[str, Any]:
    """Name the values for the parameters that `placeholders` made."""
    return {f"{name}{number}": value for number, value in enumerate(values)}
