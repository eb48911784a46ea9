"""The rows that a scene left in the database, kept to be put into the database of the next test that begins with it.

The scene itself is played once in each process, through the product: to play it for every test of the admin took a
third of the suite's time.
"""

from typing import Any, Final

from django.db import connection, transaction

Rows = dict[str, set[tuple[Any, ...]]]
_FIRST_ID: Final = 1_000_000


def stored() -> Rows:
    """Return all rows, by table."""
    rows: Rows = {}
    with connection.cursor() as cursor:
        for table in connection.introspection.django_table_names(only_existing=True, include_views=False):
            cursor.execute(f'SELECT * FROM "{table}"')  # noqa: S608  # our own table names
            rows[table] = {tuple(map(_hashable, row)) for row in cursor.fetchall()}
    return rows


def number_from_afar() -> None:
    """Let new rows have ids that no test reaches by itself: SQLite gives those of a rolled-back transaction again."""
    if connection.vendor != "sqlite":
        return
    tables = connection.introspection.django_table_names(only_existing=True, include_views=False)
    with connection.cursor() as cursor:
        cursor.executemany("DELETE FROM sqlite_sequence WHERE name = %s", [[table] for table in tables])
        numbered: list[list[str | int]] = [[table, _FIRST_ID] for table in tables]
        cursor.executemany("INSERT INTO sqlite_sequence (name, seq) VALUES (%s, %s)", numbered)


def put_back(rows: Rows) -> None:
    """Store rows, each of which must be missing."""
    with transaction.atomic(), connection.cursor() as cursor:
        for table, found in rows.items():
            values = ", ".join(["%s"] * len(next(iter(found))))
            cursor.executemany(f'INSERT INTO "{table}" VALUES ({values})', list(found))  # noqa: S608  # as above


def _hashable(value: Any) -> Any:
    return bytes(value) if isinstance(value, memoryview) else value
