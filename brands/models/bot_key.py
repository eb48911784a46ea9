"""The key of a brand's bot."""

from datetime import datetime
from typing import Any
from uuid import uuid4

from django.db import models
from django.utils import timezone

from brands.models.brand import Brand


class BotKeyQuerySet(models.QuerySet["BotKey"]):
    """Keys by what they may still do."""

    def administered_by(self, user: Any) -> "BotKeyQuerySet":
        """Return the keys of this admin's brands."""
        return self if user.is_superuser else self.filter(brand__admins=user)

    def live(self, now: datetime | models.Expression) -> "BotKeyQuerySet":
        """Return the keys that are neither revoked nor expired, of brands that are active."""
        unexpired = models.Q(expires_at=None) | models.Q(expires_at__gt=now)
        return self.filter(unexpired, revoked_at=None, brand__is_active=True)


class BotKey(models.Model):
    """A bot's bearer key for our API. The key is shown once; the row keeps a keyed digest (G1)."""

    class Scope(models.TextChoices):
        """What a key may do. `token:read` is the crown jewel and never on by default (G3)."""

        CHALLENGE_CREATE = "challenge:create", "challenge:create: send links, complete and close"
        CHALLENGE_READ = "challenge:read", "challenge:read: see how it stands"
        TOKEN_READ = "token:read", "token:read: read access tokens"

    uuid = models.UUIDField(default=uuid4, unique=True, editable=False)
    brand = models.ForeignKey(Brand, on_delete=models.PROTECT, related_name="bot_keys")
    label = models.CharField(max_length=80)
    public_id = models.CharField(max_length=16, unique=True, editable=False)
    digest = models.BinaryField(editable=False)
    scopes = models.JSONField(default=list)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)
    reads_unusual_at = models.DateTimeField("unusual token reads", null=True, blank=True, editable=False)

    objects = BotKeyQuerySet.as_manager()

    class Meta:
        ordering = ("brand", "label", "id")

    def __str__(self) -> str:
        return f"{self.label} ({self.public_id})"
