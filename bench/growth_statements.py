"""Time each statement of the sweep, the purge and the admin's lists on a large database; write JSON.

Runs inside an installation: `python -m bench.growth_statements FILE`. It changes the installation's data.
"""

import json
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import django
from django.db import connection
from django.db.models import QuerySet
from django.utils import timezone

django.setup()

from bench.figures import spread  # noqa: E402
from conversations.flow.retention import prune, sweep  # noqa: E402  the models need Django set up
from conversations.models import AccessToken, AuditEvent, Challenge, Conversation  # noqa: E402

# How much the sweep has to do after a busy minute.
DUE: Final = 200
RETENTION: Final = timedelta(days=30)
_ADMIN_PAGE: Final = 100
# Thousands of statements. The whole purge of a million conversations takes two minutes.
_MOST_SECONDS_OF_PURGE: Final = 15


class Stopwatch:
    """Records the duration of each statement."""

    def __init__(self) -> None:
        self.milliseconds: list[float] = []
        self.slowest = ""

    def __call__(self, execute: Callable[..., Any], sql: str, parameters: Any, many: bool, context: Any) -> Any:
        began = time.perf_counter()
        try:
            return execute(sql, parameters, many, context)
        finally:
            took = (time.perf_counter() - began) * 1e3
            if took > max(self.milliseconds, default=0.0):
                self.slowest = sql[:160]
            self.milliseconds.append(took)


def timed(act: Callable[[], Any]) -> dict[str, Any]:
    """Call a function; return the durations of its statements."""
    watch, began = Stopwatch(), time.perf_counter()
    with connection.execute_wrapper(watch):
        result = act()
    total = round(time.perf_counter() - began, 2)
    return {"result": result, "seconds": total, "slowest": watch.slowest} | spread(watch.milliseconds)


def main() -> None:
    """Read the admin's lists, sweep, purge."""
    now = timezone.now()
    lists = (Conversation, Challenge, AccessToken, AuditEvent)
    report = {f"list_{model._meta.model_name}": timed(partial(_admin_page, model.objects.all())) for model in lists}
    due = AccessToken.objects.filter(ended_at=None).order_by("-pk").values_list("pk", flat=True)[:DUE]
    AccessToken.objects.filter(pk__in=list(due)).update(expires_at=now - timedelta(seconds=1))
    report["sweep"] = timed(lambda: sweep(now))
    report["sweep_with_nothing_due"] = timed(lambda: sweep(now))
    until = time.monotonic() + _MOST_SECONDS_OF_PURGE
    report["purge"] = timed(lambda: prune(now - RETENTION, lambda: time.monotonic() > until))
    Path(sys.argv[1]).write_text(json.dumps(report))


def _admin_page(rows: QuerySet[Any]) -> int:
    """Read the first page of an admin's list: the count and the newest rows."""
    return rows.count() + len(rows.order_by("-pk")[:_ADMIN_PAGE])


if __name__ == "__main__":
    main()
