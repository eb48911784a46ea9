"""Rate limits in tests: reset them without waiting, and keep a window from ending during a test."""

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
    """Stop the limits' clock. In one of twenty runs a window ended during the test, and counting began again."""
    began = time.time()
    monkeypatch.setattr(rate_limits, "time", SimpleNamespace(time=lambda: began, monotonic=time.monotonic))


def pause() -> None:
    """Reset all limits, as if ten minutes had passed for them only."""
    RateCounter.objects.all().delete()
    rate_limits.reset_in_process()
    Challenge.objects.update(issued_at=F("issued_at") - timedelta(minutes=10))
