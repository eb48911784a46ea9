"""Faults of workers: killed in deliveries, and with a wrong clock."""

import sys
import time
from typing import Final

from drills.promises import Drill
from drills.stage import Stage

_AHEAD_SECONDS: Final = 2 * 3600
_WRONG_SECONDS: Final = 20
# The clock of this process alone, for `datetime` and `time`; the database's is right.
_WITH_CLOCK: Final = f"""
import datetime, sys, time_machine
ahead = datetime.timedelta(seconds={_AHEAD_SECONDS})
time_machine.travel(datetime.datetime.now(datetime.UTC) + ahead).start()
from django.core.management import execute_from_command_line
execute_from_command_line(["manage.py", "worker"])
"""


def kill(stage: Stage) -> None:
    """SIGKILL each worker once, while webhooks are under way; systemd starts it again."""
    for worker in stage.workers:
        worker.kill()


def wrong_clock(stage: Stage) -> None:
    """Both workers run two hours ahead, when every token seems to have expired, and then rightly again."""
    for worker in stage.workers:
        right, worker.command = worker.command, [sys.executable, "-c", _WITH_CLOCK]
        worker.restart()
        worker.command = right
    time.sleep(_WRONG_SECONDS)
    for worker in stage.workers:
        worker.restart()


DRILLS: Final = (
    Drill(
        name="worker_kill",
        promise="each worker killed in deliveries: no error; no webhook lost; late by two minutes at most",
        inject=kill,
    ),
    Drill(
        name="clock_of_workers_ahead",
        promise="workers two hours ahead: they sweep nothing, so no token is lost, and go on delivering",
        inject=wrong_clock,
    ),
)
