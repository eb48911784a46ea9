"""Count the audit log by the hour, so that a page reads a few hundred rows whatever a brand's size.

The worker calls `count_events` once a minute. Nothing is written while a consumer or bot waits. Each row of the log is
counted exactly once: its counts and the number up to which the log is counted change in one transaction. A worker that
is killed leaves both as they were.

Rows get their number when they are inserted, and become visible when they are committed, so a row with a lower number
may become visible after a row with a higher number. On PostgreSQL we count up to a number only after every transaction
has ended that could still commit a row with a lower number.

An event counts in the hour of its own time (`at`). Of several callbacks of one challenge only the first counts as its
return. A duration is the time between two events of one challenge. It is found if they are less than `LOOKED_BACK`
apart, and no challenge lives as long as that.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Max, QuerySet

from brands.models import Brand, SamePersonCheck
from conversations.flow.authorization_requests import Returned
from conversations.flow.events import ConversationEvent
from conversations.models import OPEN_STATUSES, AuditEvent, Challenge, ChallengeStatus, CountedAuditLog, HourlyCount
from oauth_client import ErrorCode

CHUNK: Final = 5_000
# The next sweep waits for the end of a call, so a long backlog is counted in several calls.
CHUNKS_AT_ONCE: Final = 20
_ROWS_AT_ONCE: Final = 500
# A link lives an hour at the most (`challenge_lifetime`), and its confirmation five minutes.
LOOKED_BACK: Final = timedelta(hours=2)
# The upper bounds of the duration buckets, in milliseconds.
BUCKETS: Final = (
    *(100, 200, 300, 500, 700, 1_000, 1_500, 2_000, 3_000, 5_000, 7_000, 10_000, 15_000, 20_000, 30_000, 45_000),
    *(60_000, 90_000, 120_000, 180_000, 300_000, 600_000, 900_000, 1_800_000, 3_600_000),
)
OVER: Final = "over"

ISSUED, LEFT, RETURNED, TOKEN, CONFIRMED = STEPS = ("issued", "left", "returned", "token", "confirmed")
# How challenges end: details of the measure `outcome`.
OUTCOMES: Final = (
    *(status.value for status in ChallengeStatus if status not in {*OPEN_STATUSES, ChallengeStatus.FAILED}),
    *(f"{ChallengeStatus.FAILED}:{error}" for error in Challenge.Error),
)
# The detail of a token request that was answered with a token. All others are error codes.
ANSWERED: Final = "answered"

_KINDS: Final = (
    ConversationEvent.CHALLENGE_CHANGED,
    ConversationEvent.AUTHORIZATION_REQUEST_RETURNED,
    ConversationEvent.AUTHORIZATION_REQUEST_FAILED,
    ConversationEvent.TOKEN_ISSUED,
    ConversationEvent.TOKEN_DISCARDED,
)
# These checks need no step in the chat: the token is confirmed as soon as it is issued.
_CONFIRMED_AT_ONCE: Final = (SamePersonCheck.EXPECTED_SUBJECT, SamePersonCheck.NONE)
# Failures although the callback had a code: no token request was sent, or we do not know whether one was sent.
_NOT_SENT: Final = frozenset({
    ErrorCode.CONFIGURATION_CHANGED, ErrorCode.INTERNAL_ERROR, ErrorCode.ISSUER_MISMATCH,
    ErrorCode.STORED_SECRET_UNREADABLE,
})  # fmt: skip
# Failures after the token endpoint has answered with a token.
_AFTER_THE_ANSWER: Final = frozenset({
    ErrorCode.CLAIM_UNUSABLE, ErrorCode.INSUFFICIENT_SCOPE, ErrorCode.INVALID_ID_TOKEN, ErrorCode.JWKS_UNAVAILABLE,
    ErrorCode.INVALID_SUBJECT_RESPONSE, ErrorCode.SUBJECT_ENDPOINT_BUSY, ErrorCode.SUBJECT_ENDPOINT_TIMEOUT,
    ErrorCode.SUBJECT_ENDPOINT_UNREACHABLE, ErrorCode.SUBJECT_REQUEST_REFUSED,
})  # fmt: skip

_Measure = HourlyCount.Measure
# Brand, hour, measure, detail.
_Key = tuple[UUID, datetime, str, str]


def count_events(now: datetime, is_stopping: Callable[[], bool] = lambda: False) -> int:
    """Count the rows of the audit log that are not counted yet. Return how many rows were counted.

    Returns 0 if another process is counting. Raises the database's errors; rows that were counted before stay counted.
    """
    CountedAuditLog.objects.get_or_create(pk=1)
    counted = 0
    for _ in range(CHUNKS_AT_ONCE):
        if is_stopping() or not (rows := _count_chunk(now)):
            break
        counted += rows
    return counted


def _count_chunk(now: datetime) -> int:
    """Count the next rows, and store how far the log is counted, in one transaction."""
    newest = AuditEvent.objects.aggregate(newest=Max("pk"))["newest"] or 0
    with transaction.atomic():
        log = CountedAuditLog.objects.select_for_update(skip_locked=True).filter(pk=1).first()
        if log is None:
            return 0
        final_id, final_at = _final(log, newest, now)
        rows = list(_uncounted(log.counted_id, final_id)[:CHUNK])
        _add_up(_counted(rows, _journeys_before(rows, log.counted_id)))
        if len(rows) == CHUNK:  # there may be more
            log.counted_id = rows[-1].pk
        else:
            log.counted_id, log.counted_at = final_id, final_at
        log.save()
    return len(rows)


def _final(log: CountedAuditLog, newest: int, now: datetime) -> tuple[int, datetime | None]:
    """Return the number up to which no further row can become visible, and since when. Move the mark in `log`.

    `newest` was read before this transaction got its own number. So a transaction that wrote a row up to `newest` has a
    lower number than ours: it got the number when it locked the conversation, before it wrote to the audit log.
    """
    oldest_running, ours = _transactions()
    final_id, final_at = log.counted_id, log.counted_at
    # A mark above our own transaction's number was set on another server, before a backup was restored here.
    if oldest_running >= log.mark_transaction or log.mark_transaction > ours:
        final_id, final_at = max(log.mark_id, final_id), log.mark_at
        log.mark_id, log.mark_transaction, log.mark_at = newest, ours, now
    if oldest_running == ours:
        final_id, final_at = max(newest, final_id), now
    return final_id, final_at


def _transactions() -> tuple[int, int]:
    """Return the numbers of the oldest transaction that may be running, and of our own transaction.

    The first number is not the end of the snapshot (`pg_snapshot_xmax`): running transactions may have numbers above
    it. On SQLite one transaction writes at a time, so ours is the oldest.
    """
    if connection.vendor != "postgresql":
        return 0, 0
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint, pg_current_xact_id()::text::bigint"
        )
        oldest_running, ours = cursor.fetchone()
    return oldest_running, ours


def _uncounted(counted_id: int, final_id: int) -> QuerySet[AuditEvent]:
    return _read(AuditEvent.objects.filter(pk__gt=counted_id, pk__lte=final_id))


def _read(rows: QuerySet[AuditEvent]) -> QuerySet[AuditEvent]:
    columns = ("at", "kind", "outcome", "brand_uuid", "challenge_uuid")
    return rows.filter(kind__in=_KINDS).order_by("pk").only(*columns)


class _Journey:
    """The progress of one challenge: the times from which durations are measured."""

    def __init__(self) -> None:
        self._at: dict[str, datetime] = {}
        # The time of the callback that has no result yet, and what its query contained.
        self._called_back_at: datetime | None = None
        self._called_back_with = ""

    def take(self, row: AuditEvent) -> Iterator[tuple[str, str]]:
        """Read the next row of the challenge. Yield the counts that grow by one, as measure and detail."""
        if row.kind == ConversationEvent.CHALLENGE_CHANGED:
            yield from self._changed(row)
        elif row.kind == ConversationEvent.AUTHORIZATION_REQUEST_RETURNED:
            yield from self._returned(row)
        elif row.kind == ConversationEvent.AUTHORIZATION_REQUEST_FAILED:
            if row.outcome != ErrorCode.ACCESS_DENIED:  # a denial is counted as the challenge's outcome; it is no error
                yield _Measure.ERROR, row.outcome
            yield from self._request_ended(row, ANSWERED if row.outcome in _AFTER_THE_ANSWER else row.outcome)
        elif row.kind == ConversationEvent.TOKEN_DISCARDED:
            yield from self._request_ended(row, ANSWERED)
        elif row.outcome in _CONFIRMED_AT_ONCE:
            yield from self._got_token(row)
            yield _Measure.STEP, CONFIRMED
        else:
            yield _Measure.STEP, CONFIRMED
            yield from _lasted(_Measure.UNTIL_CONFIRMED, self._at.get(TOKEN), row.at)

    def _changed(self, row: AuditEvent) -> Iterator[tuple[str, str]]:
        if row.outcome == ChallengeStatus.ISSUED:
            yield self._step(row, ISSUED)
        elif row.outcome == ChallengeStatus.STARTED:
            yield self._step(row, LEFT)
            yield from _lasted(_Measure.UNTIL_LEFT, self._at.get(ISSUED), row.at)
        elif row.outcome == ChallengeStatus.CONFIRMATION_NEEDED:
            yield from self._got_token(row)
        else:
            yield _Measure.OUTCOME, row.outcome

    def _returned(self, row: AuditEvent) -> Iterator[tuple[str, str]]:
        self._called_back_at, self._called_back_with = row.at, row.outcome
        if RETURNED not in self._at:
            yield self._step(row, RETURNED)
            yield from _lasted(_Measure.UNTIL_RETURNED, self._at.get(LEFT), row.at)

    def _got_token(self, row: AuditEvent) -> Iterator[tuple[str, str]]:
        yield self._step(row, TOKEN)
        yield from _lasted(_Measure.UNTIL_TOKEN, self._called_back_at, row.at)
        yield from self._request_ended(row, ANSWERED)

    def _request_ended(self, row: AuditEvent, detail: str) -> Iterator[tuple[str, str]]:
        """Count the token request, if the callback had a code and the result shows that the request was sent."""
        began, returned = self._called_back_at, self._called_back_with
        self._called_back_at, self._called_back_with = None, ""
        if returned == Returned.CODE and detail not in _NOT_SENT:
            yield _Measure.TOKEN_REQUEST, detail
            yield from _lasted(_Measure.TOKEN_REQUEST_TIME, began, row.at)

    def _step(self, row: AuditEvent, step: str) -> tuple[str, str]:
        self._at[step] = row.at
        return _Measure.STEP, step


def _lasted(measure: str, since: datetime | None, until: datetime) -> Iterator[tuple[str, str]]:
    if since is not None:
        milliseconds = (until - since) / timedelta(milliseconds=1)
        yield measure, str(next((bound for bound in BUCKETS if milliseconds <= bound), OVER))


def _journeys_before(rows: list[AuditEvent], counted_id: int) -> dict[UUID | None, _Journey]:
    """Return the progress of the challenges of these rows before them, from rows that were counted earlier."""
    journeys: dict[UUID | None, _Journey] = defaultdict(_Journey)
    going_on = [row for row in rows if _may_end_duration(row)]
    if not going_on:
        return journeys
    moments = [row.at for row in going_on]
    earlier = AuditEvent.objects.filter(
        pk__lte=counted_id,
        at__gte=min(moments) - LOOKED_BACK,
        at__lte=max(moments) + LOOKED_BACK,
        challenge_uuid__in={row.challenge_uuid for row in going_on},
    )
    for row in _read(earlier):
        for _ in journeys[row.challenge_uuid].take(row):
            pass  # counted already
    return journeys


def _may_end_duration(row: AuditEvent) -> bool:
    """Whether a duration may end with this row. None ends when a challenge is issued, or when it has ended."""
    if row.kind != ConversationEvent.CHALLENGE_CHANGED:
        return True
    return row.outcome in OPEN_STATUSES and row.outcome != ChallengeStatus.ISSUED


def _counted(rows: list[AuditEvent], journeys: dict[UUID | None, _Journey]) -> Counter[_Key]:
    counts: Counter[_Key] = Counter()
    for row in rows:
        hour = row.at.replace(minute=0, second=0, microsecond=0)
        for measure, detail in journeys[row.challenge_uuid].take(row):
            counts[row.brand_uuid, hour, measure, detail] += 1
    return counts


_UPSERT: Final = """
    INSERT INTO conversations_hourlycount (brand_id, hour, measure, detail, times) VALUES {}
    ON CONFLICT (brand_id, hour, measure, detail)
    DO UPDATE SET times = conversations_hourlycount.times + excluded.times
"""


def _add_up(counts: Counter[_Key]) -> None:
    """Add the counts to their rows. Counts of a brand that was deleted are dropped."""
    brands = dict(Brand.objects.filter(uuid__in={uuid for uuid, *_ in counts}).values_list("uuid", "pk"))
    adapted = connection.ops.adapt_datetimefield_value
    rows = [
        (brands[uuid], adapted(hour), measure, detail, times)
        for (uuid, hour, measure, detail), times in sorted(counts.items())
        if uuid in brands
    ]
    with connection.cursor() as cursor:
        for first in range(0, len(rows), _ROWS_AT_ONCE):
            some = rows[first : first + _ROWS_AT_ONCE]
            values = [value for row in some for value in row]
            cursor.execute(_UPSERT.format(", ".join(["(%s, %s, %s, %s, %s)"] * len(some))), values)
