"""Build indexes and check foreign keys after a large table was filled (PostgreSQL): it takes a fraction of the time.

PostgreSQL itself writes down how to make what is dropped. The statements are kept in a table, so that a seeding that
was stopped can go on. Partitioned tables, primary keys, and what another table refers to keep their indexes. So do
partial indexes: PostgreSQL writes some conditions down in other words than they were made with.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from django.db import connection, transaction

# Constraints come last: an index may not be built twice, and foreign keys need the unique ones.
_FIND: Final = """
    WITH filled AS (SELECT oid, oid::regclass::text AS name FROM pg_class WHERE relkind = 'r' AND relname = ANY(%s)),
    constraints AS (
        SELECT c.contype, c.conname, filled.name, pg_get_constraintdef(c.oid) AS definition
        FROM pg_constraint c JOIN filled ON filled.oid = c.conrelid
        WHERE c.contype = 'f' OR c.contype = 'u' AND NOT EXISTS (
            SELECT FROM pg_constraint other WHERE other.contype = 'f' AND other.conindid = c.conindid)
    )
    SELECT 1, format('DROP INDEX %%s', indexrelid::regclass), pg_get_indexdef(indexrelid)
    FROM pg_index JOIN filled ON filled.oid = indrelid
    WHERE indpred IS NULL AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)
    UNION ALL
    SELECT CASE contype WHEN 'u' THEN 2 ELSE 3 END, format('ALTER TABLE %%s DROP CONSTRAINT %%I', name, conname),
        format('ALTER TABLE %%s ADD CONSTRAINT %%I %%s', name, conname, definition)
    FROM constraints
    ORDER BY 1
"""
_KEPT: Final = "bench_dropped_indexes"


@contextmanager
def built_afterwards(tables: Sequence[str]) -> Iterator[None]:
    """Drop the tables' indexes and foreign keys for the block, and make them again when it has succeeded."""
    if _KEPT not in connection.introspection.table_names():
        _drop(tables)
    yield
    _make()


@transaction.atomic
def _drop(tables: Sequence[str]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(_FIND, [list(tables)])
        found = cursor.fetchall()
        cursor.execute(f'CREATE TABLE "{_KEPT}" (place integer, statement text)')
        for place, _, make in found:
            cursor.execute(f'INSERT INTO "{_KEPT}" VALUES (%s, %s)', [place, make])  # noqa: S608  # a name of ours
        for _, drop, _ in reversed(found):
            cursor.execute(drop)


@transaction.atomic
def _make() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL maintenance_work_mem = '512MB'")
        cursor.execute(f'SELECT statement FROM "{_KEPT}" ORDER BY place')  # noqa: S608  # a name of ours
        for (statement,) in cursor.fetchall():
            cursor.execute(statement)
        cursor.execute(f'DROP TABLE "{_KEPT}"')
