"""Count a large audit log, and give one brand more hourly counts than any brand has; write JSON.

Runs inside an installation: `python -m bench.home_page_rows FILE`. FILE gets the times, and the cookie of an admin.
"""

import json
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import django
from django.conf import settings
from django.test import Client
from django.utils import timezone

django.setup()

from django.contrib.auth.models import User  # noqa: E402  the models need Django set up

from bench import cast  # noqa: E402
from bench.rows import Rows  # noqa: E402
from brands.models import Brand  # noqa: E402
from conversations.models import AuditEvent, HourlyCount  # noqa: E402
from conversations.statistics import ANSWERED, BUCKETS, OUTCOMES, STEPS, count_events  # noqa: E402
from oauth_client import ErrorCode  # noqa: E402

_HOURS: Final = 30 * 24
_Measure: Final = HourlyCount.Measure
_DETAILS: Final = {
    _Measure.STEP: STEPS,
    _Measure.OUTCOME: OUTCOMES,
    _Measure.ERROR: tuple(ErrorCode),
    _Measure.TOKEN_REQUEST: (ANSWERED, *ErrorCode),
    **{
        measure: tuple(map(str, BUCKETS))
        for measure in (
            _Measure.UNTIL_LEFT,
            _Measure.UNTIL_RETURNED,
            _Measure.UNTIL_TOKEN,
            _Measure.UNTIL_CONFIRMED,
            _Measure.TOKEN_REQUEST_TIME,
        )
    },
}


def main() -> None:
    """Count, fill, sign an admin in."""
    report = {"counted": _count_audit_log() | {"hourly_counts": _fill()}, "cookie": _signed_in()}
    Path(sys.argv[1]).write_text(json.dumps(report))


def _count_audit_log() -> dict[str, Any]:
    events, began = AuditEvent.objects.count(), time.perf_counter()
    while count_events(timezone.now()):
        pass
    return {"audit_events": events, "counting_seconds": round(time.perf_counter() - began, 1)}


def _fill() -> int:
    """Replace the brand's counts: each detail of each measure in each hour of 30 days."""
    brand = Brand.objects.get(slug=cast.ACME)
    HourlyCount.objects.filter(brand=brand).delete()
    rows = Rows(HourlyCount, brand_id=brand.pk)
    for values in _each_count():
        rows.add(**values)
    rows.write()
    return HourlyCount.objects.filter(brand=brand).count()


def _each_count() -> Iterator[dict[str, Any]]:
    this_hour = timezone.now().replace(minute=0, second=0, microsecond=0)
    for hours in range(_HOURS):
        for measure, details in _DETAILS.items():
            for place, detail in enumerate(details):
                yield {
                    "hour": this_hour - timedelta(hours=hours),
                    "measure": measure.value,
                    "detail": str(detail),
                    "times": hours + place + 1,
                }


def _signed_in() -> str:
    """Return the Cookie header of an admin who sees every brand."""
    client = Client()
    client.force_login(User.objects.create_superuser("bench"), backend=settings.AUTHENTICATION_BACKENDS[0])
    name = settings.SESSION_COOKIE_NAME
    return f"{name}={client.cookies[name].value}"


if __name__ == "__main__":
    main()
