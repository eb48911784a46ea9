"""Faults of workers: killed in deliveries, and with a wrong clock."""

import sys
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

from drills.promises import Drill
from drills.proofs import is_gone
from drills.services import START_SECONDS, Service
from drills.stage import Stage, wait_until

_AHEAD_SECONDS: Final = 2 * 3600
_LEASED_WITHIN_SECONDS: Final = 10
_LEASED: Final = "SELECT count(*) FROM conversations_webhookdelivery WHERE lease_until > now() AND delivered_at IS NULL"
_WRONG_SECONDS: Final = 20
# The clock of this process alone, for `datetime` and `time`; the database's is right.
_WITH_CLOCK: Final = f"""
import datetime, os, time_machine
os.environ["DJANGO_SETTINGS_MODULE"] = "delegation_site.settings"
ahead = datetime.timedelta(seconds={_AHEAD_SECONDS})
time_machine.travel(datetime.datetime.now(datetime.UTC) + ahead).start()
from django.core.management import execute_from_command_line
execute_from_command_line(["manage.py", "worker"])
"""


def _has_line_after(moment: datetime, stage: Stage, worker: Service) -> bool:
    dates = (datetime.fromisoformat(line["asctime"]).astimezone(UTC) for line in stage.lines_of(worker))
    return any(date > moment for date in dates)


def kill(stage: Stage) -> None:
    """SIGKILL each worker once, while webhooks are under way; systemd starts it again."""
    for worker in stage.workers:
        leased = wait_until(lambda: stage.database.sql(_LEASED)[0][0], _LEASED_WITHIN_SECONDS)
        stage.prove("deliveries were leased", holds=leased)
        pid = worker.pid
        worker.kill()
        stage.prove("killed workers are gone", holds=is_gone(pid))


def wrong_clock(stage: Stage) -> None:
    """Both workers run two hours ahead, when every token seems to have expired, and then rightly again."""
    for worker in stage.workers:
        right, worker.command = worker.command, [sys.executable, "-c", _WITH_CLOCK]
        worker.restart()
        worker.command = right
    told = datetime.now(UTC) + timedelta(seconds=_AHEAD_SECONDS / 2)
    for worker in stage.workers:
        ahead = wait_until(partial(_has_line_after, told, stage, worker), START_SECONDS)
        stage.prove("both workers' lines are dated ahead", holds=ahead)
    time.sleep(_WRONG_SECONDS)
    for worker in stage.workers:
        worker.restart()


DRILLS: Final = (
    Drill(
        name="worker_kill",
        promise="each worker killed in deliveries: no error; no webhook lost; late by the minute of its lease at most",
        inject=kill,
        # The lease of a killed worker, `infrastructure.leases.LEASE`, and what has waited behind it.
        recovers_within=75,
    ),
    Drill(
        name="clock_of_workers_ahead",
        promise="workers two hours ahead: they sweep nothing, so no token is lost, and go on delivering",
        inject=wrong_clock,
    ),
)
