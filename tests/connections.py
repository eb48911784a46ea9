"""The kept connection of a test to PostgreSQL. For `django_db(transaction=True)` tests."""

from django.db import connection


def kill_the_kept_connection() -> None:
    """End the server's side of it, as a restart does; this side notices at its next statement."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (process,) = cursor.fetchone()
    killer = connection.copy()
    with killer.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [process])
    killer.close()
