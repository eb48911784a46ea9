"""What happened, in rows that outlive what it happened to."""

from typing import Any
from uuid import uuid4

from django.db import models
from django.utils import timezone

from brands.models import Brand


class AuditEventQuerySet(models.QuerySet["AuditEvent"]):
    """Events as their brand's admins may see them."""

    def administered_by(self, user: Any) -> "AuditEventQuerySet":
        """Return the events of this admin's brands, which the rows name by UUID."""
        own = Brand.objects.administered_by(user).values("uuid")
        return self if user.is_superuser else self.filter(brand_uuid__in=own)


class AuditEvent(models.Model):
    """One thing that happened: UUIDs without foreign keys, and no subject, token or text that a person typed."""

    class Kind(models.TextChoices):
        """What is recorded."""

        CHALLENGE_CHANGED = "challenge.changed"
        TOKEN_ISSUED = "token.issued"
        TOKEN_ENDED = "token.ended"
        TOKEN_DISCARDED = "token.discarded"
        CONVERSATION_CLOSED = "conversation.closed"

    uuid = models.UUIDField(default=uuid4, unique=True, editable=False)
    at = models.DateTimeField(default=timezone.now, db_index=True)
    kind = models.CharField(max_length=32, choices=Kind)
    outcome = models.CharField(max_length=64, blank=True)
    actor = models.CharField(max_length=64)
    brand_uuid = models.UUIDField(db_index=True)
    conversation_uuid = models.UUIDField(null=True)
    challenge_uuid = models.UUIDField(null=True)
    access_token_uuid = models.UUIDField(null=True)
    request_id = models.CharField(max_length=32, blank=True)

    objects = AuditEventQuerySet.as_manager()

    class Meta:
        ordering = ("-id",)

    def __str__(self) -> str:
        return f"{self.kind} {self.outcome}".strip()
