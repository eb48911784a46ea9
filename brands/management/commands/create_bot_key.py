"""`manage.py create_bot_key BRAND --label NAME --scope ... [--check ...]`: create a key and print it once."""

from argparse import ArgumentParser
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError

from brands.authentication import create_bot_key
from brands.models import BotKey, Brand, SamePersonCheck


class Command(BaseCommand):
    """Create a bot key. There is no default scope, so that nobody gets `token:read` by accident (G3)."""

    help = "Create a bot key and print it. Standard output contains nothing else. It cannot be shown again."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("brand", help="the brand's slug")
        parser.add_argument("--label", required=True)
        parser.add_argument("--scope", action="append", required=True, choices=BotKey.Scope.values, dest="scopes")
        parser.add_argument(
            "--check",
            action="append",
            default=[],
            choices=SamePersonCheck.values,
            dest="checks",
            help="a same-person check that its challenges may use; without one: all that the server accepts",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        brand = Brand.objects.filter(slug=options["brand"]).first()
        if brand is None:
            raise CommandError(f"There is no brand {options['brand']}.")
        try:
            label = BotKey._meta.get_field("label").clean(options["label"], None)
        except ValidationError as error:
            raise CommandError(f"--label: {' '.join(error.messages)}") from None
        _, key = create_bot_key(brand, label, set(options["scopes"]), same_person_checks=set(options["checks"]))
        self.stdout.write(key.reveal())
