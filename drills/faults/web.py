"""Faults of web processes: killed, stopped, restarted, and asked for ten times as much."""

import time
from typing import Final

from drills.promises import BROKEN_OFF, Drill
from drills.stage import Stage

_KILLS: Final = 4


def kill_child(stage: Stage) -> None:
    """SIGKILL a web process, several times, while callbacks are under way: gunicorn starts another."""
    for _ in range(_KILLS):
        stage.people.kill_child()
        time.sleep(2)


DRILLS: Final = (
    Drill(
        name="web_kill",
        promise="a web process killed in callbacks, 4 times: nothing acknowledged lost; at most 4 tokens each valid "
        "at the brand",
        inject=kill_child,
        allowed=BROKEN_OFF,
        most_orphans=4 * _KILLS,
    ),
)
