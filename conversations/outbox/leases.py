"""Taking due rows of an outbox table: each by one worker at a time, and back again where that worker died."""

from collections import Counter
from datetime import datetime, timedelta
from typing import Any, Final

from django.db import connection, transaction
from django.db.models import F, Q, QuerySet

# Longer than the slowest attempt: the transport ends every call after 10 s.
LEASE: Final = timedelta(seconds=60)
MAX_AT_ONCE_PER_DESTINATION: Final = 2
_CANDIDATES: Final = 200


def lease_due(rows: QuerySet[Any], destination: str, now: datetime, limit: int) -> list[Any]:
    """Lease up to `limit` due rows, at most two of each destination at once, and return them.

    `destination` names the field that tells which remote server a row goes to. On PostgreSQL, rows that another worker
    is taking are skipped (`SKIP LOCKED`); on SQLite the transaction itself is the lock. A row whose lease ran out was
    dropped by a worker that died, and is taken again.
    """
    free = Q(lease_until=None) | Q(lease_until__lte=now)
    with transaction.atomic():
        due = rows.filter(free, next_attempt_at__lte=now).order_by("next_attempt_at")
        if connection.features.has_select_for_update_skip_locked:
            due = due.select_for_update(skip_locked=True, of=("self",))
        chosen = _spread(list(due[:_CANDIDATES]), _busy(rows, destination, now), destination, limit)
        taken = rows.filter(pk__in=[row.pk for row in chosen])
        taken.update(lease_until=now + LEASE, attempts=F("attempts") + 1)
    for row in chosen:
        row.attempts += 1
    return chosen


def _busy(rows: QuerySet[Any], destination: str, now: datetime) -> Counter[Any]:
    return Counter(rows.filter(lease_until__gt=now).values_list(destination, flat=True))


def _spread(candidates: list[Any], busy: Counter[Any], destination: str, limit: int) -> list[Any]:
    """A slow destination's rows wait for their own turn and delay nobody else's."""
    chosen: list[Any] = []
    for row in candidates:
        where = getattr(row, destination)
        if len(chosen) < limit and busy[where] < MAX_AT_ONCE_PER_DESTINATION:
            busy[where] += 1
            chosen.append(row)
    return chosen
