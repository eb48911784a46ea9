"""How often tokens were read, by key, purpose and hour: what an admin can see without a row for each read."""

from datetime import timedelta
from typing import Any, Final

from django.db import models

from brands.models import BotKey

READ_COUNTS_KEPT_FOR: Final = timedelta(days=90)


class TokenReadCountQuerySet(models.QuerySet["TokenReadCount"]):
    """Counts as their brand's admins may see them."""

    def administered_by(self, user: Any) -> "TokenReadCountQuerySet":
        """Return the counts of this admin's brands."""
        return self if user.is_superuser else self.filter(bot_key__brand__admins=user)


class TokenReadCount(models.Model):
    """Reads that were answered with a token, in one hour; written by `conversations.flow.read_counts` alone."""

    bot_key = models.ForeignKey(BotKey, on_delete=models.CASCADE, related_name="token_read_counts")
    purpose = models.CharField(max_length=64, blank=True)
    hour = models.DateTimeField(db_index=True)
    times = models.PositiveIntegerField()

    objects = TokenReadCountQuerySet.as_manager()

    class Meta:
        ordering = ("-hour", "bot_key", "purpose")
        constraints = [
            models.UniqueConstraint(fields=("bot_key", "hour", "purpose"), name="one_count_per_key_hour_and_purpose"),
        ]

    def __str__(self) -> str:
        return f"{self.times} in the hour of {self.hour:%Y-%m-%d %H:%M}"
