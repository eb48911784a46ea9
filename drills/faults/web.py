"""Faults of web processes: killed, stopped, restarted, asked for ten times as much, or with a log that is not read."""

import signal
import socket
import time
from functools import partial
from typing import Final

from drills.promises import AWAY, BROKEN_OFF, Drill, Shape
from drills.proofs import fails_with, is_gone
from drills.run import THREADS
from drills.services import WebGroup
from drills.stage import Stage, wait_until
from infrastructure.log_stream import DROPPED

# There are two processes, and each kill hits the one that is busy in half of the cases.
_KILLS: Final = 8
_BUSY_WITHIN_SECONDS: Final = 20
_BURST: Final = 10
_BURST_SECONDS: Final = 15
_STUCK_SECONDS: Final = 20
_TOLD_WITHIN_SECONDS: Final = 30


def kill_child(stage: Stage) -> None:
    """SIGKILL a web process, several times, while callbacks are under way: gunicorn starts another."""
    before = stage.load.seen.errors.total()
    for _ in range(_KILLS):
        is_busy = wait_until(lambda: stage.notes_of_brand()["exchanging"], _BUSY_WITHIN_SECONDS, every=0.01)
        stage.prove("codes were being exchanged", holds=is_busy)
        pid = stage.people.kill_child()
        stage.prove("killed processes are gone", holds=is_gone(pid))
        time.sleep(2)
    broke = stage.load.seen.errors.total() - before
    stage.prove(f"{broke} requests broke off", holds=broke > 0)


def terminate(stage: Stage) -> None:
    """SIGTERM to both groups, one after another, and a start: nobody holds their sockets meanwhile."""
    for group in stage.web:
        group.terminate()
        refused = fails_with(ConnectionRefusedError, partial(socket.create_connection, ("127.0.0.1", group.port), 5))
        stage.prove("connections refused", holds=refused)
        group.start()
        stage.wait_until_ready()


def restart_all(stage: Stage) -> None:
    """`systemctl restart` of both groups at once; systemd holds the sockets."""
    before = [group.pid for group in stage.web]
    for group in stage.web:
        group.terminate()
    stage.prove("both groups are gone", holds=all(map(is_gone, before)))
    for group in stage.web:
        group.start()
    stage.wait_until_ready()


def roll(stage: Stage) -> None:
    """An update as the operators' page has it: one group after another, then the workers."""
    before = [service.pid for service in (*stage.web, *stage.workers)]
    for group in stage.web:
        group.restart()
        stage.wait_until_ready()
    for worker in stage.workers:
        stage.restart_and_wait(worker)
    stage.prove("all processes are others", holds=all(map(is_gone, before)))


def burst(stage: Stage) -> None:
    """Ten times as many bots and consumers, all at once."""
    usual, most = stage.load.per_second, 0
    stage.load.per_second = usual * _BURST
    with stage.load.running(THREADS * (_BURST - 1)):
        until = time.monotonic() + _BURST_SECONDS
        while time.monotonic() < until:
            time.sleep(0.5)
            most = max(most, len(stage.load.journeys) - len(stage.load.done))
    stage.load.per_second = usual
    stage.prove(f"{most} sign-ins under way at once", holds=most > THREADS * _BURST / 2)


def log_is_not_read(stage: Stage) -> None:
    """What reads standard output and standard error stops reading; the pipe is full within a moment."""
    for number in (signal.SIGSTOP, signal.SIGCONT):
        for group in stage.web:
            group.signal_reader(number)
        if number == signal.SIGSTOP:
            time.sleep(_STUCK_SECONDS)
            stage.prove("the pipes are full", holds=all(group.is_pipe_full() for group in stage.web))
    # The product's own line, which says how many lines were dropped, comes with the next line that there is room for.
    told = wait_until(lambda: all(_has_told(stage, group) for group in stage.web), _TOLD_WITHIN_SECONDS)
    stage.prove("both groups say that lines were dropped", holds=told)


def _has_told(stage: Stage, group: WebGroup) -> bool:
    return any(line["message"] == DROPPED for line in stage.lines_of(group))


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
