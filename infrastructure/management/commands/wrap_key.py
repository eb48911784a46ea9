"""`manage.py wrap_key`: wrap an encryption key, without showing it, for `ENCRYPTION_KEYS` (K8)."""

import secrets
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from infrastructure.crypto import KEY_BYTES, KEY_ID, InvalidKeyRing, keys_of_setting
from infrastructure.key_providers import wrapped_entry
from infrastructure.key_providers.failures import ProviderFailed


class Command(BaseCommand):
    """It changes no setting. The first key is made with it, too, so it runs with an empty `ENCRYPTION_KEYS`."""

    help = "Make an encryption key, wrap it, and print its entry for ENCRYPTION_KEYS."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("id", help="the id of the key, such as k2")
        parser.add_argument("--by", default=settings.ENCRYPTION_KEYS_FROM, help="default: ENCRYPTION_KEYS_FROM")
        parser.add_argument("--existing", action="store_true", help="wrap the ring's key of this id, and no new one")

    def handle(self, *args: Any, **options: Any) -> None:
        """Print the entry, and nothing else, to standard output."""
        if not KEY_ID.fullmatch(options["id"]):
            raise CommandError("An id is lower-case letters, digits and hyphens.")
        try:
            ring = dict(keys_of_setting(settings.ENCRYPTION_KEYS))
            key = self._existing(ring, options["id"]) if options["existing"] else self._new(ring, options["id"])
            self.stdout.write(wrapped_entry(options["by"], options["id"], key))
        except InvalidKeyRing as error:
            raise CommandError(f"ENCRYPTION_KEYS cannot be used: {error}.") from None
        except ProviderFailed as error:
            raise CommandError(f"(delegation.{error.number}) {error}") from None

    def _existing(self, ring: dict[str, bytes], key_id: str) -> bytes:
        if key_id not in ring:
            raise CommandError(f"ENCRYPTION_KEYS has no key {key_id}.")
        return ring[key_id]

    def _new(self, ring: dict[str, bytes], key_id: str) -> bytes:
        if key_id in ring:
            raise CommandError(f"ENCRYPTION_KEYS has a key {key_id} already. Give the new one another id.")
        return secrets.token_bytes(KEY_BYTES)
