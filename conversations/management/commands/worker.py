"""`manage.py worker`: deliver the outbox, and sweep once a minute. Run one or more with the web processes."""

import logging
import os
import signal
from argparse import ArgumentParser
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError
from django.db import DEFAULT_DB_ALIAS, Error, connections

from conversations.outbox.worker import RunIncomplete, run, run_once, threads_of_worker
from infrastructure import metrics
from infrastructure.database_errors import in_one_line

# An HTTP call takes at most 10 s, and then its result is stored. Only a database that is connected and does not answer
# takes longer.
STOPS_WITHIN_SECONDS: Final = 20
CONNECT_WITHIN_SECONDS: Final = 5

logger = logging.getLogger("consumer_delegation.worker")
# Lines of the logger above say that something is wrong, or right again.
start_logger = logging.getLogger("consumer_delegation.start")


class Command(BaseCommand):
    """Runs until SIGTERM or SIGINT, and then finishes the entries that it has begun."""

    help = "Deliver webhooks, revoke ended tokens at the brands, and sweep once a minute."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--once", action="store_true", help="do what is due now, then exit")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run. With `--once`, exits with 1 if an entry or the sweep failed."""
        metrics.start()
        if options["once"]:
            self._once()
            return
        metrics.mark_worker()
        _connect_within(CONNECT_WITHIN_SECONDS)
        start_logger.info("the worker starts", extra={"most_database_connections": threads_of_worker() + 1})
        stop = Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        _run_until(stop)

    def _once(self) -> None:
        try:
            self.stdout.write(f"done {run_once()}")
        except RunIncomplete as error:
            self.stdout.write(f"done {error.done}")
            raise CommandError(str(error)) from None
        except Error as error:
            raise CommandError(in_one_line(error)) from None


def _connect_within(seconds: int) -> None:
    """Limit connection attempts to the database. One without an answer would delay the retries and the stop."""
    settings = connections.settings[DEFAULT_DB_ALIAS]
    if settings["ENGINE"].endswith("postgresql"):
        settings["OPTIONS"].setdefault("connect_timeout", seconds)


def _run_until(stop: Event) -> None:
    """Run the worker in a thread: Python handles no signal while the main thread waits in the database driver."""
    running = ThreadPoolExecutor(max_workers=1).submit(run, stop)
    while not running.done() and not stop.wait(1):
        pass
    try:
        running.result(STOPS_WITHIN_SECONDS)
    except TimeoutError:
        # No traceback: it would only show this wait.
        logger.error("open entries did not finish; they are repeated when their lease ends")  # noqa: TRY400
        logging.shutdown()
        os._exit(1)  # a normal exit would wait for the hanging threads
