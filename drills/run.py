"""Run one drill: load, fault, recovery, and what was lost."""

import os
import time
from collections.abc import Callable
from typing import Final

import psycopg2

from drills.counting import WAITING, count_lost
from drills.promises import LATE_SECONDS, RECOVERY_SECONDS, Drill, FaultDidNotTakeHold, Outcome
from drills.stage import Prepared, Stage, missing_parts, standing, wait_until
from drills.table import Result

THREADS: Final = 8
# Before the fault, and again after it.
JOURNEYS: Final = 15
# How long everything has to be well, to be called so.
_WELL_SECONDS: Final = 4.0
_DRAIN_SECONDS: Final = 180.0
# The ages of the events that wait, in seconds; and how long each event has waited, or waits.
_WAITING: Final = """
SELECT extract(epoch FROM now() - created_at)::float FROM conversations_webhookdelivery WHERE delivered_at IS NULL
"""
_WAITED: Final = """
SELECT extract(epoch FROM coalesce(delivered_at, now()) - created_at)::float FROM conversations_webhookdelivery
"""

Say = Callable[[str], None]


def run(drill: Drill, made: Prepared, say: Say) -> Result:
    """Run a drill, or say why it cannot be run here."""
    if reason := missing_parts() or drill.needs():
        return Result(drill, skipped=reason)
    with standing(made, drill.shape, drill.name) as stage:
        began_at = time.monotonic()
        with stage.load.running(THREADS):
            if not wait_until(lambda: len(stage.load.done) >= JOURNEYS, RECOVERY_SECONDS):
                raise RuntimeError(f"{drill.name}: too few journeys before the fault: {dict(stage.load.seen.errors)}")
            say(f"{drill.name}: the fault")
            drill.inject(stage)
            over_at = time.monotonic()
            check_taken_hold(drill, stage.proofs)
            say(f"{drill.name}: the fault is over ({'; '.join(stage.proofs)}), {_seen(stage)}")
            recovered_after = _recovered_after(stage, over_at)
            wait_until(lambda: stage.load.done_since(over_at) >= JOURNEYS, RECOVERY_SECONDS)
            lasted = time.monotonic() - began_at
        wait_until(lambda: stage.database.sql(WAITING)[0][0] == 0, _DRAIN_SECONDS)
        return Result(drill, _outcome(stage, lasted, recovered_after))


def check_taken_hold(drill: Drill, proofs: list[str]) -> None:
    """Raise `FaultDidNotTakeHold` for a fault without a proof. A control run has no fault."""
    if not proofs and not drill.is_control:
        raise FaultDidNotTakeHold("it shows no proof")


def _outcome(stage: Stage, lasted: float, recovered_after: float | None) -> Outcome:
    done = len(stage.load.done)
    waited = [seconds for (seconds,) in stage.database.sql(_WAITED)]
    return Outcome(
        done=done,
        unfinished=len(stage.load.journeys) - done,
        errors=stage.load.seen.errors,
        lost=count_lost(stage),
        recovered_after=recovered_after,
        per_second=done / lasted,
        late=sum(seconds > LATE_SECONDS for seconds in waited),
        slowest=max(waited, default=0.0),
        load=os.getloadavg()[0],
    )


def _seen(stage: Stage) -> str:
    return f"{len(stage.load.done)} journeys done, errors: {dict(stage.load.seen.errors) or 'none'}"


def _recovered_after(stage: Stage, over_at: float) -> float | None:
    """Return the seconds until the last failed request or late webhook after the fault; None if there was no end."""
    bad_at = over_at
    while time.monotonic() < over_at + RECOVERY_SECONDS:
        time.sleep(0.25)
        if _is_late(stage):
            bad_at = time.monotonic()
        bad_at = max(bad_at, stage.load.seen.last_error_at)
        if time.monotonic() > bad_at + _WELL_SECONDS and stage.load.done_since(over_at):
            return bad_at - over_at
    return None


def _is_late(stage: Stage) -> bool:
    try:
        return any(seconds > LATE_SECONDS for (seconds,) in stage.database.sql(_WAITING))
    except psycopg2.OperationalError:
        return True  # the database is not back yet
