"""Key rotation (K4): every ciphertext moves to the newest key, in chunks, resumable; then the old key can go.

A digest cannot be moved: what it was made of is not here. A bot key's moves at its next use; the others are counted for
as long as somebody may still come with what they recognise.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, cast

from django.db import models
from django.db.models import Q

from brands.models import AuthorizationServer, BotKey, WebhookEndpoint
from conversations.models import (
    IDEMPOTENCY_LIFETIME,
    OPEN_STATUSES,
    AccessToken,
    AuthorizationRequest,
    Challenge,
    IdempotencyKey,
    Revocation,
    WebhookDelivery,
)
from delegation_site.crypto import DecryptionError, Place, key_id_of, key_ring

CHUNK = 500
# Where no key can be named: the value is neither a ciphertext nor a digest of ours.
NO_KEY: Final = "unreadable"


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
    Column(AuthorizationServer, "signing_key_ciphertext", ("brand",)),
    Column(AuthorizationServer, "previous_signing_key_ciphertext", ("brand",)),
    Column(Challenge, "link_token_ciphertext", ("conversation__brand",)),
    Column(Challenge, "context_ciphertext", ("conversation__brand",)),
    Column(AuthorizationRequest, "code_verifier_ciphertext", ("challenge__conversation__brand",)),
    Column(AccessToken, "ciphertext", ("conversation__brand",)),
    Column(AccessToken, "response_members_ciphertext", ("conversation__brand",)),
    Column(AccessToken, "subject_ciphertext", ("conversation__brand",)),
    Column(Revocation, "ciphertext", ("conversation__brand",)),
    Column(WebhookEndpoint, "secret_ciphertext", ("brand",)),
    Column(WebhookEndpoint, "previous_secret_ciphertext", ("brand",)),
    Column(WebhookDelivery, "payload_ciphertext", ("conversation__brand", "endpoint__brand")),
)


def reencrypt(column: Column) -> tuple[int, int]:
    """Move a column to the newest key; return how many rows were moved and how many could not be read.

    A row that changed meanwhile is left as it is: each write is a conditional UPDATE on the old ciphertext.
    """
    moved = unreadable = 0
    for row in _rows(column):
        old = bytes(getattr(row, column.name))
        if _key_id(old) == key_ring().newest_id:
            continue
        try:
            new = key_ring().encrypt(key_ring().decrypt(old, column.place(row)), column.place(row))
        except DecryptionError:
            unreadable += 1
            continue
        unchanged = column.model._default_manager.filter(**{"pk": row.pk, column.name: old})
        moved += unchanged.update(**{column.name: new})
    return moved, unreadable


def counts_by_key(now: datetime) -> dict[str, Counter[str]]:
    """Return how many values each key id still holds: an old key can go when none of the columns names it."""
    ciphertexts = [(column.model._default_manager.all(), column.name) for column in COLUMNS]
    return {
        f"{rows.model._meta.model_name}.{name}": Counter(_key_id(bytes(value)) for value in _values(rows, name))
        for rows, name in [*ciphertexts, *_digests(now)]
    }


def _digests(now: datetime) -> list[tuple[models.QuerySet[Any], str]]:
    """Return the digests that still recognise something: keys in use, links that lead on and what hangs on them."""
    keys_in_use = BotKey.objects.filter(Q(expires_at=None) | Q(expires_at__gt=now), revoked_at=None)
    # A link also leads on while its token can be undone.
    undoable = Q(access_token__ended_at=None, access_token__expires_at__gt=now)
    links = Challenge.objects.filter(Q(status__in=OPEN_STATUSES, expires_at__gt=now) | undoable)
    attempts = AuthorizationRequest.objects.filter(challenge__in=links)
    keys_of_requests = IdempotencyKey.objects.filter(created_at__gt=now - IDEMPOTENCY_LIFETIME)
    receipts = AccessToken.objects.filter(ended_at=None, expires_at__gt=now)
    return [
        (keys_in_use, "digest"),
        (links, "link_token_digest"),
        (links, "completion_code_digest"),
        (links, "completion_handle_digest"),
        (attempts, "state_digest"),
        (attempts, "cookie_digest"),
        (links, "expected_subject_digest"),
        (keys_of_requests, "digest"),
        (keys_of_requests, "request_digest"),
        (receipts, "receipt_digest"),
    ]


def _rows(column: Column) -> Iterator[Any]:
    rows = column.model._default_manager.exclude(**{column.name: None}).select_related(*column.related)
    last = 0
    while chunk := list(rows.filter(pk__gt=last).order_by("pk")[:CHUNK]):
        yield from chunk
        last = chunk[-1].pk


def _values(rows: models.QuerySet[Any], name: str) -> Iterator[Any]:
    present = rows.exclude(**{name: None}).order_by("pk")
    return present.values_list(name, flat=True).iterator(chunk_size=CHUNK)


def _key_id(value: bytes) -> str:
    try:
        return key_id_of(value)
    except DecryptionError:
        return NO_KEY
