"""A database that moves to another member of a Patroni cluster: as planned, and because the primary is gone."""

from typing import Final

from drills.members import no_patroni
from drills.promises import AWAY, Drill, Shape
from drills.stage import Stage

_PATRONI: Final = Shape(database="patroni")


def switch_over(stage: Stage) -> None:
    """The primary turns read-only, and a synchronous standby takes over."""
    stage.cluster.switch_over()
    stage.cluster.wait_until_synchronous(1)


def fail_over(stage: Stage) -> None:
    """Everything of the primary is killed. A standby takes over, and the old primary comes back as a standby."""
    killed = stage.cluster.leader
    killed.kill()
    stage.cluster.wait_until_synchronous(1)
    stage.cluster.start(killed)


DRILLS: Final = (
    Drill(
        name="patroni_switchover",
        promise="the primary becomes a standby, with synchronous mode: 503 only; nothing lost; no restart of ours",
        inject=switch_over,
        allowed=AWAY,
        needs=no_patroni,
        shape=_PATRONI,
    ),
    Drill(
        name="patroni_failover",
        promise="the primary is killed, with synchronous mode: 503 only; nothing lost; no restart of ours",
        inject=fail_over,
        allowed=AWAY,
        needs=no_patroni,
        shape=_PATRONI,
    ),
)
