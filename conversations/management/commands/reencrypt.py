"""`manage.py reencrypt`: moves every stored value to the newest key of `ENCRYPTION_KEYS`."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from conversations.flow.reencryption import COLUMNS, counts_by_key, reencrypt


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
        for name, counter in counts_by_key(timezone.now()).items():
            held = ", ".join(f"{key_id} {count}" for key_id, count in sorted(counter.items())) or "empty"
            self.stdout.write(f"{name} is held by: {held}")
        if unreadable:
            raise CommandError(f"{unreadable} values could not be read with any key of the ring.")
