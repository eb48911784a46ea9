"""End what has expired (sweep) and delete what is old (prune), in chunks that hold no lock for long."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from itertools import takewhile
from math import ceil
from typing import Any, Final

from django.db import connection, transaction
from django.db.models import Exists, OuterRef, Q, QuerySet

from brands.models import AuthorizationServer, Brand, ConversationIds, UnsavedClientSecret
from brands.signing_keys import forget_previous_signing_keys
from brands.webhooks import forget_previous_secrets
from conversations.flow.events import erase_payloads_of_closed, give_up_for_inactive
from conversations.flow.revocations import finish_revocation, overdue_revocations
from conversations.flow.termination import close_conversation
from conversations.flow.transitions import end_expired, locked_conversation
from conversations.flow.trial_sign_in import old_trials
from conversations.models import (
    DELIVERY_RETENTION,
    HOURLY_COUNT_RETENTION,
    IDEMPOTENCY_LIFETIME,
    OPEN_STATUSES,
    READ_COUNT_RETENTION,
    TRIAL_RETENTION,
    AccessToken,
    ApiCallCount,
    Challenge,
    Conversation,
    HourlyCount,
    IdempotencyKey,
    TokenReadCount,
    WebhookDelivery,
)
from infrastructure import rate_limits
from infrastructure.audit import SYSTEM
from infrastructure.audit_partitions import make_months
from infrastructure.database_errors import is_unavailable, sqlstate

CHUNK: Final = 500
# A row that another transaction holds longer is left to the next sweep.
_LOCK_TIMEOUT: Final = "2s"
# SQLSTATEs of lock not available, deadlock detected, serialization failure, query canceled (time-out).
_ROW_ERRORS: Final = {"55P03", "40P01", "40001", "57014"}
_MAX_NAMED: Final = 5
# How many idle sessions of a brand one sweep closes at most, so that the next one begins in time.
MOST_IDLE_CLOSED: Final = 2 * CHUNK
_LIFETIME_COLUMNS: Final = ("authorization_server_id", "issued_at", "expires_at")
_LAST_TOKENS: Final = 200
_HALF_AN_HOUR: Final = 1_800


class SweepIncomplete(Exception):
    """Steps of a sweep failed; the others were done. The message names them. The cause is the first error."""

    def __init__(self, failed: dict[str, Exception]) -> None:
        named = [f"{name} ({type(error).__name__})" for name, error in list(failed.items())[:_MAX_NAMED]]
        more = len(failed) - len(named)
        super().__init__(", ".join(named) + (f" and {more} more" if more > 0 else ""))


@dataclass
class _Steps:
    """The steps of one sweep. A failed step is recorded and the others continue, so that one bad row blocks nothing.

    If the database is unavailable, the sweep stops at once, because every step would fail in the same way.
    """

    is_stopping: Callable[[], bool]
    failed: dict[str, Exception] = field(default_factory=dict)

    def run(self, name: str, step: Callable[[], object]) -> bool:
        """Run one step and return whether it succeeded. Raises the error of an unavailable database."""
        if self.is_stopping() or name in self.failed:
            return False
        try:
            step()
        except Exception as error:
            if _is_outage(error):
                raise
            self.failed[name] = error
            return False
        return True


def sweep(now: datetime, is_stopping: Callable[[], bool] = lambda: False) -> int:
    """End what has expired, erase its ciphertext and write the events (K6). Return the number of conversations.

    The caller checks the clock that gives `now` (`infrastructure.database_clock.checked_now`). Raises `SweepIncomplete`
    if steps failed, after all others ran. Raises the error of an unavailable database.
    """
    steps = _Steps(is_stopping)
    steps.run("old revocations", lambda: _give_up_old_revocations(steps, now))
    steps.run("rate limits", lambda: rate_limits.sweep(now, is_stopping))
    steps.run("months of the audit log", make_months)
    for change in (
        forget_previous_secrets,
        forget_previous_signing_keys,
        give_up_for_inactive,
        erase_payloads_of_closed,
        note_usual_lifetimes,
    ):
        steps.run(change.__name__, partial(_with_lock_timeout, change, now))
    for name, old in _old_rows(now).items():
        steps.run(name, partial(_delete_in_chunks, old, is_stopping))
    swept: list[int] = []
    for expired in (Challenge.objects.expired_not_ended(now), AccessToken.objects.expired_not_ended(now)):
        steps.run(f"expired {expired.model.__name__}", partial(_end_all_expired, steps, expired, now, swept))
    # Last: however many sessions are idle, nothing that has expired waits for them (K6).
    steps.run("idle sessions", partial(_close_all_idle, steps, now))
    if steps.failed:
        raise SweepIncomplete(steps.failed) from next(iter(steps.failed.values()))
    return len(swept)


def note_usual_lifetimes(now: datetime) -> None:
    """Note for each authorization server how long the longest of its last tokens lives, in seconds.

    The link's page says it. The worker does this, once a minute with one short read, so that no sign-in pays for it. A
    server whose tokens are not among the last keeps its value.
    """
    lifetimes: dict[int, int] = {}
    newest = AccessToken.objects.filter(issued_at__lte=now).order_by("-id")
    for server, issued_at, expires_at in newest.values_list(*_LIFETIME_COLUMNS)[:_LAST_TOKENS]:
        lifetimes[server] = max(lifetimes.get(server, 0), _rounded_up((expires_at - issued_at).total_seconds()))
    for server, seconds in lifetimes.items():
        changed = Q(usual_token_lifetime=None) | ~Q(usual_token_lifetime=seconds)
        AuthorizationServer.objects.filter(changed, pk=server).update(usual_token_lifetime=seconds)


def _rounded_up(seconds: float) -> int:
    """Round up to a minute, from half an hour on to five: a token of an hour is stored with a little less (E12)."""
    step = 60 if seconds < _HALF_AN_HOUR else 300
    return ceil(seconds / step) * step


def _old_rows(now: datetime) -> dict[str, QuerySet[Any]]:
    return {
        "deliveries": WebhookDelivery.objects.delivered_or_dead_before(now - DELIVERY_RETENTION),
        "idempotency keys": IdempotencyKey.objects.filter(created_at__lte=now - IDEMPOTENCY_LIFETIME),
        "unsaved client secrets": UnsavedClientSecret.objects.expired(now),
        "trials": old_trials(now, TRIAL_RETENTION),
        "hourly counts": HourlyCount.objects.filter(hour__lt=now - HOURLY_COUNT_RETENTION),
        "read counts": TokenReadCount.objects.filter(hour__lt=now - READ_COUNT_RETENTION),
        "call counts": ApiCallCount.objects.filter(hour__lt=now - READ_COUNT_RETENTION),
    }


def _give_up_old_revocations(steps: _Steps, now: datetime) -> None:
    for revocation in overdue_revocations(now):
        give_up = partial(finish_revocation, revocation, "given_up")
        steps.run(f"revocation {revocation.uuid}", partial(_with_lock_timeout, give_up, now))


def _end_all_expired(steps: _Steps, expired: QuerySet[Any], now: datetime, swept: list[int]) -> None:
    for conversation_pk in _conversations_with(expired):
        end = partial(_with_lock_timeout, partial(_end_expired_in, conversation_pk), now)
        if steps.run(f"conversation {conversation_pk}", end):
            swept.append(conversation_pk)
        if steps.is_stopping():
            return


def _close_all_idle(steps: _Steps, now: datetime) -> None:
    brands = Brand.objects.filter(
        is_active=True, conversation_ids=ConversationIds.REUSED, close_idle_after__gt=0
    ).order_by("pk")
    for brand in brands:
        # Each has a transaction of its own. What is over the limit waits for the next sweep.
        for conversation_pk in _idle_sessions(brand, now).values_list("pk", flat=True)[:MOST_IDLE_CLOSED]:
            close = partial(_with_lock_timeout, partial(_close_if_idle, conversation_pk), now)
            steps.run(f"idle session {conversation_pk}", close)
            if steps.is_stopping():
                return


def _idle_sessions(brand: Brand, now: datetime) -> QuerySet[Conversation]:
    """Select the brand's open sessions that have had no open challenge and no live token for its time (S8).

    What has expired counts as ended once the sweep has ended it.
    """
    since = now - timedelta(minutes=brand.close_idle_after)
    challenges = Challenge.objects.filter(
        Q(status__in=OPEN_STATUSES) | Q(ended_at__gt=since) | Q(completed_at__gt=since), conversation=OuterRef("pk")
    )
    tokens = AccessToken.objects.filter(Q(ended_at=None) | Q(ended_at__gt=since), conversation=OuterRef("pk"))
    return (
        Conversation.objects.filter(brand=brand, closed_at=None, created_at__lte=since)
        .exclude(Exists(challenges))
        .exclude(Exists(tokens))
        .order_by()
    )


def _close_if_idle(conversation_pk: int, now: datetime) -> None:
    """Close a session if it is still idle, under its lock: a sign-in may have begun since it was selected (S8)."""
    with locked_conversation(conversation_pk) as conversation:
        brand = conversation.brand
        is_wanted = brand.reuses_conversation_ids and brand.close_idle_after > 0
        if is_wanted and _idle_sessions(brand, now).filter(pk=conversation_pk).exists():
            close_conversation(conversation, actor=SYSTEM, now=now)


def _end_expired_in(conversation_pk: int, now: datetime) -> None:
    with locked_conversation(conversation_pk) as conversation:
        end_expired(conversation, now)


def _with_lock_timeout(change: Callable[[datetime], object], now: datetime) -> None:
    """Run a change in one transaction that waits at most two seconds for a lock, so that no row blocks the sweep."""
    with transaction.atomic():
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute("SELECT set_config('lock_timeout', %s, true)", [_LOCK_TIMEOUT])
        change(now)


def _conversations_with(expired: QuerySet[Any]) -> Iterator[int]:
    """Yield the primary keys of conversations with such rows. The caller ends each before the next chunk is read.

    Rows are read in chunks, by expiry. PostgreSQL estimates that most expired rows have not ended, and would otherwise
    read the whole table once a minute. Each chunk begins where the last one stopped, because a row that could not be
    ended is still there.
    """
    rows = expired.order_by("expires_at", "pk").values_list("expires_at", "pk", "conversation_id")
    chunk = list(rows[:CHUNK])
    while chunk:
        yield from sorted({conversation_pk for _, _, conversation_pk in chunk})
        expires_at, pk, _ = chunk[-1]
        chunk = list(rows.filter(expires_at__gte=expires_at).exclude(expires_at=expires_at, pk__lte=pk)[:CHUNK])


def _is_outage(error: Exception) -> bool:
    """Whether the whole database is unavailable or read-only. A lock or deadlock concerns one row only."""
    return is_unavailable(error) and sqlstate(error) not in _ROW_ERRORS


def prune(before: datetime, is_stopping: Callable[[], bool] = lambda: False) -> tuple[int, int]:
    """Delete challenges, with their rows, and conversations that ended before `before`. Return both numbers.

    It ends early if `is_stopping()` becomes true, which it asks after each window of the table.

    An open conversation is deleted when it has no challenges and no deliveries left. A closed one stays as a bare row,
    because it must never reopen. Of several sessions the rows of the first and of the newest stay: by them a new
    challenge sees that there was one, and no session gets the number of another (S7).

    The audit log is never touched. The last token of an open conversation stays, without its ciphertext. It tells why a
    new challenge is needed, and which account a re-challenge is compared with (A7).
    """
    live_token = AccessToken.objects.filter(challenge=OuterRef("pk"), ended_at=None)
    confirmed = AccessToken.objects.filter(confirmed_at__isnull=False, conversation__closed_at=None)
    # A re-challenge is compared with the subject of this token, which need not be the newest one.
    with_subject = confirmed.filter(subject_ciphertext__isnull=False).exclude(end_reason=AccessToken.EndReason.UNDONE)
    old = Challenge.objects.exclude(status__in=OPEN_STATUSES).filter(expires_at__lt=before)
    for kept in (live_token, _newest_in_conversation(confirmed), _newest_in_conversation(with_subject)):
        old = old.exclude(Exists(kept))
    challenges = _delete_old(old, "issued_at", before, is_stopping)
    never_closed = Q(closed_at=None, session=1, brand__conversation_ids=ConversationIds.UNIQUE)
    later = Conversation.objects.filter(
        brand=OuterRef("brand"), external_id=OuterRef("external_id"), session__gt=OuterRef("session")
    )
    empty = Conversation.objects.filter(
        never_closed | Q(Exists(later), session__gt=1, closed_at__lt=before),
        created_at__lt=before,
        challenges=None,
        webhook_deliveries=None,
    )
    return challenges, _delete_old(empty, "created_at", before, is_stopping)


def _newest_in_conversation(tokens: QuerySet[AccessToken]) -> QuerySet[AccessToken]:
    """For a challenge of an outer query, select its token if it is the newest of conversation and server."""
    later = tokens.filter(
        conversation=OuterRef("conversation"),
        authorization_server=OuterRef("authorization_server"),
        confirmed_at__gt=OuterRef("confirmed_at"),
    )
    return tokens.filter(challenge=OuterRef("pk")).exclude(Exists(later))


def _delete_old(
    rows: QuerySet[Challenge] | QuerySet[Conversation], moment: str, before: datetime, is_stopping: Callable[[], bool]
) -> int:
    """Delete rows in windows of the table, so that each statement reads at most `CHUNK` rows.

    A search of the whole table for each chunk would read all kept rows again. With a million conversations that took
    seconds for each statement.
    """
    windows = takewhile(lambda _: not is_stopping(), _windows(rows.model, moment, before))
    return sum(_delete_in_chunks(rows.filter(pk__gte=first, pk__lte=last)) for first, last in windows)


def _windows(model: type[Challenge] | type[Conversation], moment: str, before: datetime) -> Iterator[tuple[int, int]]:
    """Yield the first and last primary key of successive windows, until all rows of a window are too young.

    Primary keys grow with time. An old row among younger ones is found once the rows around it are old as well.
    """
    last = 0
    while True:
        rows = model._default_manager.filter(pk__gt=last).order_by("pk")
        window = list(rows.values_list("pk", moment)[:CHUNK])
        if all(at >= before for _, at in window):
            return
        first, last = window[0][0], window[-1][0]
        yield first, last


def _delete_in_chunks(rows: QuerySet[Any], is_stopping: Callable[[], bool] = lambda: False) -> int:
    deleted = 0
    while not is_stopping():
        with transaction.atomic():
            # SQLite has no row locks, so Django leaves the lock out there.
            locked = rows.order_by("pk").select_for_update(of=("self",), skip_locked=True)
            chunk = list(locked.values_list("pk", flat=True)[:CHUNK])
            rows.model.objects.filter(pk__in=chunk).delete()
        deleted += len(chunk)
        if len(chunk) < CHUNK:
            break
    return deleted
