"""`manage.py prune`: closes and erases what the clock has ended, and deletes what ended long ago."""

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from conversations.flow.retention import prune, sweep


class Command(BaseCommand):
    """Run it every minute or so: expired tokens are unreadable at once in any case, this erases them."""

    help = "Erase expired tokens now, and delete ended challenges and empty conversations older than --days."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument("--days", type=int, default=30, help="how long ended rows are kept (default: 30)")

    def handle(self, *args: Any, **options: Any) -> None:
        """Sweep, then prune."""
        if options["days"] < 1:
            raise CommandError("--days is at least 1.")
        now = timezone.now()
        swept = sweep(now)
        challenges, conversations = prune(now - timedelta(days=options["days"]))
        self.stdout.write(
            f"swept {swept} conversations; deleted {challenges} challenges, {conversations} conversations"
        )
