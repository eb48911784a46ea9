"""Replacing the key that signs our client assertions (`private_key_jwt`, C7) without a failed sign-in.

Servers cache our public keys, many of them for hours. So a new key is published first, and signs a day later; then the
old one disappears. The clock decides both moments, and the sweep only erases what is over.
"""

from datetime import datetime, timedelta
from typing import Any, Final

from django.db import transaction

from brands.audited_changes import save_audited
from brands.models import AuthorizationServer
from brands.models.authorization_server import OLD_KEY_PUBLISHED_FOR
from infrastructure.crypto import DecryptionError

SIGNING_KEY_OVERLAP: Final = timedelta(hours=24)


class NoSigningKey(Exception):
    """The server's client authentication is not `private_key_jwt`."""


class RotationUnderWay(Exception):
    """A new key is published already; `signs_from` is when it begins to sign, `ends_at` when the old one disappears."""

    def __init__(self, signs_from: datetime) -> None:
        self.signs_from, self.ends_at = signs_from, signs_from + OLD_KEY_PUBLISHED_FOR
        super().__init__(
            f"a new key is published already, and signs from {signs_from:%Y-%m-%d %H:%M} UTC; "
            f"the next rotation can begin at {self.ends_at:%H:%M}"
        )


def rotate_signing_key(
    server: AuthorizationServer, *, now: datetime, user: Any = None, at_once: bool = False
) -> AuthorizationServer:
    """Give a server's client a new key, with an overlap of a day; return the saved row.

    At once means: the key that is published already signs from now on; where none is, a new one is made and signs,
    and sign-ins fail until the brand's server has read our keys again. An old key that cannot be decrypted any more
    has nothing to overlap with. Raises `NoSigningKey`, `RotationUnderWay`.
    """
    with transaction.atomic():
        rows = AuthorizationServer.objects.select_for_update(of=("self",), no_key=True)  # as in `save_audited`
        current = rows.select_related("brand").get(pk=server.pk)
        if current.signing_key_ciphertext is None:
            raise NoSigningKey
        # Also while the old key is only published: what it signed last may be on its way.
        if not at_once and len(current.published_signing_keys(now)) > 1:
            raise RotationUnderWay(current.previous_signing_key_signs_until or now)
        if current.previous_key_signs(now):
            current.forget_previous_signing_key()
        elif at_once:
            current.settle_signing_key(renew=True)
        else:
            _rotate(current, now + SIGNING_KEY_OVERLAP)
        save_audited(current, user)
    return current


def _rotate(server: AuthorizationServer, signs_from: datetime) -> None:
    try:
        server.rotate_signing_key(signs_from)
    except DecryptionError:
        server.settle_signing_key(renew=True)


def forget_previous_signing_keys(now: datetime) -> int:
    """Erase the keys whose rotation is over; return how many."""
    over = AuthorizationServer.objects.filter(previous_signing_key_signs_until__lte=now - OLD_KEY_PUBLISHED_FOR)
    return over.update(
        previous_signing_key_ciphertext=None,
        previous_signing_key_jwk=None,
        previous_signing_key_signs_until=None,
    )
