"""Faults of PostgreSQL and its pooler: restarts, an outage, a lock, a full disk."""

import time
from typing import IO, Final

import psycopg2
import psycopg2.errors

from drills.databases import no_mounts, no_pooler
from drills.promises import AWAY, UNDER_WAY, Drill, Shape
from drills.proofs import fails_with, refuses
from drills.stage import Stage

_AWAY_SECONDS: Final = 20
_LOCKED_SECONDS: Final = 15
_FULL_SECONDS: Final = 15
_POOLER_SECONDS: Final = 3
# More than the room that PostgreSQL has set aside for its WAL.
_MUCH: Final = "CREATE TABLE much AS SELECT number, repeat('x', 500) FROM generate_series(1, 200000) number"


def _restart(mode: str, stage: Stage) -> None:
    stage.postgresql.stop(mode)
    _prove_refused(stage, stage.postgresql.url)
    stage.postgresql.start()


def _prove_refused(stage: Stage, address: str) -> None:
    stage.prove("connections refused", holds=refuses(address))


def fast_restart(stage: Stage) -> None:
    """Every connection is ended (57P01), and PostgreSQL starts again."""
    _restart("fast", stage)


def immediate_restart(stage: Stage) -> None:
    """A crash: nothing is written down any more, and the start replays the WAL."""
    _restart("immediate", stage)


def outage(stage: Stage) -> None:
    """Nobody is there for a while."""
    stage.postgresql.stop()
    _prove_refused(stage, stage.postgresql.url)
    time.sleep(_AWAY_SECONDS)
    stage.postgresql.start()


def fill_disk(stage: Stage) -> None:
    """Nothing can be written to PostgreSQL's disk; then there is room again, and its own unit starts it if it ended."""
    filler = stage.postgresql.folder.parent / "filler"
    block = bytes(1024 * 1024)
    with filler.open("wb", buffering=0) as file:
        stage.prove("no space left", holds=fails_with(OSError, lambda: _write_on(file, block)))
        failed = fails_with((psycopg2.errors.DiskFull, psycopg2.OperationalError), lambda: stage.postgresql.sql(_MUCH))
        stage.prove("PostgreSQL cannot write", holds=failed)
        time.sleep(_FULL_SECONDS)
    filler.unlink()
    stage.postgresql.ensure_running()


def _write_on(file: IO[bytes], block: bytes) -> None:
    while file.write(block):
        pass


def lock(stage: Stage) -> None:
    """A transaction that somebody left open holds the tables that every call needs."""
    with stage.postgresql.locked("conversations_conversation", "conversations_challenge"):
        time.sleep(_LOCKED_SECONDS / 2)
        waiting = stage.postgresql.sql("SELECT count(*) FROM pg_locks WHERE NOT granted")[0][0]
        stage.prove(f"{waiting} statements wait for the lock", holds=waiting > 0)
        time.sleep(_LOCKED_SECONDS / 2)


def restart_pooler(stage: Stage) -> None:
    """The pooler stops at once, and is back after some seconds; every connection breaks."""
    if stage.pooler is None:
        raise RuntimeError("this drill has no pooler")
    stage.pooler.stop()
    _prove_refused(stage, stage.pooler.server_url)
    time.sleep(_POOLER_SECONDS)
    stage.pooler.start()


DRILLS: Final = (
    Drill(
        name="postgresql_fast_restart",
        promise="503 only; nothing lost; no restart of ours",
        inject=fast_restart,
        allowed=AWAY,
        most_orphans=UNDER_WAY,
    ),
    Drill(
        name="postgresql_immediate_restart",
        promise="503 only; nothing lost; no restart of ours",
        inject=immediate_restart,
        allowed=AWAY,
        most_orphans=UNDER_WAY,
    ),
    Drill(
        name="postgresql_stopped",
        promise=f"503 only in {_AWAY_SECONDS} s without a database; nothing lost; no restart of ours",
        inject=outage,
        allowed=AWAY,
        most_orphans=UNDER_WAY,
    ),
    Drill(
        name="postgresql_lock",
        promise=f"503 only while tables are locked for {_LOCKED_SECONDS} s; nothing lost",
        inject=lock,
        allowed=AWAY,
        most_orphans=UNDER_WAY,
    ),
    Drill(
        name="postgresql_disk_full",
        promise=f"503 only while the disk is full for {_FULL_SECONDS} s; nothing lost; no restart of ours",
        inject=fill_disk,
        allowed=AWAY,
        most_orphans=UNDER_WAY,
        needs=no_mounts,
        shape=Shape(database="small_disk"),
    ),
    Drill(
        name="pgbouncer_transaction_mode",
        promise="PgBouncer restarted: 503 only; nothing lost; no restart of ours",
        inject=restart_pooler,
        allowed=AWAY,
        most_orphans=UNDER_WAY,
        needs=no_pooler,
        shape=Shape(pool_mode="transaction"),
    ),
    Drill(
        name="pgbouncer_session_mode",
        promise="PgBouncer restarted: 503 only; nothing lost; no restart of ours",
        inject=restart_pooler,
        allowed=AWAY,
        most_orphans=UNDER_WAY,
        needs=no_pooler,
        shape=Shape(pool_mode="session"),
    ),
)
