"""Webhooks, second half: the worker delivers them, at least once, and nobody waits for a slow or dead endpoint.

An endpoint has at most two deliveries under way, a brand three and one more to an endpoint that has been failing: half
of the threads, however many endpoints it has and however slow they are. Endpoints that have been failing have four
places in all and come after the others; however many of them hang, what goes to the rest does not wait.
"""

import logging
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Final

from django.utils import timezone

from brands.models import WebhookEndpoint
from brands.transport import OutboundError
from brands.webhooks import note_answer, post_message, switch_off
from conversations.flow.deliveries import give_up, mark_delivered, put_off
from conversations.models import WebhookDelivery
from conversations.outbox.leases import Destinations, lease_due, leased, pause_after
from delegation_site.crypto import DecryptionError

FIRST_PAUSE: Final = timedelta(seconds=5)
LONGEST_PAUSE: Final = timedelta(hours=4)
MAX_AT_ONCE_OF_FAILING: Final = 4
MAX_AT_ONCE_OF_FAILING_PER_BRAND: Final = 1

_SUCCESS: Final = range(200, 300)

logger = logging.getLogger("consumer_delegation.webhooks")


def lease_deliveries(now: datetime, limit: int) -> list[WebhookDelivery]:
    """Take due deliveries, a few of each endpoint and brand at once; those of endpoints that work come first."""
    rows = WebhookDelivery.objects.waiting().select_related("endpoint__brand", "conversation__brand")
    on = WebhookEndpoint.objects.filter(is_active=True, brand__is_active=True)
    working = Destinations("endpoint", on.filter(failing_since=None))
    failing = Destinations("endpoint", on.filter(failing_since__isnull=False), MAX_AT_ONCE_OF_FAILING_PER_BRAND)
    taken = lease_due(rows, working, now, limit)
    under_way = rows.filter(leased(now), endpoint__failing_since__isnull=False).count()
    room = min(limit - len(taken), MAX_AT_ONCE_OF_FAILING - under_way)
    return taken + (lease_due(rows, failing, now, room) if room > 0 else [])


def deliver(delivery: WebhookDelivery) -> None:
    """Post one event; afterwards it is delivered, waits for the next attempt, or is given up. Blocks for up to 10 s."""
    endpoint = delivery.endpoint
    try:
        status = post_message(endpoint, str(delivery.event_uuid), delivery.reveal_payload(), timezone.now())
    except OutboundError as error:
        # One word for every kind of no: what is behind an address of their choice is not for admins to find out (N9).
        _note_failure(delivery, "no answer", str(error), timezone.now())
    except DecryptionError:
        # While the keys are rotated, another process may write with a key that this one has not got yet.
        logger.warning("a webhook could not be read", extra={"delivery": str(delivery.uuid)})
        _put_off_or_give_up(delivery, "unreadable", timezone.now())
    else:
        _judge(delivery, status, timezone.now())


def _judge(delivery: WebhookDelivery, status: int, now: datetime) -> None:
    outcome = f"answered {status}"
    if status in _SUCCESS:
        mark_delivered(delivery, outcome, now)
        note_answer(delivery.endpoint, worked=True, now=now)
    elif status == HTTPStatus.GONE:
        give_up(delivery, outcome, now)
        switch_off(delivery.endpoint, now)
    else:
        _note_failure(delivery, outcome, outcome, now)


def _note_failure(delivery: WebhookDelivery, outcome: str, detail: str, now: datetime) -> None:
    logger.warning("webhook not delivered", extra={"error": detail, "delivery": str(delivery.uuid)})
    note_answer(delivery.endpoint, worked=False, now=now)
    _put_off_or_give_up(delivery, outcome, now)


def _put_off_or_give_up(delivery: WebhookDelivery, outcome: str, now: datetime) -> None:
    if now >= delivery.given_up_at:
        give_up(delivery, outcome, now)
    else:
        put_off(delivery, outcome, now + pause_after(delivery.attempts, FIRST_PAUSE, LONGEST_PAUSE))
