"""Run one drill: load, fault, recovery, and what was lost."""

import time
from collections.abc import Callable
from typing import Final

import psycopg2

from drills.counting import WAITING, count_lost
from drills.promises import Drill, Outcome
from drills.stage import Prepared, Stage, missing_parts, standing, wait_until
from drills.table import Result

THREADS: Final = 8
# Before the fault, and again after it.
JOURNEYS: Final = 25
# How long everything has to be well, to be called so.
_WELL_SECONDS: Final = 4.0
_RECOVERY_SECONDS: Final = 150.0
_DRAIN_SECONDS: Final = 180.0
# An event that has waited longer is late.
_LATE: Final = """
SELECT count(*) FROM conversations_webhookdelivery
WHERE delivered_at IS NULL AND created_at < now() - interval '3 seconds'
"""

Say = Callable[[str], None]


def run(drill: Drill, made: Prepared, say: Say) -> Result:
    """Run a drill, or say why it cannot be run here."""
    if reason := missing_parts() or drill.needs():
        return Result(drill, skipped=reason)
    with standing(made, drill.shape, drill.name) as stage:
        with stage.load.running(THREADS):
            if not wait_until(lambda: len(stage.load.done) >= JOURNEYS, _RECOVERY_SECONDS):
                raise RuntimeError(f"{drill.name}: too few journeys before the fault: {dict(stage.load.seen.errors)}")
            say(f"{drill.name}: the fault")
            drill.inject(stage)
            over_at = time.monotonic()
            say(f"{drill.name}: the fault is over, {_seen(stage)}")
            recovered_after = _recovered_after(stage, over_at)
            wait_until(lambda: stage.load.done_since(over_at) >= JOURNEYS, _RECOVERY_SECONDS)
        wait_until(lambda: stage.database.sql(WAITING)[0][0] == 0, _DRAIN_SECONDS)
        done = len(stage.load.done)
        outcome = Outcome(
            done=done,
            unfinished=len(stage.load.journeys) - done,
            errors=stage.load.seen.errors,
            lost=count_lost(stage),
            recovered_after=recovered_after,
        )
    return Result(drill, outcome)


def _seen(stage: Stage) -> str:
    return f"{len(stage.load.done)} journeys done, errors: {dict(stage.load.seen.errors) or 'none'}"


def _recovered_after(stage: Stage, over_at: float) -> float | None:
    """Return the seconds until the last failed request or late webhook after the fault; None if there was no end."""
    bad_at = over_at
    while time.monotonic() < over_at + _RECOVERY_SECONDS:
        time.sleep(0.25)
        if _is_late(stage):
            bad_at = time.monotonic()
        bad_at = max(bad_at, stage.load.seen.last_error_at)
        if time.monotonic() > bad_at + _WELL_SECONDS and stage.load.done_since(over_at):
            return bad_at - over_at
    return None


def _is_late(stage: Stage) -> bool:
    try:
        return bool(stage.database.sql(_LATE)[0][0])
    except psycopg2.OperationalError:
        return True  # the database is not back yet
