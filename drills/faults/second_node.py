"""A second node beside the first, added under load. Then the database fails over, and Redis is gone."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import psutil

from bench.processes import ROOT
from drills.faults.cache import gone
from drills.faults.patroni import fail_over
from drills.members import no_patroni
from drills.promises import AWAY, UNDER_WAY, Drill, Shape
from drills.services import Service, WebGroup
from drills.stage import Stage, wait_until
from tests import nginx
from tests.demo.machines import free_ports

# How many journeys are done by both nodes before each of the faults, and how long that may take.
_JOURNEYS: Final = 15
_SECONDS: Final = 150
_HOST: Final = "localhost"
# Of all workers together: each sign-in has five events.
_WEBHOOK_CONNECTIONS: Final = "8"


def add_node(stage: Stage) -> list[Service]:
    """Do what docs/scaling.md says under "Adding a second node". Returns the node's processes."""
    root = stage.folder / "second-node"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(root)], check=True, capture_output=True)
    environment = stage.environment | {"PYTHONPATH": str(root)}
    ports = zip(("bots", "people"), free_ports(2), strict=True)
    bots, people = (_group(name, port, root, environment, stage.folder) for name, port in ports)
    command = _there(root, "manage.py", "worker")
    node: list[Service] = [bots, people, Service("worker-second", command, environment, stage.folder)]
    stage.workers.extend(node)  # so the stage ends them, and counts what their lines say
    for service in node:
        service.start()
    for group in (bots, people):
        group.wait_until_ready(_HOST)
    _balance(stage, {nginx.BOTS: bots.port, nginx.PEOPLE: people.port})
    return node


def _there(root: Path, *arguments: str) -> list[str]:
    """Return a command that runs Python in this folder, as the unit's `WorkingDirectory` has it."""
    return [shutil.which("env") or "env", "-C", str(root), sys.executable, *arguments]


def _group(name: str, port: int, root: Path, environment: dict[str, str], folder: Path) -> WebGroup:
    command = _there(root, "-m", "gunicorn", "--config", "delegation_site/gunicorn.py")
    return WebGroup(f"{name}-second", command, environment | {"BIND": f"127.0.0.1:{port}"}, folder, port=port)


def _balance(stage: Stage, added: dict[int, int]) -> None:
    """Name a second server in each upstream, and reload."""
    file = stage.folder / "nginx.conf"
    text = file.read_text()
    for name, port in added.items():
        first = f"server 127.0.0.1:{stage.made.ports[name]};"
        text = text.replace(first, f"{first} server 127.0.0.1:{port};")
    file.write_text(text)
    psutil.Process(stage.proxy.pid).send_signal(signal.SIGHUP)


def fail_both(stage: Stage) -> None:
    """Add the node, kill the primary, then Redis. Raises `RuntimeError` if the second node had no part in it."""
    stage.use(WEBHOOK_CONNECTIONS=_WEBHOOK_CONNECTIONS)
    for worker in stage.workers:
        worker.restart()
    node = add_node(stage)
    for fault in (fail_over, gone):
        _wait_for_journeys(stage)
        fault(stage)
    _wait_for_journeys(stage)
    for service in node:
        _check_part(service, stage.folder / "second-node")


def _wait_for_journeys(stage: Stage) -> None:
    begun_at = time.monotonic()
    if not wait_until(lambda: stage.load.done_since(begun_at) >= _JOURNEYS, _SECONDS):
        raise RuntimeError(f"too few journeys between the faults: {dict(stage.load.seen.errors)}")


def _check_part(service: Service, root: Path) -> None:
    """Raise `RuntimeError` unless the process runs in the second folder and has written lines of its own work."""
    if Path(psutil.Process(service.pid).cwd()) != root.resolve():
        raise RuntimeError(f"{service.name} does not run in the second folder")
    if isinstance(service, WebGroup) and "consumer_delegation.audit" not in service.log.read_text(errors="replace"):
        raise RuntimeError(f"{service.name} had no part in any sign-in")


DRILLS: Final = (
    Drill(
        name="second_node",
        promise="a second node is added under load, then the primary is killed, then Redis: 503 only; nothing lost; no "
        "restart of ours",
        inject=fail_both,
        allowed=AWAY,
        needs=no_patroni,
        most_orphans=UNDER_WAY,
        shape=Shape(database="patroni"),
    ),
)
