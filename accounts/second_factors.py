"""Encrypt admins' second factors in allauth's JSON column, and re-encrypt them with the newest key (K4)."""

import base64
import binascii
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Final
from uuid import UUID

from allauth.mfa.models import Authenticator

from infrastructure.columns import Stored, key_id_in
from infrastructure.crypto import AssociatedData, DecryptionError, Secret, key_ring

# Known weakness: allauth gives us only the text, not the row, so the ciphertext cannot be bound to its row. Somebody
# with write access to the database can copy a second factor to another admin's row, where it works.
_ASSOCIATED_DATA: Final = AssociatedData("mfa_authenticator", "data", UUID(int=0), UUID(int=0))
# The JSON member that is encrypted, by the type of authenticator.
_ENCRYPTED_MEMBER: Final = {Authenticator.Type.TOTP: "secret", Authenticator.Type.RECOVERY_CODES: "seed"}


def encrypt_text(text: str) -> str:
    """Encrypt a text. The ciphertext is base64, because it is stored in a JSON column."""
    return base64.b64encode(key_ring().encrypt(Secret(text), _ASSOCIATED_DATA)).decode()


def decrypt_text(encrypted_text: str) -> str:
    """Undo `encrypt_text`. Raises `DecryptionError`."""
    return key_ring().decrypt(_decode(encrypted_text), _ASSOCIATED_DATA).reveal()


def stored_second_factors() -> Iterator[Stored]:
    """Yield every encrypted value for re-encryption.

    The function `replace` of each value writes the whole `data`, and only if nobody has changed it meanwhile.
    """
    for row, member in _values():
        yield Stored(_decode_or_empty(row.data[member]), _ASSOCIATED_DATA, partial(_replace, row, member))


def count_second_factors_by_key_id() -> Counter[str]:
    """Count the encrypted values by key id."""
    return Counter(key_id_in(_decode_or_empty(row.data[member])) for row, member in _values())


def _replace(row: Authenticator, member: str, ciphertext: bytes) -> int:
    data = row.data | {member: base64.b64encode(ciphertext).decode()}
    changed: int = Authenticator.objects.filter(pk=row.pk, data=row.data).update(data=data)
    return changed


def _decode_or_empty(encrypted_text: object) -> bytes:
    """Decode the base64. Anything else gives b"", so that it counts as unreadable and raises no error."""
    try:
        return _decode(encrypted_text)
    except DecryptionError:
        return b""


def _values() -> Iterator[tuple[Authenticator, str]]:
    for kind, member in _ENCRYPTED_MEMBER.items():
        for row in Authenticator.objects.filter(type=kind).order_by("pk"):
            if isinstance(row.data, dict) and member in row.data:
                yield row, member


def _decode(encrypted_text: object) -> bytes:
    if not isinstance(encrypted_text, str):
        raise DecryptionError
    try:
        return base64.b64decode(encrypted_text, validate=True)
    except (binascii.Error, ValueError):
        raise DecryptionError from None
