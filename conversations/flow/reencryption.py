"""Which keys are still needed (K4): before an old one goes, and when a process starts with a ring.

A digest cannot be moved: what it was made of is not here. A bot key's moves at its next use; the others are counted for
as long as somebody may still come with what they recognise.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from datetime import datetime
from typing import Any, Final

from django.db import models
from django.db.models import F, Func, Q
from django.utils import timezone

from accounts.second_factors import second_factors_by_key
from brands.models import AuthorizationServer, BotKey, UnsavedClientSecret, WebhookEndpoint
from conversations.models import (
    IDEMPOTENCY_LIFETIME,
    OPEN_STATUSES,
    AccessToken,
    AuthorizationRequest,
    Challenge,
    IdempotencyKey,
)
from infrastructure.columns import NO_KEY, encrypted_columns, key_id_in, reveal
from infrastructure.crypto import DecryptionError, key_ring

CHUNK = 500
# How many rows of a large table are looked at from each end, and how many of each column are decrypted, for a probe.
SAMPLE: Final = 50
SAMPLE_TO_DECRYPT: Final = 5
# The version or a length, an id of 31 characters, and its length.
_LONGEST_HEADER: Final = 40


def counts_by_key(now: datetime) -> dict[str, Counter[str]]:
    """Return how many values each key id still holds: an old key can go when none of the columns names it."""
    ciphertexts = [(column.model._default_manager.all(), column.name) for column in encrypted_columns()]
    return {
        f"{rows.model._meta.model_name}.{name}": Counter(key_id_in(bytes(value)) for value in _values(rows, name))
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
    return {key_id_in(bytes(value)) for value in values if value is not None}


def _under_other_keys(key_ids: Collection[str]) -> set[str]:
    """Return the ids of keys that read nothing of what names them: somebody made a new key with an old key's id."""
    judged: dict[str, bool] = {}
    for column in encrypted_columns():
        if column.model in (AuthorizationServer, WebhookEndpoint, AccessToken):
            for row in column.rows().order_by("-pk")[:SAMPLE_TO_DECRYPT]:
                key_id = key_id_in(bytes(getattr(row, column.name)))
                # One that is read is enough: a row that was tampered with says nothing about the key.
                judged[key_id] = judged.get(key_id, False) or _is_readable(row, column.name)
    return {key_id for key_id, is_right in judged.items() if not is_right and key_id in key_ids}


def _is_readable(row: models.Model, column: str) -> bool:
    try:
        reveal(row, column)
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
        (UnsavedClientSecret.objects.filter(expires_at__gt=now), "session_digest"),
    ]


def _values(rows: models.QuerySet[Any], name: str) -> Iterator[Any]:
    present = rows.exclude(**{name: None}).order_by("pk")
    return present.values_list(name, flat=True).iterator(chunk_size=CHUNK)
