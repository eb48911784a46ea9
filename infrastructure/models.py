"""Rows of the whole site, below brands and conversations: what happened, and how often somebody has called."""

from typing import Any
from uuid import uuid4

from django.db import models
from django.utils import timezone


class AuditEventQuerySet(models.QuerySet["AuditEvent"]):
    """Events as their brand's admins may see them."""

    def administered_by(self, user: Any) -> "AuditEventQuerySet":
        """Return the events of this admin's brands, which the rows name by UUID."""
        return self if user.is_superuser else self.filter(brand_uuid__in=user.brands.values("uuid"))


class AuditEvent(models.Model):
    """One thing that happened: UUIDs without foreign keys, and no subject, token or text that a person typed.

    Rows are added and never changed: triggers of the database refuse UPDATE, DELETE and TRUNCATE.
    """

    # Not unique: PostgreSQL could not partition the table by `at`, which every unique constraint would have to hold.
    uuid = models.UUIDField(default=uuid4, editable=False)
    at = models.DateTimeField(default=timezone.now, db_index=True)
    # The values of enumerations in `accounts`, `brands` and `conversations`: each kind stands where it is recorded.
    kind = models.CharField(max_length=40)
    outcome = models.CharField(max_length=64, blank=True)
    actor = models.CharField(max_length=64)
    brand_uuid = models.UUIDField(db_index=True)
    conversation_uuid = models.UUIDField(null=True)
    challenge_uuid = models.UUIDField(null=True)
    access_token_uuid = models.UUIDField(null=True)
    object_uuid = models.UUIDField(null=True, help_text="The row that was changed, such as a bot key.")
    changed_fields = models.CharField(max_length=1024, blank=True, help_text="Their names, never their values.")
    request_id = models.CharField(max_length=32, blank=True)

    objects = AuditEventQuerySet.as_manager()

    class Meta:
        ordering = ("-id",)

    def __str__(self) -> str:
        return f"{self.kind} {self.outcome}".strip()


class RateCounter(models.Model):
    """How often one subject has done one thing in one window of time; the subject is a keyed digest (G8).

    Written by `infrastructure.rate_limits` alone, where no `REDIS_URL` is set.
    """

    key = models.CharField(max_length=96, primary_key=True)
    times = models.PositiveIntegerField()
    expires_at = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return f"{self.times} until {self.expires_at}"
