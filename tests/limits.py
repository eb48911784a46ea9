"""Rate limits as tests need them: as after a pause, without waiting."""

from datetime import timedelta

from django.db.models import F

from conversations.models import Challenge
from delegation_site import rate_limits
from delegation_site.models import RateCounter


def pause() -> None:
    """Make everything so far count for no limit any more, as if ten minutes had gone by for the limits alone."""
    RateCounter.objects.all().delete()
    rate_limits.forget_in_process()
    Challenge.objects.update(issued_at=F("issued_at") - timedelta(minutes=10))
