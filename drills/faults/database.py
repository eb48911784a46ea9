"""Faults of PostgreSQL: restarts, an outage, a lock, a full disk."""

import time
from typing import Final

from drills.promises import AWAY, Drill
from drills.stage import Stage

_AWAY_SECONDS: Final = 20
_LOCKED_SECONDS: Final = 15


def _restart(mode: str, stage: Stage) -> None:
    stage.postgresql.stop(mode)
    stage.postgresql.start()


def fast_restart(stage: Stage) -> None:
    """Every connection is ended (57P01), and PostgreSQL starts again."""
    _restart("fast", stage)


def immediate_restart(stage: Stage) -> None:
    """A crash: nothing is written down any more, and the start replays the WAL."""
    _restart("immediate", stage)


def outage(stage: Stage) -> None:
    """Nobody is there for a while."""
    stage.postgresql.stop()
    time.sleep(_AWAY_SECONDS)
    stage.postgresql.start()


def lock(stage: Stage) -> None:
    """A transaction that somebody left open holds the tables that every call needs."""
    with stage.postgresql.locked("conversations_conversation", "conversations_challenge"):
        time.sleep(_LOCKED_SECONDS)


DRILLS: Final = (
    Drill(
        name="postgresql_fast_restart",
        promise="503 only; nothing lost; no restart of ours",
        inject=fast_restart,
        allowed=AWAY,
    ),
    Drill(
        name="postgresql_immediate_restart",
        promise="503 only; nothing lost; no restart of ours",
        inject=immediate_restart,
        allowed=AWAY,
    ),
    Drill(
        name="postgresql_stopped",
        promise=f"503 only in {_AWAY_SECONDS} s without a database; nothing lost; no restart of ours",
        inject=outage,
        allowed=AWAY,
    ),
    Drill(
        name="postgresql_lock",
        promise=f"503 only while tables are locked for {_LOCKED_SECONDS} s; nothing lost",
        inject=lock,
        allowed=AWAY,
    ),
)
