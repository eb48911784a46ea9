"""Models of the audit log, of the rate counters and of the worker's heartbeat."""

from typing import Any
from uuid import uuid4

from django.db import models
from django.utils import timezone


class AuditEventQuerySet(models.QuerySet["AuditEvent"]):
    def visible_to(self, user: Any) -> "AuditEventQuerySet":
        """Return the events of the brands that this user administers or views. Superusers see all."""
        own = user.brands.order_by().values("uuid").union(user.viewed_brands.order_by().values("uuid"))
        return self if user.is_superuser else self.filter(brand_uuid__in=own)

    def administered_by(self, user: Any) -> "AuditEventQuerySet":
        """Return the events of the brands that this user administers. Superusers see all."""
        return self if user.is_superuser else self.filter(brand_uuid__in=user.brands.values("uuid"))


class AuditEvent(models.Model):
    """One audit event: UUIDs without foreign keys; no subject, token or typed text. Triggers make it append-only."""

    # Not unique: PostgreSQL partitions the table by `at`, which every unique constraint then has to hold. There, the
    # primary key is number and moment (migrations/0003).
    uuid = models.UUIDField(default=uuid4, editable=False)
    at = models.DateTimeField(default=timezone.now, db_index=True)
    # The enumerations of kinds are in `accounts`, `brands` and `conversations`, next to the code that records them.
    kind = models.CharField(max_length=40)
    outcome = models.CharField(max_length=64, blank=True)
    actor = models.CharField(max_length=64)
    brand_uuid = models.UUIDField(db_index=True)
    conversation_uuid = models.UUIDField(null=True)
    # Of the conversation: the row that its UUID names may be pruned before the log.
    session = models.PositiveIntegerField(null=True)
    challenge_uuid = models.UUIDField(null=True)
    access_token_uuid = models.UUIDField(null=True)
    object_uuid = models.UUIDField(null=True, help_text="The row that was changed, such as a bot key.")
    changed_fields = models.CharField(max_length=1024, blank=True, help_text="Their names.")
    changed_values = models.JSONField(
        null=True, help_text="Old and new value of scopes and switches, and of addresses the host. Never of others."
    )
    request_id = models.CharField(max_length=32, blank=True)

    objects = AuditEventQuerySet.as_manager()

    class Meta:
        ordering = ("-id",)
        indexes = [
            # For what became of one row, such as who set a secret. Only an admin's changes name one, so it stays small.
            models.Index(
                fields=("object_uuid", "-id"),
                condition=models.Q(object_uuid__isnull=False),
                name="audit_events_by_object",
            ),
            # For the timeline of a conversation. Its cost at each insert is accepted: without it, one admin who opens
            # a conversation reads the whole log.
            models.Index(
                fields=("conversation_uuid",),
                condition=models.Q(conversation_uuid__isnull=False),
                name="audit_events_by_conversation",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.outcome}".strip()


class RateCounter(models.Model):
    """How often a subject (a keyed digest) did one thing in one time window. Used if `REDIS_URL` is not set (G8)."""

    key = models.CharField(max_length=96, primary_key=True)
    times = models.PositiveIntegerField()
    expires_at = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return f"{self.times} until {self.expires_at}"


class WorkerHeartbeat(models.Model):
    """The one row that says when a worker last ran and swept; only `infrastructure.outbox` writes it."""

    # Of any worker: with several, one that is silent is seen by its service manager.
    beat_at = models.DateTimeField()
    # When a sweep was last complete.
    swept_at = models.DateTimeField(null=True)
    # Until then nobody begins a sweep: one is running, or has just been done.
    sweep_due_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"{self.beat_at:%Y-%m-%d %H:%M:%S}"
