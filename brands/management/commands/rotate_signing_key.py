"""`manage.py rotate_signing_key BRAND SERVER`: a new key for our client assertions, with an overlap of a day."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from brands.models import AuthorizationServer
from brands.signing_keys import NoSigningKey, RotationUnderWay, rotate_signing_key


class Command(BaseCommand):
    """Publish a new key beside the old one; exits 1 where there is nothing to rotate."""

    help = "Replace the key that signs our client assertions (private_key_jwt) at a brand's authorization server."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument("brand", help="the brand's slug")
        parser.add_argument("server", help="the authorization server's key")
        parser.add_argument(
            "--at-once",
            action="store_true",
            help="sign with the new key now, for a key that leaked: the brand's server may refuse it while it caches",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Rotate; print which key signs from when."""
        brand, key = options["brand"], options["server"]
        server = AuthorizationServer.objects.filter(brand__slug=brand, key=key).first()
        if server is None:
            raise CommandError(f"There is no authorization server {key} of a brand {brand}.")
        try:
            rotated = rotate_signing_key(server, now=timezone.now(), at_once=options["at_once"])
        except NoSigningKey:
            raise CommandError("This server has no signing key: its client authentication is another.") from None
        except RotationUnderWay as rotation:
            raise CommandError(f"A rotation is under way: {rotation}. --at-once waits for nothing.") from None
        kid = (rotated.signing_key_jwk or {})["kid"]
        until = rotated.previous_signing_key_signs_until
        since = f"from {until:%Y-%m-%d %H:%M} UTC" if until else "from now on"
        self.stdout.write(f"The key {kid} signs {since}. Our keys: {rotated.client_jwks_uri}")
