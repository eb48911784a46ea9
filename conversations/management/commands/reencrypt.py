"""`manage.py reencrypt`: encrypt every stored value with the newest key of `ENCRYPTION_KEYS`."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts.second_factors import count_second_factors_by_key_id, stored_second_factors
from conversations.flow.key_usage import counts_by_key
from infrastructure import database_clock
from infrastructure.columns import EncryptedField, encrypted_columns, reencrypt, stored_in


class Command(BaseCommand):
    """It can be stopped and run again. The server may run at the same time, if its key ring has both keys."""

    help = "Re-encrypt every stored value with the newest key, and count the values that still need each key."

    def handle(self, *args: Any, **options: Any) -> None:
        """Re-encrypt, then count by key. Exits with 1 if a value could not be decrypted."""
        unreadable = 0
        values = {_name(column): stored_in(column) for column in encrypted_columns()}
        for name, stored in (values | {"authenticator.data": stored_second_factors()}).items():
            moved, failed = reencrypt(stored)
            unreadable += failed
            self.stdout.write(f"{name}: moved {moved}, unreadable {failed}")
        # The database's clock: if ours were ahead, a key that is still needed would be counted as unused.
        database_clock.measure()
        counts = counts_by_key(database_clock.now()) | {"authenticator.data": count_second_factors_by_key_id()}
        for name, counter in counts.items():
            held = ", ".join(f"{key_id} {count}" for key_id, count in sorted(counter.items())) or "empty"
            self.stdout.write(f"{name} is held by: {held}")
        if unreadable:
            raise CommandError(f"{unreadable} values could not be read with any key of the ring.")


def _name(column: EncryptedField) -> str:
    return f"{column.model._meta.model_name}.{column.name}"
