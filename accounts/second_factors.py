"""Admins' second factors at rest: ciphertexts inside allauth's JSON column, and their move to the newest key (K4)."""

import base64
import binascii
from collections import Counter
from collections.abc import Iterator
from typing import Final
from uuid import UUID

from allauth.mfa.models import Authenticator

from infrastructure.crypto import DecryptionError, Place, Secret, key_id_of, key_ring

# Where no key can be named: the value is no ciphertext of ours.
NO_KEY: Final = "unreadable"
# allauth hands over the text alone, not whose row it is: a second factor that SQL moves to another row is read there.
_PLACE: Final = Place("mfa_authenticator", "data", UUID(int=0), UUID(int=0))
_MEMBER: Final = {Authenticator.Type.TOTP: "secret", Authenticator.Type.RECOVERY_CODES: "seed"}


def encrypt_text(text: str) -> str:
    """Return the ciphertext as text, for a JSON column."""
    return base64.b64encode(key_ring().encrypt(Secret(text), _PLACE)).decode()


def decrypt_text(encrypted_text: str) -> str:
    """Return what `encrypt_text` was given. Raises `DecryptionError`."""
    return key_ring().decrypt(_raw(encrypted_text), _PLACE).reveal()


def reencrypt_second_factors() -> tuple[int, int]:
    """Move every value to the newest key; return how many were moved and how many could not be read.

    A row that changed meanwhile is left as it is, since an authenticator's data is replaced as a whole.
    """
    moved = unreadable = 0
    for row, member in _values():
        try:
            if _key_id(row.data[member]) == key_ring().newest_id:
                continue
            data = row.data | {member: encrypt_text(decrypt_text(row.data[member]))}
        except DecryptionError:
            unreadable += 1
            continue
        moved += Authenticator.objects.filter(pk=row.pk, data=row.data).update(data=data)
    return moved, unreadable


def second_factors_by_key() -> Counter[str]:
    """Return how many values each key id still holds."""
    return Counter(_key_id(row.data[member]) for row, member in _values())


def _key_id(encrypted_text: object) -> str:
    try:
        return key_id_of(_raw(encrypted_text))
    except DecryptionError:
        return NO_KEY


def _values() -> Iterator[tuple[Authenticator, str]]:
    for kind, member in _MEMBER.items():
        for row in Authenticator.objects.filter(type=kind).order_by("pk"):
            if isinstance(row.data, dict) and member in row.data:
                yield row, member


def _raw(encrypted_text: object) -> bytes:
    if not isinstance(encrypted_text, str):
        raise DecryptionError
    try:
        return base64.b64decode(encrypted_text, validate=True)
    except (binascii.Error, ValueError):
        raise DecryptionError from None
