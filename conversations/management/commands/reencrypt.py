"""`manage.py reencrypt`: moves every stored value to the newest key of `ENCRYPTION_KEYS`."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts.second_factors import reencrypt_second_factors, second_factors_by_key
from conversations.flow.reencryption import COLUMNS, counts_by_key, reencrypt
from infrastructure import database_clock


class Command(BaseCommand):
    """Safe to stop and start again; the server may run meanwhile, with both keys in its ring."""

    help = "Re-encrypt every stored value under the newest key, and count what each key still holds."

    def handle(self, *args: Any, **options: Any) -> None:
        """Re-encrypt, then count; exit 1 where a value could not be read."""
        unreadable = 0
        for column in COLUMNS:
            moved, failed = reencrypt(column)
            unreadable += failed
            self.stdout.write(f"{column.model._meta.model_name}.{column.name}: moved {moved}, unreadable {failed}")
        moved, failed = reencrypt_second_factors()
        unreadable += failed
        self.stdout.write(f"authenticator.data: moved {moved}, unreadable {failed}")
        # By the database's clock: ours may be ahead, and a key that is still needed would count as free to go.
        database_clock.measure()
        counts = counts_by_key(database_clock.now()) | {"authenticator.data": second_factors_by_key()}
        for name, counter in counts.items():
            held = ", ".join(f"{key_id} {count}" for key_id, count in sorted(counter.items())) or "empty"
            self.stdout.write(f"{name} is held by: {held}")
        if unreadable:
            raise CommandError(f"{unreadable} values could not be read with any key of the ring.")
