"""Find which encryption keys are still in use (K4): before an operator removes one, and when a process starts.

A digest cannot be moved to a new key, because its input is not stored. A bot key gets a new digest at its next use. The
other digests are counted as long as someone may still use the value.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from datetime import datetime
from typing import Any, Final

from django.db import models
from django.db.models import F, Func, Q
from django.utils import timezone

from accounts.second_factors import count_second_factors_by_key_id
from brands.models import AuthorizationServer, BotKey, UnsavedClientSecret, WebhookEndpoint
from conversations.models import (
    IDEMPOTENCY_LIFETIME,
    OPEN_STATUSES,
    TRIAL_LIFETIME,
    AccessToken,
    AuthorizationRequest,
    Challenge,
    IdempotencyKey,
    TrialSignIn,
)
from infrastructure.columns import NO_KEY, encrypted_columns, key_id_in, reveal
from infrastructure.crypto import DecryptionError, key_ring

CHUNK = 500
# For a health check: how many rows are read at each end of an index.
SAMPLE: Final = 50
# For a health check: how many values of each column are decrypted.
SAMPLE_TO_DECRYPT: Final = 5
# In bytes: a version or a length, the id's length, and an id of up to 31 characters.
_LONGEST_HEADER: Final = 40


def counts_by_key(now: datetime) -> dict[str, Counter[str]]:
    """Count the stored values by column and key id. An old key can be removed once no column has its id."""
    ciphertexts = [(column.model._default_manager.all(), column.name) for column in encrypted_columns()]
    return {
        f"{rows.model._meta.model_name}.{name}": Counter(key_id_in(bytes(value)) for value in _values(rows, name))
        for rows, name in [*ciphertexts, *_digests(now)]
    }


def unreadable_keys() -> list[str]:
    """Return one sentence for each key that is in use but missing or wrong; empty if all is well.

    Cheap enough for a health check. What brands and operators enter is read completely. Of tokens and links, only the
    ends of an index are read.
    """
    now = timezone.now()
    used: defaultdict[str, set[str]] = defaultdict(set)
    factors = ("second factors", set(count_second_factors_by_key_id()))
    for what, key_ids in [*_entered_by_admins(now), *_created_by_sign_ins(now), factors]:
        for key_id in key_ids - {NO_KEY}:
            used[key_id].add(what)
    ring = key_ring()
    missing = [
        f"ENCRYPTION_KEYS lacks the key {key_id}. It is needed for: {', '.join(sorted(what))}."
        for key_id, what in sorted(used.items())
        if key_id not in ring.ids
    ]
    return missing + [
        f"ENCRYPTION_KEYS has another key {key_id} than the one that encrypted the database."
        for key_id in sorted(_wrong_keys(ring.ids))
    ]


def _entered_by_admins(now: datetime) -> Iterator[tuple[str, set[str]]]:
    yield "bot keys", _ids(BotKey.objects.live(now), "digest")
    yield "client secrets", _ids(AuthorizationServer.objects.active(), "client_secret_ciphertext")
    yield "signing keys", _ids(AuthorizationServer.objects.active(), "signing_key_ciphertext")
    yield "webhook secrets", _ids(WebhookEndpoint.objects.filter(is_active=True), "secret_ciphertext")


def _created_by_sign_ins(now: datetime) -> Iterator[tuple[str, set[str]]]:
    tokens = AccessToken.objects.filter(ended_at=None, expires_at__gt=now)
    for order in ("expires_at", "-expires_at"):
        yield "access tokens", _ids(tokens.order_by(order)[:SAMPLE], "ciphertext")
        yield "links", _ids(Challenge.objects.open(now).order_by(order)[:SAMPLE], "link_token_digest")


def _ids(rows: models.QuerySet[Any], name: str) -> set[str]:
    """Return the key ids in a column. Only the beginning of each value is fetched."""
    beginning = Func(F(name), 1, _LONGEST_HEADER, function="SUBSTR", output_field=models.BinaryField())
    values = rows.values_list(beginning, flat=True)
    return {key_id_in(bytes(value)) for value in values if value is not None}


def _wrong_keys(key_ids: Collection[str]) -> set[str]:
    """Return the ids under which nothing can be decrypted: the key ring has a different key with that id."""
    works: dict[str, bool] = {}
    for column in encrypted_columns():
        if column.model in (AuthorizationServer, WebhookEndpoint, AccessToken):
            for row in column.rows().order_by("-pk")[:SAMPLE_TO_DECRYPT]:
                key_id = key_id_in(bytes(getattr(row, column.name)))
                # One readable value proves the key. An unreadable one may be a row that was tampered with.
                works[key_id] = works.get(key_id, False) or _is_readable(row, column.name)
    return {key_id for key_id, is_right in works.items() if not is_right and key_id in key_ids}


def _is_readable(row: models.Model, column: str) -> bool:
    try:
        reveal(row, column)
    except DecryptionError:
        return False
    return True


def _digests(now: datetime) -> list[tuple[models.QuerySet[Any], str]]:
    """Select the digests of values that someone may still use: bot keys, links, cookies, codes, receipts."""
    keys_in_use = BotKey.objects.filter(Q(expires_at=None) | Q(expires_at__gt=now), revoked_at=None)
    # A link also works while its token can be undone.
    undoable = Q(access_token__ended_at=None, access_token__expires_at__gt=now)
    links = Challenge.objects.filter(Q(status__in=OPEN_STATUSES, expires_at__gt=now) | undoable)
    authorization_requests = AuthorizationRequest.objects.filter(challenge__in=links)
    idempotency_keys = IdempotencyKey.objects.filter(created_at__gt=now - IDEMPOTENCY_LIFETIME)
    trials = TrialSignIn.objects.filter(created_at__gt=now - TRIAL_LIFETIME)
    receipts = AccessToken.objects.filter(ended_at=None, expires_at__gt=now)
    return [
        (keys_in_use, "digest"),
        (links, "link_token_digest"),
        (links, "completion_code_digest"),
        (links, "completion_handle_digest"),
        (authorization_requests, "state_digest"),
        (authorization_requests, "cookie_digest"),
        (links, "expected_subject_digest"),
        (links, "expected_phone_number_digest"),
        (links, "expected_email_digest"),
        (idempotency_keys, "digest"),
        (idempotency_keys, "request_digest"),
        (receipts, "receipt_digest"),
        *((trials, name) for name in ("session_digest", "state_digest", "cookie_digest")),
        (UnsavedClientSecret.objects.filter(expires_at__gt=now), "session_digest"),
    ]


def _values(rows: models.QuerySet[Any], name: str) -> Iterator[Any]:
    with_value = rows.exclude(**{name: None}).order_by("pk")
    return with_value.values_list(name, flat=True).iterator(chunk_size=CHUNK)
