"""Encrypted model fields (K1) and their re-encryption with the newest key (K4).

Every `EncryptedField` is found and re-encrypted automatically. A model attribute holds the ciphertext. Loading a row
decrypts nothing; `reveal` is an explicit call that a reviewer can search for.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from django.apps import apps
from django.db import models

from infrastructure.crypto import AssociatedData, DecryptionError, Secret, key_id_of, key_ring

# Reported instead of a key id if a value is neither a ciphertext nor a digest.
NO_KEY: Final = "unreadable"
_CHUNK: Final = 500


class EncryptedField(models.BinaryField):  # type: ignore[type-arg]  # django-stubs' generics do not exist at run time
    """A column of row-bound ciphertexts. Its model must define `associated_data(column)`, returning `AssociatedData`.

    `related` names the relations that `associated_data` reads, as for `select_related`.
    """

    def __init__(self, *args: Any, related: tuple[str, ...] = ("brand",), **options: Any) -> None:
        self.related = related
        super().__init__(*args, **options)

    def deconstruct(self) -> Any:
        """Describe the field to migrations as a plain `BinaryField`."""
        name, _, args, options = super().deconstruct()
        return name, "django.db.models.BinaryField", args, options

    def rows(self) -> models.QuerySet[Any]:
        """The rows with a value, joined with the relations that `associated_data` reads."""
        return self.model._default_manager.exclude(**{self.name: None}).select_related(*self.related)


def seal(row: Any, column: str, secret: Secret | None) -> None:
    """Encrypt `secret` into this column of `row`; None empties the column. The row is not saved."""
    setattr(row, column, None if secret is None else key_ring().encrypt(secret, row.associated_data(column)))


def reveal(row: Any, column: str) -> Secret:
    """Decrypt this column of `row`. Raises `DecryptionError`, also if the column is empty."""
    return key_ring().decrypt(getattr(row, column) or b"", row.associated_data(column))


def reveal_if_there(row: Any, column: str) -> Secret | None:
    """Decrypt this column of `row`; None if it is empty. Raises `DecryptionError`."""
    return None if getattr(row, column) is None else reveal(row, column)


def encrypted_columns() -> list[EncryptedField]:
    fields = (field for model in apps.get_models() for field in model._meta.concrete_fields)
    return [field for field in fields if isinstance(field, EncryptedField)]


@dataclass(frozen=True)
class Stored:
    """A stored ciphertext and its associated data. `replace` stores another one and returns the number of rows."""

    ciphertext: bytes
    bound_to: AssociatedData
    replace: Callable[[bytes], int]


def stored_in(column: EncryptedField) -> Iterator[Stored]:
    """Yield the values of a column. They are read in chunks, so that no statement runs for long."""
    last = 0
    while chunk := list(column.rows().filter(pk__gt=last).order_by("pk")[:_CHUNK]):
        for row in chunk:
            yield Stored(
                bytes(getattr(row, column.name)), row.associated_data(column.name), partial(_replace, column, row)
            )
        last = chunk[-1].pk


def reencrypt(values: Iterable[Stored]) -> tuple[int, int]:
    """Re-encrypt with the newest key, by conditional UPDATEs. Return how many were changed and how many unreadable."""
    moved = unreadable = 0
    for value in values:
        if key_id_in(value.ciphertext) == key_ring().newest_id:
            continue
        try:
            secret = key_ring().decrypt(value.ciphertext, value.bound_to)
        except DecryptionError:
            unreadable += 1
            continue
        moved += value.replace(key_ring().encrypt(secret, value.bound_to))
    return moved, unreadable


def key_id_in(value: bytes) -> str:
    """Return the id of the key of a ciphertext or digest; `NO_KEY` if the value has no key id."""
    try:
        return key_id_of(value)
    except DecryptionError:
        return NO_KEY


def _replace(column: EncryptedField, row: Any, ciphertext: bytes) -> int:
    unchanged = column.model._default_manager.filter(**{"pk": row.pk, column.name: bytes(getattr(row, column.name))})
    return unchanged.update(**{column.name: ciphertext})
