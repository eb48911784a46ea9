"""Measure webhook deliveries: `python -m bench.webhooks --beside COMMIT`. Prints a table of events a second.

Two workers deliver a backlog to one busy endpoint that answers at once, or after 100 ms. With `--beside` the build of
that commit does the same in the same run, in turns, each in a database of its own. While the busy endpoint gets its
events, a neighbour's endpoint gets one event a second, and another neighbour's endpoint never answers. For the first
the table has the longest time from the event to its arrival.
"""

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.databases import POSTGRESQL, Databases, databases
from bench.processes import OTHER_CORE, ROOT, SERVER_CORE, free_port, python, running, wait_for_port
from bench.product import Installation, build_of

WORKERS: Final = 2
_BACKLOG: Final = 20_000
# After the first event has arrived, until both workers have started.
_WARM_UP_SECONDS: Final = 4.0
_START_SECONDS: Final = 60


@dataclass(frozen=True)
class Build:
    """A build of the product to measure, and the number of connections per endpoint, if it can be set."""

    name: str
    code: Path
    connections: int


def main() -> None:
    """Measure each build with each delay, in turns, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.webhooks")
    parser.add_argument("--beside", metavar="COMMIT", default="", help="measure the build of that commit, too")
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--connections", type=int, action="append", help="may be given several times; default: 4")
    parser.add_argument("--delay", type=int, action="append", help="milliseconds; default: 0 and 100")
    wanted = parser.parse_args()
    _say("| build | connections | endpoint answers after | events/s | HTTP connections | neighbour's longest wait |")
    _say("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="bench-webhooks-") as name, databases(POSTGRESQL, Path(name)) as store:
        builds = [Build("this build", ROOT, number) for number in wanted.connections or [4]]
        if wanted.beside:
            builds.insert(0, Build(wanted.beside, build_of(wanted.beside, Path(name)), 0))
        for delay in wanted.delay or [0, 100]:
            for build in builds:
                row = _measure(build, delay, wanted.seconds, store)
                _say(f"| {build.name} | {build.connections or 'fixed'} | {delay} ms | {row} |")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _measure(build: Build, delay: int, seconds: int, store: Databases) -> str:
    database = f"webhooks_{time.monotonic_ns()}"
    folder = store.folder / database
    folder.mkdir()
    with ExitStack() as stack:
        ports = {name: stack.enter_context(_receiving(name, milliseconds, folder))
                 for name, milliseconds in (("busy", delay), ("quiet", 0), ("dead", 60_000))}  # fmt: skip
        installation = Installation.new(folder, store.create(database))
        _seed(installation, ports, seconds)
        for number in range(WORKERS):
            stack.enter_context(_working(installation, build, folder / f"worker-{number}.log"))
        while not _figures(folder, "busy")["events"]:
            time.sleep(0.1)
        time.sleep(_WARM_UP_SECONDS)
        before, began, moment = _figures(folder, "busy"), time.monotonic(), time.time()
        time.sleep(seconds)
        after = _figures(folder, "busy")
        rate = (after["events"] - before["events"]) / (time.monotonic() - began)
        waits = [wait for at, wait in _figures(folder, "quiet")["waits"] if at >= moment]
    store.drop(database)
    return f"{rate:,.0f} | {after['connections']} | {max(waits, default=math.nan):.1f} s"


def _seed(installation: Installation, ports: dict[str, int], seconds: int) -> None:
    order = installation.folder / "order.json"
    order.write_text(json.dumps({"ports": ports, "backlog": _BACKLOG, "seconds": seconds + _START_SECONDS}))
    python("bench.webhooks_seeding", str(order), environment=installation.environment, core=SERVER_CORE)


@contextmanager
def _working(installation: Installation, build: Build, log: Path) -> Iterator[None]:
    environment = installation.environment | {"WEBHOOK_CONNECTIONS": str(build.connections or "")}
    command = [sys.executable, "manage.py", "worker"]
    with running(command, core=SERVER_CORE, environment=environment, log=log, cwd=build.code):
        yield


@contextmanager
def _receiving(name: str, delay: int, folder: Path) -> Iterator[int]:
    port = free_port()
    command = [sys.executable, "-m", "bench.webhook_receiver", str(port), str(delay), str(folder / name)]
    log = folder / f"{name}.log"
    with running(command, core=OTHER_CORE, environment={}, log=log) as process:
        wait_for_port(port, process, log)
        yield port


def _figures(folder: Path, name: str) -> dict[str, Any]:
    figures: dict[str, Any] = json.loads((folder / name).read_text())
    return figures


if __name__ == "__main__":
    main()
