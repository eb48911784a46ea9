"""Encrypted columns (K1), and their move to the newest key (K4).

Being an `EncryptedField` is all that it takes for a column to be re-encrypted. An attribute holds the ciphertext:
reading a row decrypts nothing, and `reveal` is a call that can be searched for.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from django.apps import apps
from django.db import models

from infrastructure.crypto import AssociatedData, DecryptionError, Secret, key_id_of, key_ring

# Where no key can be named: the value is neither a ciphertext nor a digest of ours.
NO_KEY: Final = "unreadable"
_CHUNK: Final = 500


class EncryptedField(models.BinaryField):  # type: ignore[type-arg]  # django-stubs' generics do not exist at run time
    """A column of ciphertexts that are bound to their rows. Its model has `place(column)`, which returns a `Place`.

    `place_needs` are the relations that `place` follows, as for `select_related`.
    """

    def __init__(self, *args: Any, related: tuple[str, ...] = ("brand",), **options: Any) -> None:
        self.related = related
        super().__init__(*args, **options)

    def deconstruct(self) -> Any:
        """Return what a migration keeps: to the database it is a column of bytes."""
        name, _, args, options = super().deconstruct()
        return name, "django.db.models.BinaryField", args, options

    def rows(self) -> models.QuerySet[Any]:
        """Return the rows that have a value, with what their places need."""
        return self.model._default_manager.exclude(**{self.name: None}).select_related(*self.related)


def seal(row: Any, column: str, secret: Secret | None) -> None:
    """Encrypt a value for this row and column, or forget it. The row is not saved."""
    setattr(row, column, None if secret is None else key_ring().encrypt(secret, row.associated_data(column)))


def reveal(row: Any, column: str) -> Secret:
    """Return the value. Raises `DecryptionError`, also where there is none any more."""
    return key_ring().decrypt(getattr(row, column) or b"", row.associated_data(column))


def reveal_if_there(row: Any, column: str) -> Secret | None:
    """Return the value; None where the column is empty. Raises `DecryptionError`."""
    return None if getattr(row, column) is None else reveal(row, column)


def encrypted_columns() -> list[EncryptedField]:
    """Return every encrypted column of every model, in the order in which models are declared."""
    fields = (field for model in apps.get_models() for field in model._meta.concrete_fields)
    return [field for field in fields if isinstance(field, EncryptedField)]


@dataclass(frozen=True)
class Stored:
    """One stored ciphertext, its place, and what writes another in its stead and returns how many rows that changed."""

    ciphertext: bytes
    bound_to: AssociatedData
    replace: Callable[[bytes], int]


def stored_in(column: EncryptedField) -> Iterator[Stored]:
    """Return the values of a column, in chunks, so that no statement holds the table for long."""
    last = 0
    while chunk := list(column.rows().filter(pk__gt=last).order_by("pk")[:_CHUNK]):
        for row in chunk:
            yield Stored(
                bytes(getattr(row, column.name)), row.associated_data(column.name), partial(_replace, column, row)
            )
        last = chunk[-1].pk


def reencrypt(values: Iterable[Stored]) -> tuple[int, int]:
    """Move values to the newest key; return how many were moved and how many could not be read.

    A row that changed meanwhile is left as it is: each write is a conditional UPDATE on the old value.
    """
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
    """Return the id of the key of a ciphertext or digest; `NO_KEY` where it names none."""
    try:
        return key_id_of(value)
    except DecryptionError:
        return NO_KEY


def _replace(column: EncryptedField, row: Any, ciphertext: bytes) -> int:
    unchanged = column.model._default_manager.filter(**{"pk": row.pk, column.name: bytes(getattr(row, column.name))})
    return unchanged.update(**{column.name: ciphertext})
