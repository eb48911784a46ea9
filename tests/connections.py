"""The test's persistent connection to PostgreSQL, and others. For `django_db(transaction=True)` tests."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg2
from django.db import connection


def kill_the_kept_connection() -> None:
    """Terminate it on the server, as a restart does. The client notices at its next statement."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (process,) = cursor.fetchone()
    killer = connection.copy()
    with killer.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [process])
    killer.close()


@contextmanager
def locked_elsewhere(table: str) -> Iterator[None]:
    """Lock a table on another connection, like a transaction that somebody left open."""
    # Without Django, so without the time-outs of a web process. Another thread may end it.
    named = {"dbname": connection.settings_dict["NAME"], "user": connection.settings_dict["USER"]}
    other = psycopg2.connect(**named, host=connection.settings_dict["OPTIONS"]["host"])
    try:
        with other.cursor() as cursor:
            cursor.execute(f"LOCK TABLE {table}")
        yield
    finally:
        other.close()
