"""`manage.py worker`: the outbox and the minute sweep. Run one or more of it beside the web processes."""

import signal
from argparse import ArgumentParser
from threading import Event
from typing import Any

from django.core.management.base import BaseCommand

from conversations.outbox.worker import run, run_once


class Command(BaseCommand):
    """Works until it gets SIGTERM or SIGINT, and finishes what is under way first."""

    help = "Deliver webhooks, revoke ended tokens at the brands, and sweep once a minute."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument("--once", action="store_true", help="do what is due now, then exit")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run."""
        if options["once"]:
            self.stdout.write(f"done {run_once()}")
            return
        stop = Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        run(stop)
