"""What is written down of a change, in its transaction: audit rows, and webhooks with their deliveries.

A payload lives no longer than it is of use. Delivered, it is erased at once. Given up, it waits for seven days to be
replayed. Of a closed conversation, what is on its way still goes out, for a day at the most: the bot would otherwise
never learn of the end. But what was given up there, or waits for an endpoint that is off, and may hold the bot's
context or purpose (`challenge.*`) is erased.
"""

import logging
from copy import copy
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid4

import msgspec
from django.db import models
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Greatest

from brands.models import WebhookEndpoint, WebhookEvent
from conversations.flow.authorization_status import challenge_representation, token_representation
from conversations.models import DELIVERY_LIFETIME, AccessToken, Challenge, Conversation, WebhookDelivery
from infrastructure.audit import record_event
from infrastructure.compiled import CompiledQuery, Parameter
from infrastructure.crypto import DecryptionError, Secret


class ConversationEvent(models.TextChoices):
    """What is recorded of a conversation."""

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
) -> None:
    """Write one event of a conversation. `actor` is `system`, `consumer`, `bot:<public key id>` or `admin:<id>`."""
    record_event(
        kind,
        brand_uuid=conversation.brand.uuid,
        actor=actor,
        now=now,
        outcome=outcome,
        conversation_uuid=conversation.uuid,
        challenge_uuid=challenge.uuid if challenge else None,
        access_token_uuid=access_token_uuid,
    )


_ENDPOINTS: Final = CompiledQuery(
    lambda: (
        WebhookEndpoint.objects.filter(brand_id=Parameter("brand", models.BigIntegerField()), is_active=True)
        .select_related("brand")
        .order_by("pk")
    )
)

logger = logging.getLogger("consumer_delegation.webhooks")


def publish_challenge(challenge: Challenge, now: datetime) -> None:
    """Tell where a challenge stands now. Call it after the change, under the conversation's lock, as all of these."""
    event = WebhookEvent(f"challenge.{challenge.status}")
    if endpoints := _listening(challenge.conversation, event):
        # Read anew: the caller's row may be as it was before others changed it.
        rows = Challenge.objects.select_related("conversation__brand", "authorization_server")
        current = rows.get(pk=challenge.pk)
        _publish(event, endpoints, current.conversation, _readable_facts(current, now), now)


def publish_token(access_token: AccessToken, event: WebhookEvent, now: datetime) -> None:
    """Tell that a token can be read from now on, or no longer."""
    if endpoints := _listening(access_token.conversation, event):
        rows = AccessToken.objects.select_related("conversation__brand", "authorization_server", "challenge")
        current = rows.get(pk=access_token.pk)
        expired = current.end_reason == AccessToken.EndReason.EXPIRED
        ending = {"ended_at": current.expires_at if expired else current.ended_at, "end_reason": current.end_reason}
        data = {
            "conversation_id": current.conversation.external_id,
            "authorization_server": current.authorization_server.key,
            "challenge_id": str(current.challenge.uuid),
            **token_representation(current, now),
            **(ending if event == WebhookEvent.TOKEN_ENDED else {}),
        }
        _publish(event, endpoints, current.conversation, data, now)


def publish_closing(conversation: Conversation, receipt: dict[str, Any], now: datetime) -> None:
    """Tell that a conversation is closed; `receipt` is what the bot that closed it gets."""
    event = WebhookEvent.CONVERSATION_CLOSED
    if endpoints := _listening(conversation, event):
        _publish(event, endpoints, conversation, {"conversation_id": conversation.external_id, **receipt}, now)


def publish_test(endpoint: WebhookEndpoint, now: datetime) -> None:
    """Write a test event for one endpoint, whatever events it wants."""
    data = {"webhook_endpoint": str(endpoint.uuid)}
    _publish(WebhookEvent.WEBHOOK_TEST, [endpoint], None, data, now)


def _listening(conversation: Conversation, event: WebhookEvent) -> list[WebhookEndpoint]:
    return [endpoint for endpoint in _ENDPOINTS.all(brand=conversation.brand_id) if endpoint.wants(event)]


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
            given_up_at=now + DELIVERY_LIFETIME,
        )
        for endpoint in endpoints
    ]
    for delivery in deliveries:
        delivery.set_payload(payload)
    WebhookDelivery.objects.bulk_create(deliveries)


def _next_sequence(conversation: Conversation, now: datetime) -> int:
    """Return a number above all before it in this conversation: milliseconds, pushed on where the clock stood still.

    Not a count, since a conversation that was pruned and began again would count from one again.
    """
    rows = Conversation.objects.filter(pk=conversation.pk)
    rows.update(last_event=Greatest(F("last_event") + 1, int(now.timestamp() * 1000)))
    return rows.values_list("last_event", flat=True).get()


def _readable_facts(challenge: Challenge, now: datetime) -> dict[str, Any]:
    """Return the facts, without a context that cannot be read: it must not keep a challenge from ending."""
    try:
        return challenge_representation(challenge, now)
    except DecryptionError:
        logger.warning("an event goes out without its unreadable context", extra={"challenge": str(challenge.uuid)})
        without = copy(challenge)
        without.context_ciphertext = None
        return challenge_representation(without, now)


SWITCHED_OFF: Final = "switched off"
_OFF: Final = Q(endpoint__is_active=False) | Q(endpoint__brand__is_active=False)


def mark_delivered(delivery: WebhookDelivery, outcome: str, now: datetime) -> None:
    """Note that an endpoint has taken an event, and erase the payload; also where another worker tries again by now."""
    rows = WebhookDelivery.objects.filter(pk=delivery.pk, delivered_at=None)
    rows.update(delivered_at=now, dead_at=None, payload_ciphertext=None, lease_until=None, last_outcome=outcome)


def put_off(delivery: WebhookDelivery, outcome: str, next_attempt_at: datetime) -> None:
    """Try again later, and at the very end once more."""
    at = min(next_attempt_at, delivery.given_up_at)
    _of_this_lease(delivery).update(next_attempt_at=at, lease_until=None, last_outcome=outcome)


def give_up(delivery: WebhookDelivery, outcome: str, now: datetime) -> None:
    """Make it a dead letter, which an admin can see and replay."""
    _of_this_lease(delivery).update(dead_at=now, lease_until=None, last_outcome=outcome)


def give_up_switched_off(now: datetime) -> int:
    """Make dead letters of what has waited a whole day for an endpoint or brand that is off; return how many."""
    overdue = WebhookDelivery.objects.waiting().filter(_OFF, given_up_at__lte=now)
    return overdue.update(dead_at=now, lease_until=None, last_outcome=SWITCHED_OFF)


def replay(delivery: WebhookDelivery, now: datetime) -> bool:
    """Put a dead letter back, under its old id and for another day; return False where there is nothing to send."""
    rows = WebhookDelivery.objects.dead().filter(pk=delivery.pk, payload_ciphertext__isnull=False)
    replayed = rows.update(dead_at=None, attempts=0, next_attempt_at=now, given_up_at=now + DELIVERY_LIFETIME)
    return replayed == 1


def forget_challenges(now: datetime, closing: Conversation | None = None) -> None:
    """Erase context and purpose where nobody is to get them any more: of a closing conversation, or of all closed ones.

    That is what was given up, and what waits for an endpoint or brand that is off: switched on again, it would go out.
    """
    whose = Q(conversation=closing) if closing else Q(conversation__closed_at__isnull=False)
    rows = WebhookDelivery.objects.filter(whose, event__startswith="challenge.", payload_ciphertext__isnull=False)
    rows.waiting().filter(_OFF).update(
        dead_at=now, lease_until=None, last_outcome=SWITCHED_OFF, payload_ciphertext=None
    )
    rows.dead().update(payload_ciphertext=None)


def _of_this_lease(delivery: WebhookDelivery) -> QuerySet[WebhookDelivery]:
    """Return the row only while the lease is still ours: another worker may have taken it over."""
    return WebhookDelivery.objects.waiting().filter(pk=delivery.pk, lease_until=delivery.lease_until)
