"""A conversation: what every challenge and every access token belongs to."""

from typing import Any
from uuid import UUID, uuid4

from django.db import models
from django.utils import timezone

from brands.models import Brand
from delegation_site.crypto import Place


class ConversationQuerySet(models.QuerySet["Conversation"]):
    """Conversations as their brand's admins may see them."""

    def administered_by(self, user: Any) -> "ConversationQuerySet":
        """Return the conversations of this admin's brands."""
        return self if user.is_superuser else self.filter(brand__in=Brand.objects.keys_administered_by(user))


class Conversation(models.Model):
    """One chat between a consumer and a brand's bot. An access token lives in one of these and nowhere else."""

    uuid = models.UUIDField(default=uuid4, unique=True, editable=False)
    brand = models.ForeignKey(Brand, on_delete=models.PROTECT, related_name="conversations")
    external_id = models.CharField("conversation id", max_length=200)
    created_at = models.DateTimeField(default=timezone.now)
    closed_at = models.DateTimeField(null=True)
    # The sequence of the last webhook event: it only grows, so that a receiver can drop what is older.
    last_event = models.BigIntegerField(default=0, editable=False)

    objects = ConversationQuerySet.as_manager()

    class Meta:
        ordering = ("-id",)
        constraints = [
            models.UniqueConstraint(fields=("brand", "external_id"), name="one_conversation_per_brand_and_id"),
        ]

    def __str__(self) -> str:
        return self.external_id

    def place(self, table: str, column: str, row: UUID) -> Place:
        """Return where a ciphertext that belongs to this conversation lives (K1)."""
        return Place(table, column, row, brand=self.brand.uuid, conversation=self.uuid)
