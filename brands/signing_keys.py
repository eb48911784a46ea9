"""Rotate the key that signs our client assertions (`private_key_jwt`, C7) without failed sign-ins.

Authorization servers cache our public keys, often for hours. So a new key is published a day before it signs, and the
old public key stays published for an hour after its last signature. The clock decides both; the sweep only erases keys
that are no longer used.
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
    """Two keys are published. The new one signs from `signs_from`; the old one is published until `ends_at`."""

    def __init__(self, signs_from: datetime) -> None:
        self.signs_from, self.ends_at = signs_from, signs_from + OLD_KEY_PUBLISHED_FOR
        super().__init__(
            f"a new key is published and signs from {signs_from:%Y-%m-%d %H:%M} UTC; "
            f"the next rotation can begin at {self.ends_at:%H:%M} UTC"
        )


def rotate_signing_key(
    server: AuthorizationServer, *, now: datetime, user: Any = None, at_once: bool = False
) -> AuthorizationServer:
    """Publish a new signing key; the old one signs for another day. Returns the saved row.

    With `at_once`, a new key that is published already signs from now on. If there is none, one is created and signs
    now: sign-ins fail until the brand's server has fetched our keys again. The same happens if the old key cannot be
    decrypted. `user` is the admin who rotates; None means the operator. Raises `NoSigningKey`, `RotationUnderWay`.
    """
    with transaction.atomic():
        rows = AuthorizationServer.objects.select_for_update(of=("self",), no_key=True)  # as in `save_audited`
        current = rows.select_related("brand").get(pk=server.pk)
        if current.signing_key_ciphertext is None:
            raise NoSigningKey
        # The old key may have stopped signing, but its last assertions may still be on their way.
        if not at_once and len(current.published_signing_keys(now)) > 1:
            raise RotationUnderWay(current.previous_signing_key_signs_until or now)
        if current.previous_key_signs(now):
            current.forget_previous_signing_key()
        elif at_once:
            current.update_signing_key(renew=True)
        else:
            _rotate(current, now + SIGNING_KEY_OVERLAP)
        save_audited(current, user)
    return current


def _rotate(server: AuthorizationServer, signs_from: datetime) -> None:
    try:
        server.rotate_signing_key(signs_from)
    except DecryptionError:
        server.update_signing_key(renew=True)


def forget_previous_signing_keys(now: datetime) -> int:
    """Erase old keys that are no longer published; return how many."""
    over = AuthorizationServer.objects.filter(previous_signing_key_signs_until__lte=now - OLD_KEY_PUBLISHED_FOR)
    return over.update(
        previous_signing_key_ciphertext=None,
        previous_signing_key_jwk=None,
        previous_signing_key_signs_until=None,
    )
