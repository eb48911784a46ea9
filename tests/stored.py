"""What lies in the database of a test, every cell of it."""

from typing import Any

from django.db import connection


def everything_stored(*prefixes: str) -> str:
    """Return every cell of every table, or of those that begin so, as text and as bytes would read."""
    cells: list[Any] = []
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            if not table.startswith(prefixes or ""):
                continue
            cursor.execute(f'SELECT * FROM "{table}"')  # noqa: S608  # our own table names
            cells += [value for row in cursor.fetchall() for value in row]
    return "\n".join(
        bytes(cell).decode("latin-1") if isinstance(cell, bytes | memoryview) else str(cell) for cell in cells
    )
