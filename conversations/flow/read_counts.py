"""Count how often each bot key reads tokens, and for which purpose. Warn if a key reads far more than usual.

Each process counts in memory. Once a minute, the next read adds the counts to the database, so that a read needs no
write. A process that is killed loses the counts that it has not added yet; one that stops normally adds them first
(`delegation_site/gunicorn.py`). The counts inform people. The limit of reads is separate and exact
(`count_token_read`).
"""

import logging
from collections import Counter
from datetime import datetime, timedelta
from threading import Lock
from typing import Final

from django.db import Error, connection, transaction
from django.db.models import Q, Sum
from django.utils import timezone

from brands.models import BotKey
from conversations.flow.events import ConversationEvent
from infrastructure import stopping
from infrastructure.audit import SYSTEM, record_event

# Warn if the reads of one hour exceed both this number and a multiple of the mean of the 24 hours before.
UNUSUAL_READS: Final = 600
UNUSUAL_FACTOR: Final = 10

_FLUSH_INTERVAL: Final = timedelta(minutes=1)
_HOUR: Final = timedelta(hours=1)
_HOURS_COMPARED: Final = 24
# A bot that sends a new purpose with each read must not create a row for each.
_MAX_PURPOSES: Final = 50
_OTHER_PURPOSES: Final = "(other)"

# Primary key of the bot key, purpose, hour.
_CountKey = tuple[int, str, datetime]

_UPSERT: Final = """
    INSERT INTO conversations_tokenreadcount (bot_key_id, purpose, hour, times) VALUES {}
    ON CONFLICT (bot_key_id, hour, purpose) DO UPDATE SET times = conversations_tokenreadcount.times + excluded.times
"""

logger = logging.getLogger("consumer_delegation.read_counts")


class _Pending:
    """What this process has counted and not yet added to the database."""

    def __init__(self) -> None:
        self._lock = Lock()
        self.forget()

    def forget(self) -> None:
        self._counts: Counter[_CountKey] = Counter()
        self._purposes: dict[tuple[int, datetime], set[str]] = {}
        self._due_at: datetime | None = None

    def add_one(self, bot_key_pk: int, purpose: str, now: datetime) -> bool:
        """Count one read. Return whether this read must add all counts to the database."""
        hour = _hour_of(now)
        with self._lock:
            known = self._purposes.setdefault((bot_key_pk, hour), set())
            if len(known) < _MAX_PURPOSES:
                known.add(purpose)
            self._counts[bot_key_pk, purpose if purpose in known else _OTHER_PURPOSES, hour] += 1
            # Not before the minute is over. If the clock was set back, do not wait for that: it could take hours.
            if self._due_at is not None and self._due_at - _FLUSH_INTERVAL <= now < self._due_at:
                return False
            first, self._due_at = self._due_at is None, now + _FLUSH_INTERVAL
            return not first

    def take(self, now: datetime) -> Counter[_CountKey]:
        with self._lock:
            taken, self._counts = self._counts, Counter()
            self._purposes = {key: known for key, known in self._purposes.items() if key[1] == _hour_of(now)}
        return taken

    def give_back(self, counts: Counter[_CountKey]) -> None:
        with self._lock:
            self._counts += counts


_pending = _Pending()


def count_read(bot_key: BotKey, purpose: str, now: datetime) -> None:
    """Count a read that is answered with a token. Once a minute, add all counts to the database."""
    if _pending.add_one(bot_key.pk, purpose, now):
        flush(now)


def flush(now: datetime | None = None) -> None:
    """Add this process's counts to the database and check for unusual rates. A database error is only logged."""
    now = now or timezone.now()
    counts = _pending.take(now)
    if not counts:
        return
    try:
        with transaction.atomic():
            _store(counts)
            _check_rates({key for key, _, _ in counts}, now)
    except Error:
        logger.exception("token reads could not be stored; they are tried again in a minute")
        _pending.give_back(counts)


stopping.before_the_end(flush)


def forget_in_process() -> None:
    """Discard this process's counts, so that each test begins without any."""
    _pending.forget()


def _store(counts: Counter[_CountKey]) -> None:
    # Sorted, so that two processes that add to the same rows lock them in the same order and cannot deadlock.
    rows = sorted(counts.items())
    adapted = connection.ops.adapt_datetimefield_value
    values = [value for (key, purpose, hour), times in rows for value in (key, purpose, adapted(hour), times)]
    with connection.cursor() as cursor:
        cursor.execute(_UPSERT.format(", ".join(["(%s, %s, %s, %s)"] * len(rows))), values)


def _check_rates(bot_key_pks: set[int], now: datetime) -> None:
    hour = _hour_of(now)
    since = Q(token_read_counts__hour__gte=hour - _HOURS_COMPARED * _HOUR)
    sums = (
        BotKey.objects.filter(since, pk__in=bot_key_pks)
        .annotate(
            reads=Sum("token_read_counts__times", filter=Q(token_read_counts__hour=hour), default=0),
            before=Sum("token_read_counts__times", filter=Q(token_read_counts__hour__lt=hour), default=0),
        )
        .order_by("pk")
        .values_list("pk", "reads", "before")
    )
    for pk, reads, before in sums:
        if reads > max(UNUSUAL_READS, UNUSUAL_FACTOR * before / _HOURS_COMPARED):
            _warn(pk, reads, hour, now)


def _warn(bot_key_pk: int, reads: int, hour: datetime, now: datetime) -> None:
    """Write the warning once for each key and hour, however many processes notice it."""
    # A time in a later hour was written by a process with a wrong clock.
    not_yet = Q(reads_unusual_at=None) | Q(reads_unusual_at__lt=hour) | Q(reads_unusual_at__gte=hour + _HOUR)
    if BotKey.objects.filter(not_yet, pk=bot_key_pk).update(reads_unusual_at=now) != 1:
        return
    key, brand = BotKey.objects.values_list("uuid", "brand__uuid").get(pk=bot_key_pk)
    kind = ConversationEvent.TOKEN_READS_UNUSUAL
    record_event(kind, brand_uuid=brand, actor=SYSTEM, now=now, outcome=str(reads), object_uuid=key)
    logger.warning(kind.value, extra={"brand_uuid": str(brand), "object_uuid": str(key), "reads": reads})


def _hour_of(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)
