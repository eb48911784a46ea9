"""`manage.py reset_second_factor USERNAME`: takes away the second factor of an admin who lost it."""

from argparse import ArgumentParser
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError

from accounts.account_changes import reset_second_factor, tell_of_removed_second_factor


class Command(BaseCommand):
    help = "Remove an account's second factor, end its sessions, and mail its owner."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("username", help="the account's user name")

    def handle(self, *args: Any, **options: Any) -> None:
        """Reset. Exits 1 if there is no such account, or nothing to remove."""
        name = options["username"]
        user = get_user_model().objects.filter(username=name).first()
        if user is None:
            raise CommandError(f"There is no account {name}.")
        if not reset_second_factor(user):
            raise CommandError(f"The account {name} has no second factor; nothing was changed.")
        told = tell_of_removed_second_factor(user)
        by_mail = f"A mail says so to {user.email}." if told else "No mail was sent: tell them yourself."
        self.stdout.write(f"The second factor of {name} is removed and the account is signed out. {by_mail}")
