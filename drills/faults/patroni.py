"""A database that moves to another member of a Patroni cluster: as planned, and because the primary is gone."""

from typing import Final

from drills.members import Member, no_patroni
from drills.promises import AWAY, UNDER_WAY, Drill, Shape
from drills.stage import Stage, wait_until

_PATRONI: Final = Shape(database="patroni")


def switch_over(stage: Stage) -> None:
    """The primary turns read-only, and a synchronous standby takes over."""
    before = stage.cluster.leader
    stage.cluster.switch_over()
    _prove_moved(stage, before)
    stage.cluster.wait_until_synchronous(1)


def fail_over(stage: Stage) -> None:
    """Everything of the primary is killed. A standby takes over, and the old primary comes back as a standby."""
    killed = stage.cluster.leader
    killed.kill()
    stage.prove("the primary is gone", holds=not killed.is_leader())
    stage.cluster.wait_until_synchronous(1)
    _prove_moved(stage, killed)
    stage.cluster.start(killed)


def _prove_moved(stage: Stage, before: Member) -> None:
    moved = wait_until(lambda: any(one.is_leader() for one in stage.cluster.members if one is not before), 30)
    stage.prove("another member is the primary", holds=moved)


DRILLS: Final = (
    Drill(
        name="patroni_switchover",
        promise="the primary becomes a standby, with synchronous mode: 503 only; nothing lost; no restart of ours",
        inject=switch_over,
        allowed=AWAY,
        most_orphans=UNDER_WAY,
        needs=no_patroni,
        shape=_PATRONI,
    ),
    Drill(
        name="patroni_failover",
        promise="the primary is killed, with synchronous mode: 503 only; nothing lost; no restart of ours",
        inject=fail_over,
        allowed=AWAY,
        most_orphans=UNDER_WAY,
        needs=no_patroni,
        shape=_PATRONI,
    ),
)
