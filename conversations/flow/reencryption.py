"""Key rotation (K4): every ciphertext moves to the newest key, in chunks, resumable; then the old key can go.

A digest cannot be moved: what it was made of is not here. A bot key's moves at its next use; the others are counted for
as long as somebody may still come with what they recognise.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, cast

from django.db import models
from django.db.models import F, Func, Q
from django.utils import timezone

from accounts.second_factors import second_factors_by_key
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
from infrastructure.crypto import DecryptionError, Place, key_id_of, key_ring

CHUNK = 500
# Where no key can be named: the value is neither a ciphertext nor a digest of ours.
NO_KEY: Final = "unreadable"
# How many rows of a large table are looked at from each end, and how many of each column are decrypted, for a probe.
SAMPLE: Final = 50
SAMPLE_TO_DECRYPT: Final = 5
# The version or a length, an id of 31 characters, and its length.
_LONGEST_HEADER: Final = 40


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


def unreadable_keys() -> list[str]:
    """Return a sentence for each key without which this ring cannot read what is in use; none where all is well.

    Cheap enough for a probe: whole tables only of what brands and operators type, and the ends of an index of the rest.
    """
    now = timezone.now()
    used: defaultdict[str, set[str]] = defaultdict(set)
    for what, key_ids in [*_typed(now), *_of_consumers(now), ("second factors", set(second_factors_by_key()))]:
        for key_id in key_ids - {NO_KEY}:
            used[key_id].add(what)
    ring = key_ring()
    lacking = [
        f"ENCRYPTION_KEYS lacks the key {key_id}, which {', '.join(sorted(what))} are under."
        for key_id, what in sorted(used.items())
        if key_id not in ring.ids
    ]
    return lacking + [
        f"ENCRYPTION_KEYS has another key {key_id} than the one that the database was written with."
        for key_id in sorted(_under_other_keys(ring.ids))
    ]


def _typed(now: datetime) -> Iterator[tuple[str, set[str]]]:
    yield "bot keys", _ids(BotKey.objects.live(now), "digest")
    yield "client secrets", _ids(AuthorizationServer.objects.active(), "client_secret_ciphertext")
    yield "signing keys", _ids(AuthorizationServer.objects.active(), "signing_key_ciphertext")
    yield "webhook secrets", _ids(WebhookEndpoint.objects.filter(is_active=True), "secret_ciphertext")


def _of_consumers(now: datetime) -> Iterator[tuple[str, set[str]]]:
    tokens = AccessToken.objects.filter(ended_at=None, expires_at__gt=now)
    for order in ("expires_at", "-expires_at"):
        yield "access tokens", _ids(tokens.order_by(order)[:SAMPLE], "ciphertext")
        yield "links", _ids(Challenge.objects.open(now).order_by(order)[:SAMPLE], "link_token_digest")


def _ids(rows: models.QuerySet[Any], name: str) -> set[str]:
    """Return the key ids of a column; only the beginning of each value is fetched."""
    beginning = Func(F(name), 1, _LONGEST_HEADER, function="SUBSTR", output_field=models.BinaryField())
    values = rows.values_list(beginning, flat=True)
    return {_key_id(bytes(value)) for value in values if value is not None}


def _under_other_keys(key_ids: Collection[str]) -> set[str]:
    """Return the ids of keys that read nothing of what names them: somebody made a new key with an old key's id."""
    judged: dict[str, bool] = {}
    for column in COLUMNS:
        if column.model in (AuthorizationServer, WebhookEndpoint, AccessToken):
            for row in _newest(column):
                value = bytes(getattr(row, column.name))
                key_id = _key_id(value)
                # One that is read is enough: a row that was tampered with says nothing about the key.
                judged[key_id] = judged.get(key_id, False) or _is_readable(value, column.place(row))
    return {key_id for key_id, is_right in judged.items() if not is_right and key_id in key_ids}


def _newest(column: Column) -> models.QuerySet[Any]:
    rows = column.model._default_manager.exclude(**{column.name: None}).select_related(*column.related)
    return rows.order_by("-pk")[:SAMPLE_TO_DECRYPT]


def _is_readable(value: bytes, place: Place) -> bool:
    try:
        key_ring().decrypt(value, place)
    except DecryptionError:
        return False
    return True


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
