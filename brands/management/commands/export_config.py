"""`manage.py export_config BRAND`: print a brand's configuration as the file that `apply_config` reads."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from brands.configuration_export import export_configuration
from brands.models import Brand


class Command(BaseCommand):
    help = "Print a brand, its authorization servers and webhooks as a TOML file for apply_config, without secrets."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("brand", help="the brand's slug")

    def handle(self, *args: Any, **options: Any) -> None:
        brand = Brand.objects.filter(slug=options["brand"]).first()
        if brand is None:
            raise CommandError(f"There is no brand {options['brand']}.")
        self.stdout.write(export_configuration(brand), ending="")
