"""Measure webhook deliveries: `python -m bench.webhooks --beside COMMIT`. Prints a table of events a second.

Two workers deliver a backlog over TLS to one busy endpoint that answers at once, or after 100 ms. With `--beside` the
builds of those commits do the same in the same run, in turns, each in a database of its own. Meanwhile three other
brands get an event now and then: a quiet endpoint, one that fails with 500, and one that never answers. The table has
the longest time from an event of theirs to its first arrival, and the CPU time of both workers for each event.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.databases import POSTGRESQL, Databases, databases
from bench.processes import OTHER_CORE, ROOT, SERVER_CORE, cpu_seconds, free_port, python, running, wait_for_port
from bench.product import Installation, build_of
from demo.processes import Certificate, throw_away_certificate

WORKERS: Final = 2
_BACKLOG: Final = 20_000
# Each neighbour with the seconds between two events. One that never answers blocks its only place for five seconds.
_NEIGHBOURS: Final = {"quiet": 1, "failing": 2, "silent": 10}
_HANGS_MILLISECONDS: Final = 60_000
# After the first event has arrived, until both workers have started.
_WARM_UP_SECONDS: Final = 4.0
_START_SECONDS: Final = 120


@dataclass(frozen=True)
class Build:
    """A build of the product to measure, and `WEBHOOK_CONNECTIONS`, which builds before it ignore."""

    name: str
    code: Path
    connections: int


def main() -> None:
    """Measure each build with each delay, in turns, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.webhooks")
    parser.add_argument("--beside", metavar="COMMIT", action="append", help="measure the build of that commit, too")
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--connections", type=int, action="append", help="may be given several times; default: 4")
    parser.add_argument("--delay", type=int, action="append", help="milliseconds; default: 0 and 100")
    wanted = parser.parse_args()
    _say("| build | connections | answer after | events/s | CPU per event | longest wait: quiet | failing | silent |")
    _say("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="bench-webhooks-") as name, databases(POSTGRESQL, Path(name)) as store:
        builds = [Build("this build", ROOT, number) for number in wanted.connections or [4]]
        for commit in wanted.beside or []:
            code = build_of(commit, Path(name) / commit)
            builds += [Build(commit, code, number) for number in wanted.connections or [4]]
        for delay in wanted.delay or [0, 100]:
            for build in builds:
                row = _measure(build, delay, wanted.seconds, store)
                _say(f"| {build.name} | {build.connections} | {delay} ms | {row} |")
    _say(f"\nThe load of the machine is {os.getloadavg()[0]:.1f}.")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _measure(build: Build, delay: int, seconds: int, store: Databases) -> str:
    database = f"webhooks_{time.monotonic_ns()}"
    folder = store.folder / database
    folder.mkdir()
    files = throw_away_certificate(folder)
    with ExitStack() as stack:
        answers = {"busy": (204, delay), "quiet": (204, 0), "failing": (500, 0), "silent": (204, _HANGS_MILLISECONDS)}
        ports = {name: stack.enter_context(_receiving(name, *answer, files)) for name, answer in answers.items()}
        installation = Installation.new(folder, store.create(database), files.ca_file)
        _seed(installation, ports, seconds)
        workers = [
            stack.enter_context(_working(installation, build, folder / f"worker-{number}.log")).pid
            for number in range(WORKERS)
        ]
        while not _figures(folder, "busy")["events"]:
            time.sleep(0.1)
        time.sleep(_WARM_UP_SECONDS)
        row = _figures_of(folder, workers, seconds)
    store.drop(database)
    return row


def _figures_of(folder: Path, workers: list[int], seconds: int) -> str:
    before, began, moment = _figures(folder, "busy"), time.monotonic(), time.time()
    used = sum(map(cpu_seconds, workers))
    time.sleep(seconds)
    events = _figures(folder, "busy")["events"] - before["events"]
    rate = events / (time.monotonic() - began)
    used = sum(map(cpu_seconds, workers)) - used
    waits = {name: [wait for at, wait in _figures(folder, name)["waits"] if at >= moment] for name in _NEIGHBOURS}
    longest = " | ".join(f"{max(found, default=math.nan):.1f} s" for found in waits.values())
    return f"{rate:,.0f} | {1000 * used / max(1, events):.1f} ms | {longest}"


def _seed(installation: Installation, ports: dict[str, int], seconds: int) -> None:
    order = installation.folder / "order.json"
    order.write_text(
        json.dumps(
            {"ports": ports, "backlog": _BACKLOG, "neighbours": _NEIGHBOURS, "seconds": seconds + _START_SECONDS}
        )
    )
    python("bench.webhooks_seeding", str(order), environment=installation.environment, core=SERVER_CORE)


@contextmanager
def _working(installation: Installation, build: Build, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    environment = installation.environment | {"WEBHOOK_CONNECTIONS": str(build.connections)}
    command = [sys.executable, "manage.py", "worker"]
    with running(command, core=SERVER_CORE, environment=environment, log=log, cwd=build.code) as process:
        yield process


@contextmanager
def _receiving(name: str, status: int, delay: int, files: Certificate) -> Iterator[int]:
    port, folder = free_port(), files.ca_file.parent
    arguments = (port, status, delay, folder / name, files.certificate_file, files.key_file)
    command = [sys.executable, "-m", "bench.webhook_receiver", *map(str, arguments)]
    log = folder / f"{name}.log"
    with running(command, core=OTHER_CORE, environment={}, log=log) as process:
        wait_for_port(port, process, log)
        yield port


def _figures(folder: Path, name: str) -> dict[str, Any]:
    figures: dict[str, Any] = json.loads((folder / name).read_text())
    return figures


if __name__ == "__main__":
    main()
