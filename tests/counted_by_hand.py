"""Count the audit log in another way than the product does: all of it at once, a challenge at a time."""

import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from conversations import statistics
from conversations.models import AuditEvent, CountedAuditLog

Counts = Counter[tuple[Any, ...]]


def count_all(now: datetime) -> None:
    """Count until everything is counted. On PostgreSQL that waits for other tests' transactions on the same server."""
    until = time.monotonic() + 60
    while statistics.count_events(now) or not _is_counted():
        assert time.monotonic() < until
        time.sleep(0.01)


def _is_counted() -> bool:
    return not AuditEvent.objects.filter(pk__gt=CountedAuditLog.objects.get().counted_id).exists()


def in_the_log() -> Counts:
    """Return what the hourly counts must be: brand, hour, measure and detail, and how often."""
    journeys: dict[UUID | None, list[AuditEvent]] = {}
    for row in AuditEvent.objects.exclude(challenge_uuid=None).order_by("pk"):
        journeys.setdefault(row.challenge_uuid, []).append(row)
    found: Counts = Counter()
    for rows in journeys.values():
        for row, measure, detail in _of_one_challenge(rows):
            found[row.brand_uuid, row.at.replace(minute=0, second=0, microsecond=0), measure, detail] += 1
    return found


_STEP_OF: Final = {
    ("challenge.changed", "issued"): "issued",
    ("challenge.changed", "started"): "left",
    ("authorization_request.returned", "code"): "returned",
    ("authorization_request.returned", "error"): "returned",
    ("challenge.changed", "confirmation_needed"): "token",
    ("token.issued", "none"): "token",
}
_NO_TOKEN_REQUEST: Final = {"configuration_changed", "internal_error", "issuer_mismatch", "stored_secret_unreadable"}


def _of_one_challenge(rows: list[AuditEvent]) -> Iterator[tuple[AuditEvent, str, str]]:
    first: dict[str, AuditEvent] = {}
    for row in rows:
        if (step := _STEP_OF.get((row.kind, row.outcome))) and step not in first:
            first[step] = row
            yield row, "step", step
        if row.kind == "token.issued":
            yield row, "step", "confirmed"
        if row.kind == "challenge.changed" and row.outcome not in {"issued", "started", "confirmation_needed"}:
            yield row, "outcome", row.outcome
        if row.kind == "authorization_request.failed" and row.outcome != "access_denied":
            yield row, "error", row.outcome
    yield from _durations(rows, first)


def _durations(rows: list[AuditEvent], first: dict[str, AuditEvent]) -> Iterator[tuple[AuditEvent, str, str]]:
    for measure, since, until in (("until_left", "issued", "left"), ("until_returned", "left", "returned")):
        if until in first:
            yield first[until], measure, bucket(first[until].at - first[since].at)
    confirmed = next((row for row in rows if row.kind == "token.issued" and row.outcome != "none"), None)
    if confirmed:
        yield confirmed, "until_confirmed", bucket(confirmed.at - first["token"].at)
    for number, row in enumerate(rows):
        if (row.kind, row.outcome) == ("authorization_request.returned", "code"):
            yield from _token_request(row, rows[number + 1 :], first)


def _token_request(
    came_back: AuditEvent, later: list[AuditEvent], first: dict[str, AuditEvent]
) -> Iterator[tuple[AuditEvent, str, str]]:
    ends = ("authorization_request.failed", "token.discarded", "token.issued")
    result = next(row for row in later if row.kind in ends or row.outcome == "confirmation_needed")
    took = bucket(result.at - came_back.at)
    if result == first.get("token"):
        yield result, "until_token", took
    failed = result.outcome if result.kind == "authorization_request.failed" else "answered"
    if failed not in _NO_TOKEN_REQUEST:
        yield result, "token_request", failed
        yield result, "token_request_time", took


def bucket(duration: timedelta) -> str:
    fitting = [bound for bound in statistics.BUCKETS if duration <= timedelta(milliseconds=bound)]
    return str(min(fitting)) if fitting else "over"
