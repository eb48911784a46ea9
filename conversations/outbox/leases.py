"""Taking due rows of an outbox table: each by one worker at a time, and back again where that worker died."""

import secrets
from collections import Counter
from datetime import datetime, timedelta
from typing import Any, Final

from django.db import connection, transaction
from django.db.models import F, Q, QuerySet

# Longer than the slowest attempt: the transport ends every call after 10 s.
LEASE: Final = timedelta(seconds=60)
MAX_AT_ONCE_PER_DESTINATION: Final = 2
# Any number, the same for all of our workers.
_TURN: Final = 7009


def lease_due(rows: QuerySet[Any], destination: str, now: datetime, limit: int) -> list[Any]:
    """Lease up to `limit` due rows, at most two of each destination at once, and return them.

    `destination` names the field that tells which remote server a row goes to: one that is slow, or has a thousand rows
    waiting, delays nobody else's. A row whose lease ran out was dropped by a worker that died, and is taken again.
    """
    free = Q(lease_until=None) | Q(lease_until__lte=now)
    due = rows.filter(free, next_attempt_at__lte=now).order_by("next_attempt_at", "pk")
    with transaction.atomic():
        _one_worker_at_a_time()
        busy = Counter(rows.filter(lease_until__gt=now).values_list(destination, flat=True))
        chosen: list[Any] = []
        while len(chosen) < limit and (row := _next(due, chosen, busy, destination)):
            busy[getattr(row, destination)] += 1
            chosen.append(row)
        taken = rows.filter(pk__in=[row.pk for row in chosen])
        taken.update(lease_until=now + LEASE, attempts=F("attempts") + 1)
    for row in chosen:
        row.lease_until, row.attempts = now + LEASE, row.attempts + 1
    return chosen


def pause_after(attempts: int, first: timedelta, longest: timedelta) -> timedelta:
    """Return how long to wait after so many attempts: doubling, with a random part so that retries do not march."""
    doubled = first * float(2 ** min(attempts - 1, 30))
    return min(doubled, longest) * (0.75 + secrets.randbelow(500) / 1000)


def _next(due: QuerySet[Any], chosen: list[Any], busy: Counter[Any], destination: str) -> Any:
    full = [where for where, number in busy.items() if number >= MAX_AT_ONCE_PER_DESTINATION]
    left = due.exclude(**{f"{destination}__in": full}).exclude(pk__in=[row.pk for row in chosen])
    if connection.features.has_select_for_update_skip_locked:
        left = left.select_for_update(skip_locked=True, of=("self",))
    return left.first()


def _one_worker_at_a_time() -> None:
    """Take turns for the few milliseconds of choosing: two that look at once would each see room for the same brand.

    On SQLite the transaction itself is the turn.
    """
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_TURN])
