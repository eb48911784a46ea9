"""Audit events, and webhook events with their deliveries. They are written in the transaction of the change.

A payload is kept no longer than it is needed. It is erased at delivery. A dead letter keeps it for seven days, so that
an admin can replay it. Deliveries of a closed conversation still go out for up to a day, because the bot would
otherwise not learn of the end. Events about challenges and authorization requests may contain the bot's context or
purpose. After the conversation is closed, their payloads are erased if the delivery was given up, or if it waits for an
inactive endpoint.
"""

import logging
from copy import copy
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

import msgspec
from django.db import models
from django.db.models import Exists, F, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Greatest

from brands.models import WebhookEndpoint, WebhookEvent
from conversations.flow.authorization_status import challenge_representation, token_representation
from conversations.models import DELIVERY_LIFETIME, AccessToken, Challenge, Conversation, WebhookDelivery
from infrastructure import database_clock
from infrastructure.audit import record_event
from infrastructure.compiled import CompiledQuery, Parameter
from infrastructure.crypto import DecryptionError, Secret

SWITCHED_OFF: Final = "switched off"
# A killed worker's leases end within a minute. Whatever waits longer waits for more workers or connections.
TOO_LONG_A_WAIT: Final = timedelta(minutes=5)
# Their payload is a challenge's representation, with the bot's context and purpose.
_ABOUT_A_PERSON: Final = (
    Q(event__startswith="challenge.")
    | Q(event=WebhookEvent.AUTHORIZATION_REQUEST_FAILED)
    | Q(event__in=[WebhookEvent.TOKEN_ISSUED, WebhookEvent.TOKEN_ENDED])
)
_IS_INACTIVE: Final = Q(endpoint__is_active=False) | Q(endpoint__brand__is_active=False)
_ENDPOINTS: Final = CompiledQuery(
    lambda: (
        WebhookEndpoint.objects.filter(brand_id=Parameter("brand", models.BigIntegerField()), is_active=True)
        .select_related("brand")
        .order_by("pk")
    )
)

logger = logging.getLogger("consumer_delegation.webhooks")


def webhooks_of(brand: str) -> Exists:
    """Return the condition that the brand in this column of a query has an active webhook endpoint."""
    return Exists(WebhookEndpoint.objects.filter(brand_id=OuterRef(brand), is_active=True))


class ConversationEvent(models.TextChoices):
    """Kinds of audit events of a conversation."""

    CHALLENGE_CHANGED = "challenge.changed"
    # The outcome is `code` or `error`: what the authorization response contained.
    AUTHORIZATION_REQUEST_RETURNED = "authorization_request.returned"
    # The outcome is an `ErrorCode`.
    AUTHORIZATION_REQUEST_FAILED = "authorization_request.failed"
    TOKEN_ISSUED = "token.issued"
    TOKEN_ENDED = "token.ended"
    TOKEN_DISCARDED = "token.discarded"
    TOKEN_REVOCATION = "token.revocation"
    TOKEN_READS_UNUSUAL = "token.reads_unusual"
    API_CALLS_UNUSUAL = "api.calls_unusual"
    CONVERSATION_CLOSED = "conversation.closed"


def record(
    kind: ConversationEvent,
    conversation: Conversation,
    *,
    now: datetime,
    actor: str,
    outcome: str = "",
    challenge: Challenge | None = None,
    access_token_uuid: UUID | None = None,
    brand_uuid: UUID | None = None,
) -> None:
    """Write one audit event. `actor` is `system`, `consumer`, `bot:<public key id>` or `admin:<id>`.

    `brand_uuid` is only needed if the conversation has not loaded its brand.
    """
    record_event(
        kind,
        brand_uuid=brand_uuid or conversation.brand.uuid,
        actor=actor,
        now=now,
        outcome=outcome,
        conversation_uuid=conversation.uuid,
        session=conversation.session,
        challenge_uuid=challenge.uuid if challenge else None,
        access_token_uuid=access_token_uuid,
    )


def publish_challenge(challenge: Challenge, now: datetime, event: WebhookEvent | None = None) -> None:
    """Write webhook deliveries about a challenge, by default with the event of its status.

    This and the other `publish_` functions are called after the change, in its transaction; those about a conversation
    under its lock.
    """
    event = event or WebhookEvent(f"challenge.{challenge.status}")
    if endpoints := _subscribed(challenge.conversation, event):
        # Loaded again, because the caller's row may be older than other changes.
        rows = Challenge.objects.select_related("conversation__brand", "authorization_server")
        current = rows.get(pk=challenge.pk)
        _publish(event, endpoints, current.conversation, _representation(current, now), now)


def publish_token(access_token: AccessToken, event: WebhookEvent, now: datetime) -> None:
    """Write webhook deliveries about a token that can now be read, or that has ended."""
    if endpoints := _subscribed(access_token.conversation, event):
        rows = AccessToken.objects.select_related("conversation__brand", "authorization_server", "challenge")
        current = rows.get(pk=access_token.pk)
        expired = current.end_reason == AccessToken.EndReason.EXPIRED
        ending = {"ended_at": current.expires_at if expired else current.ended_at, "end_reason": current.end_reason}
        data = {
            "conversation_id": current.conversation.external_id,
            "session": current.conversation.session,
            "authorization_server": current.authorization_server.key,
            "challenge_id": str(current.challenge.uuid),
            **token_representation(current, current.challenge.scope, now),
            **(ending if event == WebhookEvent.TOKEN_ENDED else {}),
        }
        _publish(event, endpoints, current.conversation, data, now)


def publish_closing(conversation: Conversation, receipt: dict[str, Any], now: datetime) -> None:
    """Write webhook deliveries about a closed conversation. `receipt` is what the bot that closed it gets."""
    event = WebhookEvent.CONVERSATION_CLOSED
    if endpoints := _subscribed(conversation, event):
        data = {"conversation_id": conversation.external_id, "session": conversation.session, **receipt}
        _publish(event, endpoints, conversation, data, now)


def publish_test(endpoint: WebhookEndpoint, now: datetime) -> None:
    """Write a test delivery for one endpoint, whatever events it subscribed to."""
    data = {"webhook_endpoint": str(endpoint.uuid)}
    _publish(WebhookEvent.WEBHOOK_TEST, [endpoint], None, data, now)


def publish_for_brand(brand_pk: int, event: WebhookEvent, data: dict[str, Any], now: datetime) -> None:
    """Write webhook deliveries about something of a brand that belongs to no conversation."""
    if endpoints := _wanting(brand_pk, event):
        _publish(event, endpoints, None, data, now)


def _subscribed(conversation: Conversation, event: WebhookEvent) -> list[WebhookEndpoint]:
    if conversation.has_webhooks is False:
        return []
    return _wanting(conversation.brand_id, event)


def _wanting(brand_pk: int, event: WebhookEvent) -> list[WebhookEndpoint]:
    return [endpoint for endpoint in _ENDPOINTS.all(brand=brand_pk) if endpoint.wants(event)]


def _publish(
    event: WebhookEvent,
    endpoints: list[WebhookEndpoint],
    conversation: Conversation | None,
    data: dict[str, Any],
    now: datetime,
) -> None:
    message: dict[str, Any] = {"type": event.value, "timestamp": now, "data": data}
    if conversation is not None:
        message["sequence"] = _next_sequence(conversation, now)
    payload, event_uuid = Secret(msgspec.json.encode(message).decode()), uuid4()
    deliveries = [
        WebhookDelivery(
            uuid=uuid4(),
            event_uuid=event_uuid,
            event=event,
            endpoint=endpoint,
            conversation=conversation,
            created_at=now,
            next_attempt_at=now,
            give_up_at=now + DELIVERY_LIFETIME,
        )
        for endpoint in endpoints
    ]
    for delivery in deliveries:
        delivery.set_payload(payload)
    WebhookDelivery.objects.bulk_create(deliveries)


def _next_sequence(conversation: Conversation, now: datetime) -> int:
    """Return the next sequence number of this conversation: the time in milliseconds, or the last number plus 1.

    A plain count would start again at one if the conversation was pruned and a bot used its id again.
    """
    rows = Conversation.objects.filter(pk=conversation.pk)
    rows.update(last_event=Greatest(F("last_event") + 1, int(now.timestamp() * 1000)))
    return rows.values_list("last_event", flat=True).get()


def _representation(challenge: Challenge, now: datetime) -> dict[str, Any]:
    """Return a challenge as bots read it. A context that cannot be decrypted is left out, so that the event is sent."""
    try:
        return challenge_representation(challenge, now)
    except DecryptionError:
        logger.warning(
            "an event lacks its context, which cannot be decrypted", extra={"challenge": str(challenge.uuid)}
        )
        without = copy(challenge)
        without.context_ciphertext = None
        return challenge_representation(without, now)


def mark_delivered(deliveries: list[WebhookDelivery], outcome: str, now: datetime) -> None:
    """Store the success of one or more and erase their payloads, even if another worker holds the lease by now."""
    rows = WebhookDelivery.objects.filter(pk__in=[delivery.pk for delivery in deliveries], delivered_at=None)
    rows.update(delivered_at=now, dead_at=None, payload_ciphertext=None, lease_until=None, last_outcome=outcome)


def put_off(delivery: WebhookDelivery, outcome: str, next_attempt_at: datetime) -> None:
    """Schedule the next attempt, at the latest at `give_up_at`."""
    at = min(next_attempt_at, delivery.give_up_at)
    _of_this_lease(delivery).update(next_attempt_at=at, lease_until=None, last_outcome=outcome)


def give_up(delivery: WebhookDelivery, outcome: str, now: datetime) -> None:
    """Turn the delivery into a dead letter, which an admin can see and replay."""
    _of_this_lease(delivery).update(dead_at=now, lease_until=None, last_outcome=outcome)


def give_up_for_inactive(now: datetime) -> int:
    """Turn deliveries that waited a day for an inactive endpoint or brand into dead letters. Return how many."""
    overdue = WebhookDelivery.objects.waiting().filter(_IS_INACTIVE, give_up_at__lte=now)
    return overdue.update(dead_at=now, lease_until=None, last_outcome=SWITCHED_OFF)


def replay(delivery: WebhookDelivery, now: datetime) -> bool:
    """Send a dead letter again for another day, with the same id. Return False if its payload is erased."""
    rows = WebhookDelivery.objects.dead().filter(pk=delivery.pk, payload_ciphertext__isnull=False)
    replayed = rows.update(dead_at=None, attempts=0, next_attempt_at=now, give_up_at=now + DELIVERY_LIFETIME)
    return replayed == 1


def longest_wait(now: datetime) -> tuple[timedelta, WebhookEndpoint] | None:
    """Return the longest time that a due delivery to a working endpoint has waited, if it is too long.

    One row is read for each endpoint. What a failing or inactive endpoint does not take is no backlog of ours.
    """
    due = WebhookDelivery.objects.waiting().filter(endpoint=OuterRef("pk")).order_by("next_attempt_at", "pk")
    working = WebhookEndpoint.objects.filter(is_active=True, brand__is_active=True, failing_since=None)
    since = working.annotate(since=Subquery(due.values("next_attempt_at")[:1])).order_by("since", "pk")
    endpoint = since.filter(since__lte=now - TOO_LONG_A_WAIT).first()
    return (now - endpoint.since, endpoint) if endpoint else None


def report_waiting_deliveries() -> None:
    """Log an error if a delivery has waited too long. The readiness check calls this about once a minute.

    A worker that does not run cannot say so itself. A web process stays in service: it can do its own work.
    """
    if found := longest_wait(database_clock.now()):
        extra = {"seconds": round(found[0].total_seconds()), "endpoint": str(found[1].uuid)}
        logger.error("webhook deliveries wait too long: does a worker run?", extra=extra)


def erase_payloads_of_closed(now: datetime, closing: Conversation | None = None) -> None:
    """Erase payloads of closed conversations with a context, a purpose or how somebody signed in (K6, P34).

    No bot needs them any more. These are dead letters, and deliveries that wait for an inactive endpoint or brand: they
    would go out if it became active again. With `closing` it is done for this conversation only, which is being closed.
    """
    closed = Q(conversation=closing) if closing else Q(conversation__closed_at__isnull=False)
    rows = WebhookDelivery.objects.filter(closed, _ABOUT_A_PERSON, payload_ciphertext__isnull=False)
    rows.waiting().filter(_IS_INACTIVE).update(
        dead_at=now, lease_until=None, last_outcome=SWITCHED_OFF, payload_ciphertext=None
    )
    rows.dead().update(payload_ciphertext=None)


def _of_this_lease(delivery: WebhookDelivery) -> QuerySet[WebhookDelivery]:
    """Select the row only if we still hold its lease: another worker may have taken it over."""
    return WebhookDelivery.objects.waiting().filter(pk=delivery.pk, lease_until=delivery.lease_until)
