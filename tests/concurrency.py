"""Threads that start together, each with its own database connections. For `django_db(transaction=True)` tests."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TypeVar

from django.db import connections

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
