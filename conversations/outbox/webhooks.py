"""Webhook deliveries in the outbox: the worker sends each at least once, and a slow or dead endpoint delays no other.

Working endpoints get at most 2 deliveries at once each, and 3 per brand. Failing endpoints get at most 1 at once per
brand, and 4 in all; they come after the working ones. So one brand uses at most 4 of the 8 threads, however many
endpoints it has.
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
MAX_AT_ONCE_TO_FAILING: Final = 4
MAX_AT_ONCE_TO_FAILING_PER_BRAND: Final = 1

_SUCCESS: Final = range(200, 300)

logger = logging.getLogger("consumer_delegation.webhooks")


def lease_deliveries(now: datetime, limit: int) -> list[WebhookDelivery]:
    """Lease due deliveries, those to working endpoints first, with caps for each endpoint and brand."""
    rows = WebhookDelivery.objects.waiting().select_related("endpoint__brand", "conversation__brand")
    active = WebhookEndpoint.objects.filter(is_active=True, brand__is_active=True)
    working = Destinations("endpoint", active.filter(failing_since=None))
    failing = Destinations("endpoint", active.filter(failing_since__isnull=False), MAX_AT_ONCE_TO_FAILING_PER_BRAND)
    # In one transaction: if the second lease failed, the rows of the first would stay leased for a minute, unused.
    with transaction.atomic():
        taken = lease_due(rows, working, now, limit)
        under_way = rows.filter(leased(now), endpoint__failing_since__isnull=False).count()
        room = min(limit - len(taken), MAX_AT_ONCE_TO_FAILING - under_way)
        return taken + (lease_due(rows, failing, now, room) if room > 0 else [])


def attempt_delivery(delivery: WebhookDelivery) -> Callable[[], None]:
    """Post one event. Return a function that stores the result: delivered, another attempt scheduled, or given up.

    Blocks for up to 10 seconds. It is safe to call the returned function again after a database failure.
    """
    try:
        payload = delivery.reveal_payload()
        status = post_message(delivery.endpoint, str(delivery.event_uuid), payload, database_clock.now())
    except OutboundError as error:
        # One outcome for all network errors, so that an admin cannot probe our network by way of an endpoint (N9).
        return _result_of_failure(delivery, "no answer", str(error))
    except DecryptionError:
        # During a key rotation another process may encrypt with a key that this process does not have yet. So try
        # again. The endpoint is not marked as failing: it was not asked.
        logger.warning("a webhook could not be decrypted", extra={"delivery": str(delivery.uuid)})
        return partial(_put_off_or_give_up, delivery, "unreadable", database_clock.now())
    return _result_of_answer(delivery, status)


def deliver(delivery: WebhookDelivery) -> None:
    """Do one `attempt_delivery`, and store its result at once."""
    attempt_delivery(delivery)()


def _result_of_answer(delivery: WebhookDelivery, status: int) -> Callable[[], None]:
    outcome = f"answered {status}"
    if status in _SUCCESS:
        return partial(_store_success, delivery, outcome, database_clock.now())
    if status == HTTPStatus.GONE:
        return partial(_store_gone, delivery, outcome, database_clock.now())
    return _result_of_failure(delivery, outcome, outcome)


def _result_of_failure(delivery: WebhookDelivery, outcome: str, detail: str) -> Callable[[], None]:
    logger.warning("a webhook was not delivered", extra={"error": detail, "delivery": str(delivery.uuid)})
    return partial(_store_failure, delivery, outcome, database_clock.now())


def _store_success(delivery: WebhookDelivery, outcome: str, now: datetime) -> None:
    mark_delivered(delivery, outcome, now)
    note_answer(delivery.endpoint, worked=True, now=now)


def _store_gone(delivery: WebhookDelivery, outcome: str, now: datetime) -> None:
    give_up(delivery, outcome, now)
    switch_off(delivery.endpoint, now)


def _store_failure(delivery: WebhookDelivery, outcome: str, now: datetime) -> None:
    note_answer(delivery.endpoint, worked=False, now=now)
    _put_off_or_give_up(delivery, outcome, now)


def _put_off_or_give_up(delivery: WebhookDelivery, outcome: str, now: datetime) -> None:
    if now >= delivery.give_up_at:
        give_up(delivery, outcome, now)
    else:
        put_off(delivery, outcome, now + pause_after(delivery.attempts, FIRST_PAUSE, LONGEST_PAUSE))
