"""Every cell of a test's database."""

from typing import Any

from django.db import connection


def everything_stored(*prefixes: str) -> str:
    """Every cell of all tables, or of those with these prefixes, as text."""
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
