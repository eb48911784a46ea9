"""What is kept of an `Idempotency-Key`: enough to know it again, and which challenge it made."""

from datetime import timedelta
from typing import Final

from django.db import models
from django.utils import timezone

from brands.models import Brand
from conversations.models.challenge import Challenge

IDEMPOTENCY_LIFETIME: Final = timedelta(hours=24)


class IdempotencyKey(models.Model):
    """A key that a brand's bot sent with a new challenge: two digests, and no answer that could hold anything."""

    brand = models.ForeignKey(Brand, on_delete=models.CASCADE, related_name="+")
    digest = models.BinaryField(max_length=80)
    request_digest = models.BinaryField(max_length=80)
    challenge = models.ForeignKey(Challenge, on_delete=models.CASCADE, related_name="+")
    created_at = models.DateTimeField(default=timezone.now, db_index=True)

    class Meta:
        ordering = ("id",)
        constraints = [
            models.UniqueConstraint(fields=("brand", "digest"), name="one_challenge_per_idempotency_key"),
        ]

    def __str__(self) -> str:
        return str(self.challenge_id)
