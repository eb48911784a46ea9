"""Count how often each bot key reads tokens, and for which purpose.

Each process counts in memory. At most once a minute a read also writes all counts to the database; the other reads
write nothing. A process that is killed loses the counts that it has not written yet; a process that stops normally
writes them first (`delegation_site/gunicorn.py`). The counts inform people. The limit of reads is separate and exact
(`conversations.api.calls.count_token_read`).
"""

import logging
from collections import Counter
from datetime import datetime
from functools import partial
from typing import Final

from django.db import connection
from django.utils import timezone

from conversations.flow.pending_counts import Counted, PendingCounts
from conversations.flow.unusual_rates import READS, check_rates
from infrastructure import stopping

_UPSERT: Final = """
    INSERT INTO conversations_tokenreadcount (bot_key_id, purpose, hour, times) VALUES {}
    ON CONFLICT (bot_key_id, hour, purpose) DO UPDATE SET times = conversations_tokenreadcount.times + excluded.times
"""

logger = logging.getLogger("consumer_delegation.read_counts")
_pending = PendingCounts()


def count_read(bot_key_pk: int, purpose: str, now: datetime) -> None:
    """Count a read that is answered with a token. At most once a minute, write all counts to the database."""
    if _pending.add(bot_key_pk, purpose, now):
        flush(now)


def flush(now: datetime | None = None) -> None:
    """Write this process's counts to the database and check for unusual rates. A database error is only logged."""
    now = now or timezone.now()
    _pending.flush(now, partial(_store_and_check, now=now), logger, "token read counts")


stopping.on_exit(flush)


def reset_in_process() -> None:
    """Discard this process's counts. Tests call it, so that each test begins without counts."""
    _pending.forget()


def _store_and_check(counts: Counter[Counted], now: datetime) -> None:
    _store(counts)
    check_rates(READS, {counted.bot_key_pk for counted in counts}, now)


def _store(counts: Counter[Counted]) -> None:
    # Sorted, so that two processes that add to the same rows lock them in the same order and cannot deadlock.
    rows = sorted(counts.items())
    adapted = connection.ops.adapt_datetimefield_value
    values = [
        value
        for counted, times in rows
        for value in (counted.bot_key_pk, counted.purpose, adapted(counted.hour), times)
    ]
    with connection.cursor() as cursor:
        cursor.execute(_UPSERT.format(", ".join(["(%s, %s, %s, %s)"] * len(rows))), values)
