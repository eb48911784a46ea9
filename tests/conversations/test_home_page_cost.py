"""What the admin's first page costs in processor time, beside a constant view of a bare Django in the same process.

The page reads hourly counts alone. A brand has as many of them for a million conversations as for ten thousand.
"""

import time
from collections.abc import Callable
from datetime import timedelta
from statistics import median
from typing import Any, Final

import pytest
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.test import Client, override_settings
from django.urls import path
from django.utils import timezone

from brands.models import Brand
from conversations.home import DURATIONS, STEPS
from conversations.models import CountedAuditLog, HourlyCount
from conversations.statistics import BUCKETS, OUTCOMES
from oauth_client import ErrorCode
from tests import measurements
from tests.admin_pages import AdminBrowser

pytestmark = pytest.mark.django_db

TIMES: Final = 10
DETAILS: Final = {
    "step": list(STEPS),
    "outcome": OUTCOMES,
    "error": list(ErrorCode)[:8],
    "token_request": ["answered", *list(ErrorCode)[:4]],
    **dict.fromkeys(map(str, DURATIONS), BUCKETS[:12]),
}


def constant(request: HttpRequest) -> HttpResponse:
    return HttpResponse("the same")


urlpatterns = [path("constant", constant)]


def fill(brand: Brand) -> None:
    """Give a brand the counts of thirty busy days: something happened in every hour, in almost every way."""
    this_hour = timezone.now().replace(minute=0, second=0, microsecond=0)
    HourlyCount.objects.bulk_create(
        (
            HourlyCount(brand=brand, hour=this_hour - timedelta(hours=ago), measure=measure, detail=detail, times=30)
            for ago in range(31 * 24)
            for measure, details in DETAILS.items()
            for detail in details
        ),
        batch_size=2_000,
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")


def milliseconds(call: Callable[[], Any]) -> float:
    """Return the median of this process's processor time."""
    took = []
    for _ in range(TIMES):
        began = time.process_time()
        assert call().status_code == 200
        took.append((time.process_time() - began) * 1_000)
    return round(median(took), 1)


@pytest.mark.full
def test_the_cost_of_the_first_page_is_measured(acme: Brand, acme_admin: Any) -> None:
    CountedAuditLog.objects.create(pk=1, counted_at=timezone.now())
    fill(acme)
    ada = AdminBrowser(acme_admin)
    page = milliseconds(lambda: ada.get("/admin/", period="30d"))
    with override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=[]):
        bare_django = milliseconds(lambda: Client().get("/constant"))
    measured = {"page_cpu_ms": page, "bare_django_cpu_ms": bare_django}
    measurements.note("the admin's first page", "30 days of hourly counts", measured)
    assert page > bare_django
