"""Rate limits as tests need them: as after a pause, without waiting, and with no window that ends in the middle."""

import time
from datetime import timedelta
from types import SimpleNamespace

import pytest
from django.db.models import F

from conversations.models import Challenge
from infrastructure import rate_limits
from infrastructure.models import RateCounter


@pytest.fixture
def one_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop the limits' clock: one test run in twenty met a window that ended within it, and began to count anew."""
    began = time.time()
    monkeypatch.setattr(rate_limits, "time", SimpleNamespace(time=lambda: began, monotonic=time.monotonic))


def pause() -> None:
    """Make everything so far count for no limit any more, as if ten minutes had gone by for the limits alone."""
    RateCounter.objects.all().delete()
    rate_limits.forget_in_process()
    Challenge.objects.update(issued_at=F("issued_at") - timedelta(minutes=10))
