"""Webhook deliveries: events that are waiting for their endpoint, were delivered, or became dead letters."""

from datetime import datetime, timedelta
from typing import Final
from uuid import uuid4

from django.db import models
from django.db.models import Q
from django.utils import timezone

from brands.models import BrandRowsQuerySet, WebhookEndpoint, WebhookEvent
from conversations.models.conversation import Conversation
from infrastructure.columns import EncryptedField, reveal, seal
from infrastructure.crypto import AssociatedData, Secret

# How long delivery is tried. The last attempt is due exactly this long after the event.
DELIVERY_LIFETIME: Final = timedelta(hours=24)
# How long a row is kept after it was delivered or became a dead letter. A dead letter can be replayed; a delivered row
# has no payload and is only a record.
DELIVERY_RETENTION: Final = timedelta(days=7)

_WAITING: Final = Q(delivered_at=None, dead_at=None)


class WebhookDeliveryQuerySet(BrandRowsQuerySet["WebhookDelivery"]):
    brand_path = "endpoint__brand"

    def waiting(self) -> "WebhookDeliveryQuerySet":
        return self.filter(_WAITING)

    def dead(self) -> "WebhookDeliveryQuerySet":
        return self.filter(dead_at__isnull=False)

    def delivered_or_dead_before(self, moment: datetime) -> "WebhookDeliveryQuerySet":
        return self.filter(Q(delivered_at__lt=moment) | Q(dead_at__lt=moment))


class WebhookDelivery(models.Model):
    """An outbox row: one event for one endpoint, written in the transaction of the change that it reports.

    The payload is encrypted, because it may contain the bot's context and purpose. The payload is erased
    after delivery.
    """

    uuid = models.UUIDField(default=uuid4, unique=True, editable=False)
    # The webhook-id header: the same for all endpoints and attempts.
    event_uuid = models.UUIDField()
    event = models.CharField(max_length=40, choices=WebhookEvent)
    endpoint = models.ForeignKey(WebhookEndpoint, on_delete=models.PROTECT, related_name="deliveries")
    conversation = models.ForeignKey(
        Conversation, on_delete=models.CASCADE, null=True, related_name="webhook_deliveries"
    )
    # `related`: what `associated_data` reads, to be loaded in the same query.
    payload_ciphertext = EncryptedField(related=("conversation__brand", "endpoint__brand"), null=True)
    created_at = models.DateTimeField(default=timezone.now)
    # The deadline: a failure after it makes the row a dead letter.
    give_up_at = models.DateTimeField()
    next_attempt_at = models.DateTimeField(default=timezone.now)
    lease_until = models.DateTimeField(null=True)
    attempts = models.PositiveSmallIntegerField(default=0)
    last_outcome = models.CharField(max_length=64, blank=True)
    delivered_at = models.DateTimeField(null=True)
    # When it was given up and became a dead letter.
    dead_at = models.DateTimeField(null=True)

    objects = WebhookDeliveryQuerySet.as_manager()

    class Meta:
        verbose_name_plural = "webhook deliveries"
        ordering = ("-id",)
        constraints = [
            models.UniqueConstraint(fields=("event_uuid", "endpoint"), name="one_delivery_per_event_and_endpoint"),
        ]
        indexes = [
            models.Index(fields=("endpoint", "next_attempt_at", "id"), condition=_WAITING, name="waiting_by_endpoint"),
            models.Index(fields=("lease_until",), condition=Q(lease_until__isnull=False), name="leased_deliveries"),
            models.Index(fields=("dead_at",), condition=Q(dead_at__isnull=False), name="dead_deliveries"),
            models.Index(
                fields=("delivered_at",), condition=Q(delivered_at__isnull=False), name="delivered_deliveries"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.event} {self.event_uuid}"

    def set_payload(self, payload: Secret) -> None:
        """Encrypt the payload for this row. The row is not saved."""
        seal(self, "payload_ciphertext", payload)

    def reveal_payload(self) -> Secret:
        """Decrypt the payload. Raises `DecryptionError`, also if the payload was erased."""
        return reveal(self, "payload_ciphertext")

    def associated_data(self, column: str) -> AssociatedData:
        table = "conversations_webhookdelivery"
        if self.conversation is None:
            return AssociatedData(table, column, self.uuid, self.endpoint.brand.uuid)
        return self.conversation.associated_data(table, column, self.uuid)
