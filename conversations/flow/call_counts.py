"""Count the calls of the brands' APIs: by bot key, operation, outcome, purpose and hour. Never arguments or answers."""

import logging
from collections import Counter
from datetime import datetime
from functools import partial
from typing import Any, Final, NamedTuple

from django.db import connection
from django.utils import timezone

from conversations.flow.pending_counts import Counted, PendingCounts
from conversations.flow.unusual_rates import CALLS, check_rates
from infrastructure import stopping

_TIMES: Final = "times"
_MILLISECONDS: Final = "milliseconds"
_UPSERT: Final = """
    INSERT INTO conversations_apicallcount
    (bot_key_id, operation, outcome, purpose, hour, times, milliseconds) VALUES {}
    ON CONFLICT (bot_key_id, hour, operation, outcome, purpose) DO UPDATE SET
    times = conversations_apicallcount.times + excluded.times,
    milliseconds = conversations_apicallcount.milliseconds + excluded.milliseconds
"""

logger = logging.getLogger("consumer_delegation.call_counts")
_pending = PendingCounts()


class CallKind(NamedTuple):
    """Calls that are counted together."""

    bot_key_pk: int
    operation: str
    outcome: str
    purpose: str


def count_call(kind: CallKind, milliseconds: int, now: datetime) -> None:
    """Count a call. At most once a minute, write this process's counts to the database."""
    of_call = (kind.operation, kind.outcome)
    amounts: dict[tuple[str, ...], int] = {(*of_call, _TIMES): 1, (*of_call, _MILLISECONDS): milliseconds}
    if _pending.add(kind.bot_key_pk, kind.purpose, now, amounts):
        flush(now)


def flush(now: datetime | None = None) -> None:
    """Write this process's counts to the database and check for unusual rates. A database error is only logged."""
    now = now or timezone.now()
    _pending.flush(now, partial(_store_and_check, now=now), logger, "call counts")


stopping.on_exit(flush)


def reset_in_process() -> None:
    """Discard this process's counts. Tests call it, so that each test begins without counts."""
    _pending.forget()


def _store_and_check(counts: Counter[Counted], now: datetime) -> None:
    _store(counts)
    check_rates(CALLS, {counted.bot_key_pk for counted in counts}, now)


def _store(counts: Counter[Counted]) -> None:
    adapted = connection.ops.adapt_datetimefield_value
    values: list[Any] = []
    # Sorted, so that two processes lock the same rows in the same order.
    times = sorted(counted for counted in counts if counted.details[-1] == _TIMES)
    for counted in times:
        operation, outcome, _ = counted.details
        taken = counts[counted._replace(details=(operation, outcome, _MILLISECONDS))]
        of_call = (counted.bot_key_pk, operation, outcome, counted.purpose, adapted(counted.hour))
        values += [*of_call, counts[counted], taken]
    with connection.cursor() as cursor:
        cursor.execute(_UPSERT.format(", ".join(["(%s, %s, %s, %s, %s, %s, %s)"] * len(times))), values)
