"""Store the rows of a scene, and restore them in the database of the next test that begins with it.

The scene itself is created once in each process, through the product. Creating it for every test of the admin took a
third of the suite's time.
"""

from typing import Any, Final

from django.db import connection, transaction

Rows = dict[str, set[tuple[Any, ...]]]
_FIRST_ID: Final = 1_000_000


def stored() -> Rows:
    """All rows, by table."""
    rows: Rows = {}
    with connection.cursor() as cursor:
        for table in connection.introspection.django_table_names(only_existing=True, include_views=False):
            cursor.execute(f'SELECT * FROM "{table}"')  # noqa: S608  # our own table names
            rows[table] = {tuple(map(_hashable, row)) for row in cursor.fetchall()}
    return rows


def number_from_afar() -> None:
    """Begin new ids at a high number: SQLite reuses the ids of a rolled-back transaction."""
    if connection.vendor != "sqlite":
        return
    tables = connection.introspection.django_table_names(only_existing=True, include_views=False)
    with connection.cursor() as cursor:
        cursor.executemany("DELETE FROM sqlite_sequence WHERE name = %s", [[table] for table in tables])
        numbered: list[list[str | int]] = [[table, _FIRST_ID] for table in tables]
        cursor.executemany("INSERT INTO sqlite_sequence (name, seq) VALUES (%s, %s)", numbered)


def put_back(rows: Rows) -> None:
    """Insert rows, none of which may exist."""
    with transaction.atomic(), connection.cursor() as cursor:
        for table, found in rows.items():
            values = ", ".join(["%s"] * len(next(iter(found))))
            cursor.executemany(f'INSERT INTO "{table}" VALUES ({values})', list(found))  # noqa: S608  # as above


def _hashable(value: Any) -> Any:
    return bytes(value) if isinstance(value, memoryview) else value
