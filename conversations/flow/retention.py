"""What the clock ends, and what is old enough to be deleted: in chunks, so that no statement holds a table for long."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, Final

from django.db import connection, transaction
from django.db.models import Exists, OuterRef, QuerySet

from brands.signing_keys import forget_previous_signing_keys
from brands.webhooks import forget_previous_secrets
from conversations.flow.events import forget_challenges, give_up_switched_off
from conversations.flow.revocations import finish_revocation, overdue_revocations
from conversations.flow.transitions import close_clock_expired, locked_conversation
from conversations.models import (
    DELIVERY_KEPT_FOR,
    HOURLY_COUNTS_KEPT_FOR,
    IDEMPOTENCY_LIFETIME,
    OPEN_STATUSES,
    READ_COUNTS_KEPT_FOR,
    AccessToken,
    Challenge,
    Conversation,
    HourlyCount,
    IdempotencyKey,
    TokenReadCount,
    WebhookDelivery,
)
from infrastructure import rate_limits
from infrastructure.database_errors import is_unavailable, sqlstate

CHUNK: Final = 500
# A row that somebody else holds is left to the next sweep.
_LOCK_TIMEOUT: Final = "2s"
# SQLSTATEs of a lock that could not be had, a deadlock, a serialization failure, a statement that took too long.
_ABOUT_ONE_ROW: Final = {"55P03", "40P01", "40001", "57014"}
_MOST_NAMED: Final = 5


class SweepIncomplete(Exception):
    """Parts of a sweep failed, the rest was done. The message names them; the first one's error is the cause."""

    def __init__(self, failed: dict[str, Exception]) -> None:
        named = [f"{name} ({type(error).__name__})" for name, error in list(failed.items())[:_MOST_NAMED]]
        more = len(failed) - len(named)
        super().__init__(", ".join(named) + (f" and {more} more" if more > 0 else ""))


@dataclass
class _Parts:
    """The parts of one sweep. Each fails for itself: what one row does must not keep all others from being erased.

    But for a database that is away: every part would find that out anew.
    """

    is_stopping: Callable[[], bool]
    failed: dict[str, Exception] = field(default_factory=dict)

    def run(self, name: str, part: Callable[[], object]) -> bool:
        """Run one part; tell whether it was done. Raises the database's error where that is away."""
        if self.is_stopping() or name in self.failed:
            return False
        try:
            part()
        except Exception as error:
            if _concerns_everything(error):
                raise
            self.failed[name] = error
            return False
        return True


def sweep(now: datetime, is_stopping: Callable[[], bool] = lambda: False) -> int:
    """Close what the clock has ended, erase its ciphertext and write the events (K6); return how many conversations.

    `now` is judged by the caller (`infrastructure.database_clock.checked_now`). Raises `SweepIncomplete` where a part
    failed, after everything else was done, and the database's error where that is away.
    """
    parts = _Parts(is_stopping)
    parts.run("old revocations", lambda: _give_up_old_revocations(parts, now))
    parts.run("rate limits", lambda: rate_limits.sweep(now))
    for change in (
        forget_previous_secrets,
        forget_previous_signing_keys,
        give_up_switched_off,
        forget_challenges,
    ):
        parts.run(change.__name__, partial(_without_waiting_long, change, now))
    for name, old in _what_is_old(now).items():
        parts.run(name, partial(_delete_in_chunks, old))
    swept: list[int] = []
    for overdue in (Challenge.objects.clock_expired(now), AccessToken.objects.clock_expired(now)):
        parts.run(f"overdue {overdue.model.__name__}", partial(_close_overdue, parts, overdue, now, swept))
    if parts.failed:
        raise SweepIncomplete(parts.failed) from next(iter(parts.failed.values()))
    return len(swept)


def _what_is_old(now: datetime) -> dict[str, QuerySet[Any]]:
    return {
        "deliveries": WebhookDelivery.objects.over(now - DELIVERY_KEPT_FOR),
        "idempotency keys": IdempotencyKey.objects.filter(created_at__lte=now - IDEMPOTENCY_LIFETIME),
        "hourly counts": HourlyCount.objects.filter(hour__lt=now - HOURLY_COUNTS_KEPT_FOR),
        "read counts": TokenReadCount.objects.filter(hour__lt=now - READ_COUNTS_KEPT_FOR),
    }


def _give_up_old_revocations(parts: _Parts, now: datetime) -> None:
    for revocation in overdue_revocations(now):
        give_up = partial(finish_revocation, revocation, "given_up")
        parts.run(f"revocation {revocation.uuid}", partial(_without_waiting_long, give_up, now))


def _close_overdue(parts: _Parts, overdue: QuerySet[Any], now: datetime, swept: list[int]) -> None:
    for conversation_pk in _conversations_of(overdue):
        close = partial(_without_waiting_long, partial(_close, conversation_pk), now)
        if parts.run(f"conversation {conversation_pk}", close):
            swept.append(conversation_pk)
        if parts.is_stopping():
            return


def _close(conversation_pk: int, now: datetime) -> None:
    with locked_conversation(conversation_pk) as conversation:
        close_clock_expired(conversation, now)


def _without_waiting_long(change: Callable[[datetime], object], now: datetime) -> None:
    """Make a change in one transaction; whoever holds one of its rows for long is not to hold up all the others."""
    with transaction.atomic():
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute("SELECT set_config('lock_timeout', %s, true)", [_LOCK_TIMEOUT])
        change(now)


def _conversations_of(overdue: QuerySet[Any]) -> Iterator[int]:
    """Return the conversations in which the clock has ended something; each is closed before the next chunk is read.

    The first ones by expiry, and not all at once: PostgreSQL takes most expired rows for unended ones and would read
    the whole table for them, once a minute. From where the last chunk ended: what could not be closed is still there.
    """
    rows = overdue.order_by("expires_at", "pk").values_list("expires_at", "pk", "conversation_id")
    chunk = list(rows[:CHUNK])
    while chunk:
        yield from sorted({conversation_pk for _, _, conversation_pk in chunk})
        expires_at, pk, _ = chunk[-1]
        chunk = list(rows.filter(expires_at__gte=expires_at).exclude(expires_at=expires_at, pk__lte=pk)[:CHUNK])


def _concerns_everything(error: Exception) -> bool:
    """Tell whether the database is away or read-only; a lock or a deadlock is about one row."""
    return is_unavailable(error) and sqlstate(error) not in _ABOUT_ONE_ROW


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
