"""`manage.py prune`: closes and erases what the clock has ended, and deletes what ended long ago."""

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import Error

from conversations.flow.retention import SweepIncomplete, prune, sweep
from infrastructure.database_clock import ClockDiffers, checked_now
from infrastructure.database_errors import in_one_line


class Command(BaseCommand):
    """Run it every minute or so: expired tokens are unreadable at once in any case, this erases them."""

    help = "Erase expired tokens now, and delete ended challenges and empty conversations older than --days."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument("--days", type=int, default=30, help="how long ended rows are kept (default: 30)")

    def handle(self, *args: Any, **options: Any) -> None:
        """Sweep, then prune; exits with 1 where the clock is wrong, or something was left undone."""
        if options["days"] < 1:
            raise CommandError("--days is at least 1.")
        try:
            self._prune(timedelta(days=options["days"]))
        except ClockDiffers as error:
            raise CommandError(f"Nothing was erased or deleted: {error}. Set the clock and run it again.") from None
        except Error as error:
            raise CommandError(in_one_line(error)) from None

    def _prune(self, kept_for: timedelta) -> None:
        now, left_undone = checked_now(), ""
        try:
            swept = f"swept {sweep(now)} conversations"
        except SweepIncomplete as error:
            swept, left_undone = "swept what could be", str(error)
        challenges, conversations = prune(now - kept_for)
        self.stdout.write(f"{swept}; deleted {challenges} challenges, {conversations} conversations")
        if left_undone:
            raise CommandError(f"The sweep left something undone: {left_undone}")
