"""`manage.py rotate_signing_key BRAND SERVER`: replace the key of our client assertions, with a day of overlap."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from brands.models import AuthorizationServer
from brands.signing_keys import NoSigningKey, RotationUnderWay, rotate_signing_key


class Command(BaseCommand):
    """Publish a new key beside the old one. Exits 1 if the server has no signing key or a rotation is under way."""

    help = "Replace the key that signs our client assertions (private_key_jwt) at a brand's authorization server."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("brand", help="the brand's slug")
        parser.add_argument("server", help="the authorization server's key")
        parser.add_argument(
            "--at-once",
            action="store_true",
            help="sign with the new key now (if the old one leaked); sign-ins fail until the server fetches our keys",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Rotate; print the new key's id and when it begins to sign."""
        brand, key = options["brand"], options["server"]
        server = AuthorizationServer.objects.filter(brand__slug=brand, key=key).first()
        if server is None:
            raise CommandError(f"There is no brand {brand} with an authorization server {key}.")
        try:
            rotated = rotate_signing_key(server, now=timezone.now(), at_once=options["at_once"])
        except NoSigningKey:
            raise CommandError(
                "This server has no signing key: its client authentication is not private_key_jwt."
            ) from None
        except RotationUnderWay as rotation:
            raise CommandError(f"A rotation is under way: {rotation}. With --at-once, the new key signs now.") from None
        kid = (rotated.signing_key_jwk or {})["kid"]
        until = rotated.previous_signing_key_signs_until
        since = f"from {until:%Y-%m-%d %H:%M} UTC" if until else "from now on"
        self.stdout.write(f"The key {kid} signs {since}. Our keys: {rotated.client_jwks_uri}")
