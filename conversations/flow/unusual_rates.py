"""Warn if a bot key reads tokens, or calls the brand's APIs, far more than usual: somebody may have the key.

The process that writes counts notices it and writes the warning. The worker tells the brand, so that no bot waits for a
mail server.
"""

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from django.conf import settings
from django.db import transaction
from django.db.models import Q, Sum
from django.urls import reverse

from brands.audited_changes import mail_admins, name_on_one_line
from brands.models import UNUSUAL_SHOWN, BotKey, WebhookEvent
from conversations.flow.events import ConversationEvent, publish_for_brand
from conversations.flow.pending_counts import hour_of
from infrastructure.audit import SYSTEM, record_event

# Warn if the count of one hour exceeds both this number and ten times the mean of the 24 hours before. For a new bot
# key the mean is 0, so that only the number counts.
UNUSUAL_COUNT: Final = 600
UNUSUAL_FACTOR: Final = 10

_HOUR: Final = timedelta(hours=1)
_HOURS_COMPARED: Final = 24


@dataclass(frozen=True)
class Rate:
    """What is counted by key and hour, where a warning about it is kept, and the words for it.

    `name` is that of the number in logs and webhook events; `does`, `subject` and `look_at` are for the mail.
    """

    name: str
    counts: str
    marked_at: str
    told_at: str
    warning: ConversationEvent
    event: WebhookEvent
    logger: logging.Logger
    does: str
    subject: str
    look_at: str


READS: Final = Rate(
    name="reads",
    counts="token_read_counts",
    marked_at="reads_unusual_at",
    told_at="reads_unusual_told_at",
    warning=ConversationEvent.TOKEN_READS_UNUSUAL,
    event=WebhookEvent.TOKEN_READS_UNUSUAL,
    logger=logging.getLogger("consumer_delegation.read_counts"),
    does="reads far more access tokens than usual",
    subject="reads unusually many tokens",
    look_at="Token read counts in the admin show for which purposes it read.",
)
CALLS: Final = Rate(
    name="calls",
    counts="api_call_counts",
    marked_at="calls_unusual_at",
    told_at="calls_unusual_told_at",
    warning=ConversationEvent.API_CALLS_UNUSUAL,
    event=WebhookEvent.API_CALLS_UNUSUAL,
    logger=logging.getLogger("consumer_delegation.call_counts"),
    does="calls your APIs far more than usual",
    subject="makes unusually many calls",
    look_at="API call counts in the admin show which operations it called, and for which purposes.",
)
_RATES: Final = (READS, CALLS)


def check_rates(rate: Rate, bot_key_pks: set[int], now: datetime) -> None:
    """Warn of each of these keys whose count of this hour is unusual. Call it when the counts are written."""
    hour = hour_of(now)
    since = Q((f"{rate.counts}__hour__gte", hour - _HOURS_COMPARED * _HOUR))
    times = f"{rate.counts}__times"
    sums = (
        BotKey.objects.filter(since, pk__in=bot_key_pks)
        .annotate(
            current=Sum(times, filter=Q((f"{rate.counts}__hour", hour)), default=0),
            before=Sum(times, filter=Q((f"{rate.counts}__hour__lt", hour)), default=0),
        )
        .order_by("pk")
        .values_list("pk", "current", "before")
    )
    for pk, current, before in sums:
        if current > max(UNUSUAL_COUNT, UNUSUAL_FACTOR * before / _HOURS_COMPARED):
            _warn(rate, pk, current, hour, now)


def _warn(rate: Rate, bot_key_pk: int, times: int, hour: datetime, now: datetime) -> None:
    """Write the warning once for each bot key and hour, even if several processes see the unusual rate."""
    # A time in a later hour was written by a process with a wrong clock. Ignore it: it would silence the warning.
    not_warned_yet = _is(rate.marked_at, None) | _is(f"{rate.marked_at}__lt", hour)
    not_warned_yet |= _is(f"{rate.marked_at}__gte", hour + _HOUR)
    if BotKey.objects.filter(not_warned_yet, pk=bot_key_pk).update(**{rate.marked_at: now}) != 1:
        return
    bot_key_uuid, brand = BotKey.objects.values_list("uuid", "brand__uuid").get(pk=bot_key_pk)
    record_event(rate.warning, brand_uuid=brand, actor=SYSTEM, now=now, outcome=str(times), object_uuid=bot_key_uuid)
    about = {"brand_uuid": str(brand), "object_uuid": str(bot_key_uuid), rate.name: times}
    rate.logger.warning(rate.warning.value, extra=about)


def tell_unusual_rates(now: datetime) -> None:
    """Tell the brand of each key that reads or calls far more than usual: a webhook event, and a mail to its admins.

    A key that goes on is told of once a day, for each of the two. Of several workers one tells.
    """
    for rate in _RATES:
        not_told = _is(rate.told_at, None) | _is(f"{rate.told_at}__lte", now - UNUSUAL_SHOWN)
        # A time in the future was written by a process with a wrong clock. It would silence the warning.
        not_told |= _is(f"{rate.told_at}__gt", now)
        for bot_key in BotKey.objects.with_unusual(rate.marked_at, now).filter(not_told).select_related("brand"):
            with transaction.atomic():
                if BotKey.objects.filter(not_told, pk=bot_key.pk).update(**{rate.told_at: now}) == 1:
                    _tell_of(rate, bot_key, now)


def _is(lookup: str, value: Any) -> Q:
    return Q((lookup, value))


def _tell_of(rate: Rate, bot_key: BotKey, now: datetime) -> None:
    hour = hour_of(getattr(bot_key, rate.marked_at) or now)
    counts = getattr(bot_key, rate.counts).filter(hour=hour)
    times = counts.aggregate(times=Sum("times", default=0))["times"]
    publish_for_brand(bot_key.brand_id, rate.event, {"bot_key": bot_key.public_id, rate.name: times, "hour": hour}, now)
    name, brand = " ".join(bot_key.label.split()), name_on_one_line(bot_key.brand)
    text = [
        f"The bot key {name} ({bot_key.public_id}) of {brand} {rate.does}:",
        f"{times} in the hour from {hour:%Y-%m-%d %H:%M} UTC.",
        "",
        "If your bot does not have more to do, somebody may have the key: make a new one, and revoke this one:",
        settings.PUBLIC_BASE_URL + reverse("admin:brands_botkey_change", args=[bot_key.pk]),
        "",
        f"{rate.look_at} You get one mail like this a day.",
    ]
    mail_admins(bot_key.brand, f"{brand}: the bot key {name} {rate.subject}", text)
