"""Count how often each bot key reads tokens, and for which purpose. Warn if a key reads far more than usual.

Each process counts in memory. At most once a minute a read also writes all counts to the database; the other reads
write nothing. A process that is killed loses the counts that it has not written yet; a process that stops normally
writes them first (`delegation_site/gunicorn.py`). The counts inform people. The limit of reads is separate and exact
(`conversations.api.calls.count_token_read`).
"""

import logging
from collections import Counter
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Q, Sum
from django.urls import reverse
from django.utils import timezone

from brands.audited_changes import mail_admins, name_on_one_line
from brands.models import READS_UNUSUAL_SHOWN, BotKey, WebhookEvent
from conversations.flow.events import ConversationEvent, publish_for_brand
from conversations.flow.pending_counts import Counted, PendingCounts, hour_of
from infrastructure import stopping
from infrastructure.audit import SYSTEM, record_event

# Warn if the reads of one hour exceed both this number and ten times the mean of the 24 hours before. For a new bot key
# the mean is 0, so that only the number counts.
UNUSUAL_READS: Final = 600
UNUSUAL_FACTOR: Final = 10

_HOUR: Final = timedelta(hours=1)
_HOURS_COMPARED: Final = 24
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
    _check_rates({counted.bot_key_pk for counted in counts}, now)


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


def _check_rates(bot_key_pks: set[int], now: datetime) -> None:
    hour = hour_of(now)
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
    """Write the warning once for each bot key and hour, even if several processes see the unusual rate."""
    # A time in a later hour was written by a process with a wrong clock. Ignore it: it would silence the warning.
    not_warned_yet = Q(reads_unusual_at=None) | Q(reads_unusual_at__lt=hour) | Q(reads_unusual_at__gte=hour + _HOUR)
    if BotKey.objects.filter(not_warned_yet, pk=bot_key_pk).update(reads_unusual_at=now) != 1:
        return
    bot_key_uuid, brand = BotKey.objects.values_list("uuid", "brand__uuid").get(pk=bot_key_pk)
    kind = ConversationEvent.TOKEN_READS_UNUSUAL
    record_event(kind, brand_uuid=brand, actor=SYSTEM, now=now, outcome=str(reads), object_uuid=bot_key_uuid)
    logger.warning(kind.value, extra={"brand_uuid": str(brand), "object_uuid": str(bot_key_uuid), "reads": reads})


def tell_unusual_reads(now: datetime) -> None:
    """Tell the brand of each key that reads far more than usual: a webhook event, and a mail to its admins.

    The worker calls it, so that no bot waits for a mail server when it reads a token. A key that goes on
    reading is told of once a day. Of several workers one tells.
    """
    again_before = now - READS_UNUSUAL_SHOWN
    not_told = Q(reads_unusual_told_at=None) | Q(reads_unusual_told_at__lte=again_before)
    # A time in the future was written by a process with a wrong clock. It would silence the warning.
    not_told |= Q(reads_unusual_told_at__gt=now)
    for bot_key in BotKey.objects.with_unusual_reads(now).filter(not_told).select_related("brand"):
        with transaction.atomic():
            if BotKey.objects.filter(not_told, pk=bot_key.pk).update(reads_unusual_told_at=now) == 1:
                _tell_of(bot_key, now)


def _tell_of(bot_key: BotKey, now: datetime) -> None:
    at = bot_key.reads_unusual_at or now
    hour = hour_of(at)
    reads = bot_key.token_read_counts.filter(hour=hour).aggregate(reads=Sum("times", default=0))["reads"]
    data = {"bot_key": bot_key.public_id, "reads": reads, "hour": hour}
    publish_for_brand(bot_key.brand_id, WebhookEvent.TOKEN_READS_UNUSUAL, data, now)
    name, brand = " ".join(bot_key.label.split()), name_on_one_line(bot_key.brand)
    page = reverse("admin:brands_botkey_change", args=[bot_key.pk])
    text = [
        f"The bot key {name} ({bot_key.public_id}) of {brand} reads far more access tokens than usual:",
        f"{reads} in the hour from {hour:%Y-%m-%d %H:%M} UTC.",
        "",
        "If your bot does not have more to do, somebody may have the key: make a new one, and revoke this one:",
        settings.PUBLIC_BASE_URL + page,
        "",
        "Token read counts in the admin show for which purposes it read. You get one mail like this a day.",
    ]
    mail_admins(bot_key.brand, f"{brand}: the bot key {name} reads unusually many tokens", text)
