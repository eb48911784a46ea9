"""`manage.py apply_config FILE.toml`: create or update a brand, its authorization servers, APIs and webhooks."""

import json
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from brands.configuration_file import (
    ConfigurationRefused,
    apply_configuration,
    preview_configuration,
    read_configuration,
)


class Command(BaseCommand):
    """Apply a file, or say what it would change. A second run changes nothing. A refused file exits 1."""

    help = "Create or update a brand, its servers, APIs and webhooks from a TOML file (- for standard input)."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", help="the file's path, or - for standard input")
        parser.add_argument(
            "--dry-run",
            action="store_true",
            help="change nothing: print what would change, or all problems of the file; metadata is fetched as usual",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Apply the file; print the redirect URIs and the secrets of new webhooks as JSON. A dry run prints lines."""
        try:
            file = read_configuration(_text(options["file"]))
            if options["dry_run"]:
                self.stdout.write("\n".join(preview_configuration(file) or ["Nothing would change."]))
            else:
                self.stdout.write(json.dumps(apply_configuration(file)))
        except ConfigurationRefused as refused:
            raise CommandError("\n".join(refused.problems)) from None


def _text(file: str) -> str:
    try:
        return (sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()).decode()
    except (OSError, UnicodeDecodeError) as error:
        name = "standard input" if file == "-" else file
        raise CommandError(f"{name} cannot be read: {type(error).__name__}.") from None
