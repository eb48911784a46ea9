"""What a brand's bot is told by webhook, written down in the transaction of the change: both happen, or neither does.

For a brand without an endpoint an event costs one small query. Delivering is the worker's (`conversations.outbox`).
"""

import logging
from copy import copy
from datetime import datetime
from typing import Any, Final
from uuid import uuid4

import msgspec
from django.db import models
from django.db.models import F
from django.db.models.functions import Greatest

from brands.models import WebhookEndpoint, WebhookEvent
from conversations.flow.facts import challenge_facts, token_facts
from conversations.models import DELIVERY_LIFETIME, AccessToken, Challenge, Conversation, WebhookDelivery
from delegation_site.compiled import CompiledQuery, Parameter
from delegation_site.crypto import DecryptionError, Secret

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
            **token_facts(current, now),
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
        return challenge_facts(challenge, now)
    except DecryptionError:
        logger.warning("an event goes out without its unreadable context", extra={"challenge": str(challenge.uuid)})
        without = copy(challenge)
        without.context_ciphertext = None
        return challenge_facts(without, now)
