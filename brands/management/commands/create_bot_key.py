"""`manage.py create_bot_key BRAND --label NAME --scope ... [--check ...]`: create a key and print it once."""

from argparse import ArgumentParser
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError

from brands.authentication import create_bot_key
from brands.models import LIMITS_OF_A_KEY, BotKey, Brand, SamePersonCheck


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

        for name in LIMITS_OF_A_KEY:
            said = "in each process" if name == "token_reads_per_minute" else "of all processes"
            flag = f"--{name.replace('_', '-')}"
            parser.add_argument(flag, type=int, help=f"a limit of its own, {said}; without it: that of every key")

    def handle(self, *args: Any, **options: Any) -> None:
        brand = Brand.objects.filter(slug=options["brand"]).first()
        if brand is None:
            raise CommandError(f"There is no brand {options['brand']}.")
        label, *limits = [_cleaned(name, options[name]) for name in ("label", *LIMITS_OF_A_KEY)]
        checks, given = set(options["checks"]), dict(zip(LIMITS_OF_A_KEY, limits, strict=True))
        _, key = create_bot_key(brand, label, set(options["scopes"]), same_person_checks=checks, **given)
        self.stdout.write(key.reveal())


def _cleaned(name: str, value: Any) -> Any:
    field: Any = BotKey._meta.get_field(name)
    try:
        return field.clean(value, None)
    except ValidationError as error:
        raise CommandError(f"--{name.replace('_', '-')}: {' '.join(error.messages)}") from None
