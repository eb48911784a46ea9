"""`manage.py prune`: sweep once, then delete rows that ended long ago."""

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import Error

from conversations.flow.retention import SweepIncomplete, prune, sweep
from infrastructure.database_clock import ClockDiffers, checked_now
from infrastructure.database_errors import in_one_line


class Command(BaseCommand):
    """Run it once a night. It can run while the worker runs."""

    help = "Erase expired tokens now, and delete ended challenges and empty conversations older than --days."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--days", type=int, default=30, help="how long ended rows are kept (default: 30)")

    def handle(self, *args: Any, **options: Any) -> None:
        """Sweep and prune. Exits with 1 if the clock is wrong or the sweep could not finish."""
        if options["days"] < 1:
            raise CommandError("--days is at least 1.")
        try:
            self._prune(timedelta(days=options["days"]))
        except ClockDiffers as error:
            raise CommandError(f"Nothing was erased or deleted: {error}. Set the clock and run it again.") from None
        except Error as error:
            raise CommandError(in_one_line(error)) from None

    def _prune(self, kept_for: timedelta) -> None:
        now, unfinished = checked_now(), ""
        try:
            swept = f"swept {sweep(now)} conversations"
        except SweepIncomplete as error:
            swept, unfinished = "swept in part", str(error)
        challenges, conversations = prune(now - kept_for)
        self.stdout.write(f"{swept}; deleted {challenges} challenges, {conversations} conversations")
        if unfinished:
            raise CommandError(f"The sweep did not finish: {unfinished}")
