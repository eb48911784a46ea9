"""Webhook deliveries in the outbox: the worker sends each at least once, and a slow or dead endpoint delays no other.

`WEBHOOK_CONNECTIONS` is how many deliveries a working endpoint gets at once, from all workers together; a brand gets
half as many more. Each of these places leases a batch of events, and sends them one after the other on a connection
that stays open. A batch ends after a second, or with the first failure, and the rest is given back. Failing endpoints
get one delivery at once per brand, and 4 in all; they come after the working ones. So one brand uses at most half of a
worker's threads, however many endpoints it has.
"""

import logging
from datetime import datetime, timedelta
from functools import partial
from http import HTTPStatus
from itertools import chain
from typing import Final

from django.conf import settings
from django.db.models import BigIntegerField

from brands.models import WebhookEndpoint
from brands.webhooks import note_answer, post_message, switch_off
from conversations.flow.events import give_up, mark_delivered, put_off
from conversations.models import WebhookDelivery
from conversations.outbox.batches import Accepted, Store, work_on
from infrastructure import database_clock
from infrastructure.compiled import CompiledQuery, Parameter
from infrastructure.crypto import DecryptionError
from infrastructure.leases import Outbox, Places
from infrastructure.outbox import pause_after
from oauth_client.transport import OutboundError

FIRST_PAUSE: Final = timedelta(seconds=5)
LONGEST_PAUSE: Final = timedelta(hours=4)
MAX_AT_ONCE_TO_FAILING_PER_BRAND: Final = 1
# A lease costs several queries, whatever its size. What a killed worker had leased waits for a minute.
BATCH: Final = 32

_OF_FAILING: Final = Places(per_brand=MAX_AT_ONCE_TO_FAILING_PER_BRAND, in_all=4)
_SUCCESS: Final = range(200, 300)

logger = logging.getLogger("consumer_delegation.webhooks")


def most_per_brand() -> int:
    """Return how many deliveries to working endpoints of one brand may run at once, in all workers together."""
    return settings.WEBHOOK_CONNECTIONS + (settings.WEBHOOK_CONNECTIONS + 1) // 2


def threads_for_deliveries() -> int:
    """Return how many threads a worker has for webhooks: twice as many as one brand can use."""
    return 2 * (most_per_brand() + MAX_AT_ONCE_TO_FAILING_PER_BRAND)


def lease_deliveries(now: datetime, limit: int) -> list[list[WebhookDelivery]]:
    """Lease up to `limit` batches of due deliveries, those to working endpoints first."""
    working = Places(settings.WEBHOOK_CONNECTIONS, most_per_brand(), batch=BATCH)
    return _OUTBOX.lease(now, limit, working, _OF_FAILING)


def _load_endpoints(batches: list[list[WebhookDelivery]]) -> None:
    """Load each endpoint and its brand once, and not with each of its deliveries."""
    endpoints = {pk: _ENDPOINT.get(pk=pk) for pk in {batch[0].endpoint_id for batch in batches}}
    for delivery in chain.from_iterable(batches):
        delivery.endpoint = endpoints[delivery.endpoint_id]
        if delivery.conversation is not None:
            # An event goes only to endpoints of its conversation's brand.
            delivery.conversation.brand = delivery.endpoint.brand


_OUTBOX: Final = Outbox(
    "endpoint",
    lambda: WebhookDelivery.objects.waiting().select_related("conversation"),
    lambda: WebhookEndpoint.objects.filter(is_active=True, brand__is_active=True),
    failing="failing_since",
    complete=_load_endpoints,
)
_ENDPOINT: Final = CompiledQuery(
    lambda: WebhookEndpoint.objects.filter(pk=Parameter("pk", BigIntegerField())).select_related("brand")
)


def attempt_delivery(delivery: WebhookDelivery) -> Store | Accepted:
    """Post one event. Return how to store the result: delivered, another attempt scheduled, or given up.

    Only after `Accepted` the endpoint may get the next one. Blocks for up to 10 seconds.
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
    for store in work_on([delivery], attempt_delivery).stores:
        store()


def _result_of_answer(delivery: WebhookDelivery, status: int) -> Store | Accepted:
    outcome = f"answered {status}"
    if status in _SUCCESS:
        return Accepted(delivery, outcome, _delivered)
    if status == HTTPStatus.GONE:
        return partial(_store_gone, delivery, outcome, database_clock.now())
    return _result_of_failure(delivery, outcome, outcome)


def _result_of_failure(delivery: WebhookDelivery, outcome: str, detail: str) -> Store:
    logger.warning("a webhook was not delivered", extra={"error": detail, "delivery": str(delivery.uuid)})
    return partial(_store_failure, delivery, outcome, database_clock.now())


def _delivered(deliveries: list[WebhookDelivery], outcome: str) -> Store:
    return partial(_store_success, deliveries, outcome, database_clock.now())


def _store_success(deliveries: list[WebhookDelivery], outcome: str, now: datetime) -> None:
    mark_delivered(deliveries, outcome, now)
    note_answer(deliveries[0].endpoint, worked=True, now=now)


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
