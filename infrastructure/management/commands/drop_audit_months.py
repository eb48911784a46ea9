"""`manage.py drop_audit_months --keep-months 24`: drop whole months of the audit log, as a role that may do that."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import Error, ProgrammingError, connection

from infrastructure.audit_partitions import LEAST_KEPT, drop_month
from infrastructure.database_errors import in_one_line

_NOT_ALLOWED = "This role may drop no month of the audit log: docs/operator.md says how to make one that may."


class Command(BaseCommand):
    """Needs PostgreSQL, and `DATABASE_URL` of a role that may execute `audit_log_drop_month` (H13)."""

    help = "Drop the months of the audit log that are older than --keep-months. Each leaves an audit row."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--keep-months", type=int, required=True, help=f"how many are kept, at least {LEAST_KEPT}")

    def handle(self, *args: Any, **options: Any) -> None:
        """Drop, oldest first, each month in a transaction of its own. Exits with 1 if that is not allowed."""
        if connection.vendor != "postgresql":
            raise CommandError("Only on PostgreSQL the audit log has months.")
        if options["keep_months"] < LEAST_KEPT:
            raise CommandError(f"--keep-months is at least {LEAST_KEPT}.")
        try:
            while dropped := drop_month(options["keep_months"]):
                self.stdout.write(f"dropped {dropped[0]}, {dropped[1]} rows")
        except ProgrammingError:
            raise CommandError(_NOT_ALLOWED) from None
        except Error as error:
            raise CommandError(in_one_line(error)) from None
