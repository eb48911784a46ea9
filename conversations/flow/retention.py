"""What the clock ends, and what is old enough to be deleted: in chunks, so that no statement holds a table for long."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet

from brands.signing_keys import forget_previous_signing_keys
from brands.webhooks import forget_previous_secrets
from conversations.flow.deliveries import forget_challenges, give_up_switched_off
from conversations.flow.revocations import give_up_old_revocations
from conversations.flow.transitions import close_clock_expired, locked_conversation
from conversations.models import (
    DELIVERY_KEPT_FOR,
    IDEMPOTENCY_LIFETIME,
    OPEN_STATUSES,
    READ_COUNTS_KEPT_FOR,
    AccessToken,
    Challenge,
    Conversation,
    IdempotencyKey,
    TokenReadCount,
    WebhookDelivery,
)
from delegation_site import rate_limits

CHUNK: Final = 500


def sweep(now: datetime) -> int:
    """Close what the clock has ended, erase its ciphertext and write the events (K6); return how many conversations."""
    give_up_old_revocations(now)
    rate_limits.sweep(now)
    forget_previous_secrets(now)
    forget_previous_signing_keys(now)
    give_up_switched_off(now)
    forget_challenges(now)
    _delete_in_chunks(WebhookDelivery.objects.over(now - DELIVERY_KEPT_FOR))
    _delete_in_chunks(IdempotencyKey.objects.filter(created_at__lte=now - IDEMPOTENCY_LIFETIME))
    _delete_in_chunks(TokenReadCount.objects.filter(hour__lt=now - READ_COUNTS_KEPT_FOR))
    swept = 0
    for conversation_pk in _overdue(now):
        with locked_conversation(conversation_pk) as conversation:
            close_clock_expired(conversation, now)
        swept += 1
    return swept


def _overdue(now: datetime) -> Iterator[int]:
    """Return the conversations in which the clock has ended something; each is closed before the next chunk is read.

    The first ones by expiry, and not all at once: PostgreSQL takes most expired rows for unended ones and would read
    the whole table for them, once a minute.
    """
    for rows in (Challenge.objects.clock_expired(now), AccessToken.objects.clock_expired(now)):
        first = rows.order_by("expires_at").values_list("conversation_id", flat=True)[:CHUNK]
        while chunk := set(first.all()):
            yield from sorted(chunk)


def prune(before: datetime) -> tuple[int, int]:
    """Delete what ended before a moment; return how many challenges (with their attempts and tokens) and conversations.

    An open conversation goes when nothing is left in it and no webhook tells of it; a closed one stays as a bare row,
    since it never reopens. The audit log is never touched. The last token of an open conversation stays, without its
    ciphertext: it says why a new challenge is needed, and whose it was (A7).
    """
    live_token = AccessToken.objects.filter(challenge=OuterRef("pk"), ended_at=None)
    confirmed = AccessToken.objects.filter(confirmed_at__isnull=False, conversation__closed_at=None)
    # Whose the conversation is: what a re-challenge is compared with, which need not be the newest of all.
    binding = confirmed.filter(subject_ciphertext__isnull=False).exclude(end_reason=AccessToken.EndReason.UNDONE)
    old = Challenge.objects.exclude(status__in=OPEN_STATUSES).filter(expires_at__lt=before)
    for kept in (live_token, _newest_of_its_chat(confirmed), _newest_of_its_chat(binding)):
        old = old.exclude(Exists(kept))
    challenges = _delete_old(old, "issued_at", before)
    empty = Conversation.objects.filter(created_at__lt=before, closed_at=None, challenges=None, webhook_deliveries=None)
    return challenges, _delete_old(empty, "created_at", before)


def _newest_of_its_chat(tokens: QuerySet[AccessToken]) -> QuerySet[AccessToken]:
    """Return, for a challenge of an outer query, its token where no later one of that chat and server is there."""
    later = tokens.filter(
        conversation=OuterRef("conversation"),
        authorization_server=OuterRef("authorization_server"),
        confirmed_at__gt=OuterRef("confirmed_at"),
    )
    return tokens.filter(challenge=OuterRef("pk")).exclude(Exists(later))


def _delete_old(rows: QuerySet[Challenge] | QuerySet[Conversation], moment: str, before: datetime) -> int:
    """Delete rows a window of the table at a time, so that each statement looks at no more than `CHUNK` of them.

    Looking for the next ones to delete in the whole table would pass all that are kept again for each chunk: at a
    million conversations that was seconds a statement.
    """
    windows = _windows(rows.model, moment, before)
    return sum(_delete_in_chunks(rows.filter(pk__gte=first, pk__lte=last)) for first, last in windows)


def _windows(model: type[Challenge] | type[Conversation], moment: str, before: datetime) -> Iterator[tuple[int, int]]:
    """Return the first and last numbers of stretches of the table, up to where its rows are too young.

    Rows are numbered as they come. One that came out of turn is found when the rows around it are old, too.
    """
    last = 0
    while True:
        rows = model._default_manager.filter(pk__gt=last).order_by("pk")
        window = list(rows.values_list("pk", moment)[:CHUNK])
        if all(at >= before for _, at in window):
            return
        first, last = window[0][0], window[-1][0]
        yield first, last


def _delete_in_chunks(rows: QuerySet[Any]) -> int:
    deleted = 0
    while True:
        with transaction.atomic():
            # On SQLite, which has no row locks, Django leaves the lock out.
            locked = rows.order_by("pk").select_for_update(of=("self",), skip_locked=True)
            chunk = list(locked.values_list("pk", flat=True)[:CHUNK])
            rows.model.objects.filter(pk__in=chunk).delete()
        deleted += len(chunk)
        if len(chunk) < CHUNK:
            return deleted
