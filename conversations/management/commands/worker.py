"""`manage.py worker`: the outbox and the minute sweep. Run one or more of it beside the web processes."""

import logging
import os
import signal
from argparse import ArgumentParser
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError
from django.db import DEFAULT_DB_ALIAS, Error, connections

from conversations.outbox.worker import RunIncomplete, run, run_once
from infrastructure.database_errors import in_one_line

# What is under way ends by itself within the 10 s of a call and the writing of its result. What hangs in a database
# that is connected and does not answer never does.
STOPS_WITHIN_SECONDS: Final = 20
CONNECT_WITHIN_SECONDS: Final = 5

logger = logging.getLogger("consumer_delegation.worker")


class Command(BaseCommand):
    """Works until it gets SIGTERM or SIGINT, and finishes what is under way first."""

    help = "Deliver webhooks, revoke ended tokens at the brands, and sweep once a minute."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument("--once", action="store_true", help="do what is due now, then exit")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run; `--once` exits with 1 where something was left undone."""
        if options["once"]:
            self._once()
            return
        _connect_within(CONNECT_WITHIN_SECONDS)
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
    """Bound each connect: one that is never answered would hold the pauses and the stop up."""
    settings = connections.settings[DEFAULT_DB_ALIAS]
    if settings["ENGINE"].endswith("postgresql"):
        settings["OPTIONS"].setdefault("connect_timeout", seconds)


def _run_until(stop: Event) -> None:
    """Run in a thread: a signal is not handled while the main one waits inside the database's driver."""
    running = ThreadPoolExecutor(max_workers=1).submit(run, stop)
    while not running.done() and not stop.wait(1):
        pass
    try:
        running.result(STOPS_WITHIN_SECONDS)
    except TimeoutError:
        logger.error("what is under way does not end: it is left, and done again after its lease")  # noqa: TRY400  no traceback of the waiting
        logging.shutdown()
        os._exit(1)  # the threads that hang would be waited for
