"""Threads that start together, each with its own database connections. For `django_db(transaction=True)` tests."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from time import sleep
from typing import Any, TypeVar

from django.db import connection, connections, transaction

Result = TypeVar("Result")


def at_once(times: int, call: Callable[[int], Result]) -> list[Result]:
    """Call `call(0)` to `call(times - 1)` in as many threads at the same moment. Returns the results in that order.

    Exceptions of a call are raised here. Each thread closes its connections, so that the test database can be dropped.
    """
    barrier = Barrier(times)

    def run(number: int) -> Result:
        try:
            barrier.wait(timeout=30)
            return call(number)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(max_workers=times) as threads:
        return list(threads.map(run, range(times)))


def meanwhile(lock: Callable[[], Any], *saves: Callable[[], Any]) -> list[Any]:
    """Hold a lock until each of the saves waits for one, first the first. Return what they return."""

    def run(save: Callable[[], Any]) -> Any:
        try:
            return save()
        finally:
            connections.close_all()

    with ThreadPoolExecutor() as threads:
        with transaction.atomic():
            lock()
            begun = []
            for save in saves:
                begun.append(threads.submit(run, save))
                while waiting() < len(begun) and not begun[-1].done():
                    sleep(0.02)
        return [one.result() for one in begun]


def waiting() -> int:
    """Count the connections that wait for a lock. SQLite cannot say it, and lets only one transaction begin."""
    if connection.vendor == "sqlite":
        sleep(0.3)
        return 2
    with connection.cursor() as cursor:
        # Within a transaction, PostgreSQL reads the activity once.
        cursor.execute("SELECT pg_stat_clear_snapshot()")
        here = "datname = current_database() AND wait_event_type = 'Lock'"
        cursor.execute(f"SELECT count(*) FROM pg_stat_activity WHERE {here}")  # noqa: S608  # ours
        return int(cursor.fetchone()[0])
