"""`manage.py check_brand BRAND`: the set-up doctor for a brand's authorization servers."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from brands.doctor import Finding, Verdict, examine
from brands.models import Brand


class Command(BaseCommand):
    """Test each active authorization server of a brand; exit 1 if a problem is proven."""

    help = "Test a brand's authorization servers and say what to fix. The exit status is 1 if a problem is proven."

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
                self.stdout.write(f"{server.key}: {_line(finding)}")
        if not chosen:
            raise CommandError("There is no such active authorization server.")
        if problems:
            raise CommandError(f"{problems} to be fixed.")


def _line(finding: Finding) -> str:
    """Return verdict, code, field, words, and what they rest on."""
    about = f" ({finding.field})" if finding.field else ""
    words = " ".join(filter(None, [finding.meaning, finding.remedy]))
    seen = "; ".join(filter(None, [finding.tried, finding.answer]))
    return f"{finding.verdict:<7} {finding.code}{about}: {words}" + (f" [{seen}]" if seen else "")
