"""Key rotation (K4): every ciphertext moves to the newest key, in chunks, resumable; then the old key can go."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from django.db import models

from brands.models import AuthorizationServer, BotKey
from conversations.models import AccessToken, AuthorizationRequest, Challenge
from delegation_site.crypto import DecryptionError, Place, key_id_of, key_ring

CHUNK = 500


@dataclass(frozen=True)
class Column:
    """A column of ciphertexts, and how one of its rows names its place."""

    model: type[models.Model]
    name: str
    related: tuple[str, ...]

    def place(self, row: Any) -> Place:
        """Return the associated data's place of this row."""
        return cast(Place, row.place(self.name))


COLUMNS = (
    Column(AuthorizationServer, "client_secret_ciphertext", ("brand",)),
    Column(Challenge, "link_token_ciphertext", ("conversation__brand",)),
    Column(Challenge, "context_ciphertext", ("conversation__brand",)),
    Column(AuthorizationRequest, "code_verifier_ciphertext", ("challenge__conversation__brand",)),
    Column(AccessToken, "ciphertext", ("conversation__brand",)),
)


def reencrypt(column: Column) -> tuple[int, int]:
    """Move a column to the newest key; return how many rows were moved and how many could not be read.

    A row that changed meanwhile is left as it is: each write is a conditional UPDATE on the old ciphertext.
    """
    moved = unreadable = 0
    for row in _rows(column):
        old = bytes(getattr(row, column.name))
        if key_id_of(old) == key_ring().newest_id:
            continue
        try:
            new = key_ring().encrypt(key_ring().decrypt(old, column.place(row)), column.place(row))
        except DecryptionError:
            unreadable += 1
            continue
        unchanged = column.model._default_manager.filter(**{"pk": row.pk, column.name: old})
        moved += unchanged.update(**{column.name: new})
    return moved, unreadable


def counts_by_key() -> dict[str, Counter[str]]:
    """Return, for each column of ciphertexts and for the bot keys' digests, how many rows each key id still holds."""
    columns = [(column.model, column.name) for column in COLUMNS] + [(BotKey, "digest")]
    return {
        f"{model._meta.model_name}.{name}": Counter(key_id_of(bytes(value)) for value in _values(model, name))
        for model, name in columns
    }


def _rows(column: Column) -> Iterator[Any]:
    rows = column.model._default_manager.exclude(**{column.name: None}).select_related(*column.related)
    last = 0
    while chunk := list(rows.filter(pk__gt=last).order_by("pk")[:CHUNK]):
        yield from chunk
        last = chunk[-1].pk


def _values(model: type[models.Model], name: str) -> Iterator[Any]:
    rows = model._default_manager.exclude(**{name: None}).order_by("pk")
    return rows.values_list(name, flat=True).iterator(chunk_size=CHUNK)
