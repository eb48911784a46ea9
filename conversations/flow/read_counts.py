"""How often each key reads tokens, and for what; and a warning where it is far more often than it used to be.

Counted in the process and added up in the database once a minute, by the read that finds the minute over: no row and
no write for each read. A process that is killed takes up to a minute of its counts along, or, where nobody read any
more, what it had counted since; one that ends does not (`delegation_site/gunicorn.py`). They are for people who look
after a brand, not a limit: that one is exact (`count_token_read`).
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

# Unusual: in one hour more than this, and more than this many times the mean of the 24 hours before it.
UNUSUAL_READS: Final = 600
UNUSUAL_FACTOR: Final = 10

_EVERY: Final = timedelta(minutes=1)
_HOUR: Final = timedelta(hours=1)
_HOURS_COMPARED: Final = 24
# A bot that makes up a purpose for each read is not to make a row of each.
_MOST_PURPOSES: Final = 50
_OTHER_PURPOSES: Final = "(other)"

_Count = tuple[int, str, datetime]

logger = logging.getLogger("consumer_delegation.read_counts")


class _Pending:
    """What this process has counted and not yet added up."""

    def __init__(self) -> None:
        self._lock = Lock()
        self.forget()

    def forget(self) -> None:
        self._counts: Counter[_Count] = Counter()
        self._purposes: dict[tuple[int, datetime], set[str]] = {}
        self._due_at: datetime | None = None

    def add_one(self, bot_key_pk: int, purpose: str, now: datetime) -> bool:
        """Count one more; tell whether it is this read's turn to add everything up."""
        hour = _hour_of(now)
        with self._lock:
            known = self._purposes.setdefault((bot_key_pk, hour), set())
            if len(known) < _MOST_PURPOSES:
                known.add(purpose)
            self._counts[bot_key_pk, purpose if purpose in known else _OTHER_PURPOSES, hour] += 1
            # Not before the minute is over; at once where the clock was put back and it would never be.
            if self._due_at is not None and self._due_at - _EVERY <= now < self._due_at:
                return False
            first, self._due_at = self._due_at is None, now + _EVERY
            return not first

    def take(self, now: datetime) -> Counter[_Count]:
        with self._lock:
            taken, self._counts = self._counts, Counter()
            self._purposes = {key: known for key, known in self._purposes.items() if key[1] == _hour_of(now)}
        return taken

    def give_back(self, counts: Counter[_Count]) -> None:
        with self._lock:
            self._counts += counts


_pending = _Pending()


def count_read(bot_key: BotKey, purpose: str, now: datetime) -> None:
    """Count a read that is answered with a token; at most once a minute, add up what this process has counted."""
    if _pending.add_one(bot_key.pk, purpose, now):
        flush(now)


def flush(now: datetime | None = None) -> None:
    """Add up what this process has counted, and look for unusual rates. The database's trouble fails no read."""
    now = now or timezone.now()
    counts = _pending.take(now)
    if not counts:
        return
    try:
        with transaction.atomic():
            _add_up(counts)
            _look_for_unusual_rates({key for key, _, _ in counts}, now)
    except Error:
        logger.exception("token reads could not be added up; the next minute tries again")
        _pending.give_back(counts)


stopping.before_the_end(flush)


def forget_in_process() -> None:
    """Forget what this process has counted; tests begin with nothing."""
    _pending.forget()


_UPSERT: Final = """
    INSERT INTO conversations_tokenreadcount (bot_key_id, purpose, hour, times) VALUES {}
    ON CONFLICT (bot_key_id, hour, purpose) DO UPDATE SET times = conversations_tokenreadcount.times + excluded.times
"""


def _add_up(counts: Counter[_Count]) -> None:
    # In one order, so that two processes which add to the same rows wait for each other and not crosswise.
    rows = sorted(counts.items())
    adapted = connection.ops.adapt_datetimefield_value
    values = [value for (key, purpose, hour), times in rows for value in (key, purpose, adapted(hour), times)]
    with connection.cursor() as cursor:
        cursor.execute(_UPSERT.format(", ".join(["(%s, %s, %s, %s)"] * len(rows))), values)


def _look_for_unusual_rates(bot_key_pks: set[int], now: datetime) -> None:
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
    """Write the warning once for each key and hour, whichever process comes first."""
    # In a later hour, it was written by a process whose clock is wrong.
    not_yet = Q(reads_unusual_at=None) | Q(reads_unusual_at__lt=hour) | Q(reads_unusual_at__gte=hour + _HOUR)
    if BotKey.objects.filter(not_yet, pk=bot_key_pk).update(reads_unusual_at=now) != 1:
        return
    key, brand = BotKey.objects.values_list("uuid", "brand__uuid").get(pk=bot_key_pk)
    kind = ConversationEvent.TOKEN_READS_UNUSUAL
    record_event(kind, brand_uuid=brand, actor=SYSTEM, now=now, outcome=str(reads), object_uuid=key)
    logger.warning(kind.value, extra={"brand_uuid": str(brand), "object_uuid": str(key), "reads": reads})


def _hour_of(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)
