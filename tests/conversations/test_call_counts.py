"""Calls of brands' APIs are written to the database about once a minute, while the process lives."""

from datetime import timedelta

import pytest
from django.utils import timezone

from brands.models import BotKey, Brand
from conversations.flow.call_counts import CallKind, count_call
from conversations.models import ApiCallCount
from tests.cast import make_bot

pytestmark = pytest.mark.django_db


def test_counts_are_written_a_minute_later_by_the_next_call(acme: Brand) -> None:
    """P11: they were kept until the process ended, and lost with one that was killed."""
    make_bot(acme)
    kind = CallKind(BotKey.objects.get().pk, "orders.list", "2xx", "order.status")
    now = timezone.now().replace(minute=10)
    count_call(kind, 7, now)
    count_call(kind, 8, now + timedelta(seconds=59))
    assert not ApiCallCount.objects.exists()
    count_call(kind, 9, now + timedelta(seconds=61))
    assert list(ApiCallCount.objects.values_list("times", "milliseconds")) == [(3, 24)]
