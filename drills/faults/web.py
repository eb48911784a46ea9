"""Faults of web processes: killed, stopped, restarted, asked for ten times as much, or with a log that is not read."""

import signal
import time
from typing import Final

from drills.promises import AWAY, BROKEN_OFF, Drill, Shape
from drills.run import THREADS
from drills.stage import Stage

_KILLS: Final = 4
_BURST: Final = 10
_BURST_SECONDS: Final = 15
_STUCK_SECONDS: Final = 20


def kill_child(stage: Stage) -> None:
    """SIGKILL a web process, several times, while callbacks are under way: gunicorn starts another."""
    for _ in range(_KILLS):
        stage.people.kill_child()
        time.sleep(2)


def terminate(stage: Stage) -> None:
    """SIGTERM to both groups, one after another, and a start: nobody holds their sockets meanwhile."""
    for group in stage.web:
        group.restart()
        stage.wait_until_ready()


def restart_all(stage: Stage) -> None:
    """`systemctl restart` of both groups at once; systemd holds the sockets."""
    for group in stage.web:
        group.terminate()
    for group in stage.web:
        group.start()
    stage.wait_until_ready()


def roll(stage: Stage) -> None:
    """An update as the operators' page has it: one group after another, then the workers."""
    for group in stage.web:
        group.restart()
        stage.wait_until_ready()
    for worker in stage.workers:
        worker.restart()


def burst(stage: Stage) -> None:
    """Ten times as many bots and consumers, all at once."""
    with stage.load.running(THREADS * (_BURST - 1)):
        time.sleep(_BURST_SECONDS)


def log_is_not_read(stage: Stage) -> None:
    """What reads standard output and standard error stops reading; the pipe is full within a moment."""
    for number in (signal.SIGSTOP, signal.SIGCONT):
        for group in stage.web:
            group.signal_reader(number)
        if number == signal.SIGSTOP:
            time.sleep(_STUCK_SECONDS)


DRILLS: Final = (
    Drill(
        name="web_kill",
        promise=f"a web process killed in callbacks, {_KILLS} times: 502 only for what it was busy with; nothing "
        "acknowledged lost; at most 4 orphans each",
        inject=kill_child,
        allowed=BROKEN_OFF,
        most_orphans=4 * _KILLS,
    ),
    Drill(
        name="web_sigterm",
        promise="SIGTERM and start without the socket units: 502 only while nobody listens; nothing lost",
        inject=terminate,
        allowed=BROKEN_OFF,
        shape=Shape(holds_sockets=False),
    ),
    Drill(
        name="web_restart_behind_sockets",
        promise="both groups restarted at once, systemd holds the sockets: no error, nothing lost",
        inject=restart_all,
    ),
    Drill(
        name="rolling_upgrade",
        promise="groups and workers restarted one after another: no error, nothing lost",
        inject=roll,
    ),
    Drill(
        name="burst",
        promise=f"{_BURST} times the load for {_BURST_SECONDS} s: 503 with `Retry-After` at most, nothing lost",
        inject=burst,
        allowed=AWAY,
    ),
    Drill(
        name="log_reader_stops",
        promise=f"nobody reads the log for {_STUCK_SECONDS} s: no error, nothing lost but log lines, which are counted",
        inject=log_is_not_read,
        shape=Shape(has_log_reader=True),
    ),
)
