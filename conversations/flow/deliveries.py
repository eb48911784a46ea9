"""Webhook deliveries after they were written: delivered, put off, given up, replayed, and deleted.

A payload lives no longer than it is of use. Delivered, it is erased at once. Given up, it waits for seven days to be
replayed. Of a closed conversation, what is on its way still goes out, for a day at the most: the bot would otherwise
never learn of the end. But what was given up there, or waits for an endpoint that is off, and may hold the bot's
context or purpose (`challenge.*`) is erased.
"""

from datetime import datetime
from typing import Final

from django.db.models import Q, QuerySet

from conversations.models import DELIVERY_LIFETIME, Conversation, WebhookDelivery

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
