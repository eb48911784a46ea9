"""Measure all targets in interleaved rounds, so that a slow minute of the machine affects all of them."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from bench.databases import Databases
from bench.figures import Round, Series
from bench.load import closed_loop
from bench.processes import cpu_seconds
from bench.targets import Target, rows_written, wrong_answers

# Of most targets.
WARM_UP_SECONDS: Final = 1
# Before each measured second, unmeasured: while the others had their turn, the processor's caches forgot this server.
LEAD_IN_SECONDS: Final = 0.3
Say = Callable[[str], None]


def measure(
    targets: Sequence[Target], *, rounds: int, seconds: float, databases: Databases, database: str, say: Say
) -> dict[str, Series]:
    """Warm up each target, then measure all in interleaved rounds, every other one from the last to the first."""
    for target in targets:
        measured(target, target.warm_up_seconds or WARM_UP_SECONDS, databases, database)
    say("warmed up")
    kept: dict[str, list[Round]] = {target.name: [] for target in targets}
    for number in range(1, rounds + 1):
        # Each pair of targets is as often in one order as in the other: a machine that gets slower favours none.
        for target in targets if number % 2 else reversed(targets):
            _load(target, LEAD_IN_SECONDS)
            kept[target.name].append(measured(target, seconds, databases, database))
        rates = ", ".join(f"{name} {series[-1].per_second:.0f}/s" for name, series in kept.items())
        say(f"round {number} of {rounds}: {rates}")
    return {name: Series(tuple(series)) for name, series in kept.items()}


def measured(target: Target, seconds: float, databases: Databases, database: str) -> Round:
    """Measure one target once. Wrong responses in a sample, and missing rows in the database, count as errors."""
    if target.writes_to or target.is_limited:
        _wait_until_idle(target)
    wrong = wrong_answers(target.server.port, target.sample()) if target.sample else 0
    rows = rows_written(databases, database, target)
    server, store = cpu_seconds(target.server.pid), databases.cpu_seconds()
    done = _load(target, seconds)
    server, store = cpu_seconds(target.server.pid) - server, databases.cpu_seconds() - store
    if target.writes_to:
        wrong += _unproved(target, done, rows, databases, database)
    return replace(done, errors=done.errors + wrong, server_cpu_seconds=server, database_cpu_seconds=store)


def _load(target: Target, seconds: float) -> Round:
    requests = target.write(math.ceil(target.prepared_per_second * seconds))
    port, connections = target.server.port, target.connections
    return closed_loop(port, requests, seconds=seconds, connections=connections, again=target.again)


def _wait_until_idle(target: Target) -> None:
    """Wait for requests that were under way when the round before ended, which may have been of the same target."""
    deadline, before = time.monotonic() + 5, -1.0
    while (now := cpu_seconds(target.server.pid)) != before and time.monotonic() < deadline:
        before = now
        time.sleep(0.1)


def _unproved(target: Target, done: Round, before: int, databases: Databases, database: str) -> int:
    """Count responses without a row and rows without a response, except requests under way when the round ended."""
    deadline = time.monotonic() + 5
    while True:
        written = rows_written(databases, database, target) - before
        unproved = max(done.answers - written, written - done.answers - target.connections, 0)
        if not unproved or time.monotonic() > deadline:
            return unproved
        time.sleep(0.1)
