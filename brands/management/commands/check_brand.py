"""`manage.py check_brand BRAND`: the set-up doctor for a brand's authorization servers."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from brands.doctor import Verdict, examine
from brands.models import Brand


class Command(BaseCommand):
    """Try each active authorization server of a brand, and exit 1 where something has to be mended."""

    help = "Try a brand's authorization servers out and say what has to be mended."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument("brand", help="the brand's slug")
        parser.add_argument(
            "--server", default="", help="the key of one authorization server; default: all active ones"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Print one line for each finding."""
        brand = Brand.objects.filter(slug=options["brand"]).first()
        if brand is None:
            raise CommandError(f"There is no brand {options['brand']}.")
        servers = brand.authorization_servers.active().select_related("brand")
        chosen = servers.filter(key=options["server"]) if options["server"] else servers
        problems = 0
        for server in chosen:
            for finding in examine(server):
                problems += finding.verdict == Verdict.PROBLEM
                self.stdout.write(f"{server.key}: {finding.verdict:<7} {finding.about}: {finding.words}")
        if not chosen:
            raise CommandError("There is no such active authorization server.")
        if problems:
            raise CommandError(f"{problems} to be mended.")
