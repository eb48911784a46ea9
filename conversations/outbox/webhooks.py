"""Webhooks, second half: the worker delivers them, at least once, and nobody waits for a slow or dead endpoint.

An endpoint has at most two deliveries under way, a brand three and one more to an endpoint that has been failing: half
of the threads, however many endpoints it has and however slow they are. Endpoints that have been failing have four
places in all and come after the others; however many of them hang, what goes to the rest does not wait.
"""

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from http import HTTPStatus
from typing import Final

from django.db import transaction

from brands.models import WebhookEndpoint
from brands.webhooks import note_answer, post_message, switch_off
from conversations.flow.events import give_up, mark_delivered, put_off
from conversations.models import WebhookDelivery
from infrastructure import database_clock
from infrastructure.crypto import DecryptionError
from infrastructure.outbox import Destinations, lease_due, leased, pause_after
from oauth_client.transport import OutboundError

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
    # In one transaction: rows that were leased before a failure would hold their places for a minute.
    with transaction.atomic():
        taken = lease_due(rows, working, now, limit)
        under_way = rows.filter(leased(now), endpoint__failing_since__isnull=False).count()
        room = min(limit - len(taken), MAX_AT_ONCE_OF_FAILING - under_way)
        return taken + (lease_due(rows, failing, now, room) if room > 0 else [])


def attempt(delivery: WebhookDelivery) -> Callable[[], None]:
    """Post one event; return what writes the result down: it is delivered, waits for the next attempt, or is given up.

    Blocks for up to 10 seconds. What it returns may be called again where the database was away meanwhile.
    """
    try:
        payload = delivery.reveal_payload()
        status = post_message(delivery.endpoint, str(delivery.event_uuid), payload, database_clock.now())
    except OutboundError as error:
        # One word for every kind of no: what is behind an address of their choice is not for admins to find out (N9).
        return _failed(delivery, "no answer", str(error))
    except DecryptionError:
        # While the keys are rotated, another process may write with a key that this one has not got yet.
        logger.warning("a webhook could not be read", extra={"delivery": str(delivery.uuid)})
        return partial(_put_off_or_give_up, delivery, "unreadable", database_clock.now())
    return _judged(delivery, status)


def deliver(delivery: WebhookDelivery) -> None:
    """Post one event, and write the result down."""
    attempt(delivery)()


def _judged(delivery: WebhookDelivery, status: int) -> Callable[[], None]:
    outcome = f"answered {status}"
    if status in _SUCCESS:
        return partial(_note_success, delivery, outcome, database_clock.now())
    if status == HTTPStatus.GONE:
        return partial(_note_gone, delivery, outcome, database_clock.now())
    return _failed(delivery, outcome, outcome)


def _failed(delivery: WebhookDelivery, outcome: str, detail: str) -> Callable[[], None]:
    logger.warning("webhook not delivered", extra={"error": detail, "delivery": str(delivery.uuid)})
    return partial(_note_failure, delivery, outcome, database_clock.now())


def _note_success(delivery: WebhookDelivery, outcome: str, now: datetime) -> None:
    mark_delivered(delivery, outcome, now)
    note_answer(delivery.endpoint, worked=True, now=now)


def _note_gone(delivery: WebhookDelivery, outcome: str, now: datetime) -> None:
    give_up(delivery, outcome, now)
    switch_off(delivery.endpoint, now)


def _note_failure(delivery: WebhookDelivery, outcome: str, now: datetime) -> None:
    note_answer(delivery.endpoint, worked=False, now=now)
    _put_off_or_give_up(delivery, outcome, now)


def _put_off_or_give_up(delivery: WebhookDelivery, outcome: str, now: datetime) -> None:
    if now >= delivery.given_up_at:
        give_up(delivery, outcome, now)
    else:
        put_off(delivery, outcome, now + pause_after(delivery.attempts, FIRST_PAUSE, LONGEST_PAUSE))
