"""Counts of the audit events of each brand and hour, and how far the audit log is counted."""

from datetime import timedelta
from typing import Final

from django.db import models

from brands.models import Brand, BrandRowsQuerySet

HOURLY_COUNT_RETENTION: Final = timedelta(days=400)


class HourlyCountQuerySet(BrandRowsQuerySet["HourlyCount"]):
    """Selects the counts of the brands that an admin may see."""


class HourlyCount(models.Model):
    """How many audit events of one kind a brand had in one hour; only `conversations.statistics` writes it (J9)."""

    class Measure(models.TextChoices):
        """What is counted. `detail` says which step, outcome or error code, or the upper bound of a duration."""

        STEP = "step"
        OUTCOME = "outcome"
        ERROR = "error"
        TOKEN_REQUEST = "token_request"
        # Durations: `detail` is the bucket's upper bound in milliseconds, or `over`.
        UNTIL_LEFT = "until_left"
        UNTIL_RETURNED = "until_returned"
        UNTIL_TOKEN = "until_token"
        UNTIL_CONFIRMED = "until_confirmed"
        TOKEN_REQUEST_TIME = "token_request_time"

    brand = models.ForeignKey(Brand, on_delete=models.CASCADE, related_name="+", db_index=False)
    hour = models.DateTimeField(db_index=True)
    measure = models.CharField(max_length=24, choices=Measure)
    detail = models.CharField(max_length=64)
    times = models.PositiveIntegerField()

    objects = HourlyCountQuerySet.as_manager()

    class Meta:
        ordering = ("brand", "hour", "measure", "detail")
        constraints = [
            models.UniqueConstraint(fields=("brand", "hour", "measure", "detail"), name="one_hourly_count"),
        ]

    def __str__(self) -> str:
        return f"{self.times} {self.measure} {self.detail} in the hour of {self.hour:%Y-%m-%d %H:%M}"


class CountedAuditLog(models.Model):
    """The one row that says how far the audit log is counted. It changes in the transaction of the counts."""

    # Every row up to this primary key is counted, exactly once.
    counted_id = models.BigIntegerField(default=0)
    # The log can be counted up to this primary key when no transaction below `mark_transaction` is running any more.
    mark_id = models.BigIntegerField(default=0)
    mark_transaction = models.BigIntegerField(default=0)
    mark_at = models.DateTimeField(null=True)
    # Every row that was committed before this time is counted.
    counted_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("id",)

    def __str__(self) -> str:
        return f"counted up to {self.counted_id}"
