"""A restart under the socket unit refuses no connection: systemd keeps the socket, and gunicorn takes it over."""

import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import requests

from drills.services import AS_SYSTEMD
from tests.installation import ROOT, Installation
from tests.served import COMMAND, installation_at_a_free_port
from tests.systemd_units import unit

UNITS = sorted((ROOT / "deploy").glob("*.service"))


def started(installation: Installation, listening: socket.socket) -> "subprocess.Popen[Any]":
    number = listening.fileno()
    return subprocess.Popen(
        [sys.executable, "-c", AS_SYSTEMD, str(number), *COMMAND],
        cwd=ROOT,
        env=installation.environment,
        pass_fds=[number],
    )


def stopped(server: "subprocess.Popen[Any]") -> None:
    server.send_signal(signal.SIGTERM)
    assert server.wait(timeout=60) == 0


def test_connections_during_restarts_wait_and_none_is_refused(tmp_path: Path) -> None:
    """The bug: 417 refused connections in two rounds of restarts."""
    installation = installation_at_a_free_port(tmp_path, THREADS="2")
    address = installation.settings["BIND"]
    statuses: list[int | str] = []
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            try:
                # One connection for each request, as of a client that has just arrived.
                answer = requests.get(f"http://{address}/health/live", headers={"Connection": "close"}, timeout=60)
            except requests.RequestException as error:
                statuses.append(type(error).__name__)
            else:
                statuses.append(answer.status_code)
            time.sleep(0.02)

    host, _, port = address.partition(":")
    with socket.create_server((host, int(port)), backlog=4096) as listening:
        server = started(installation, listening)
        asking = threading.Thread(target=ask)
        asking.start()
        try:
            for _ in range(2):
                _wait_for_more(statuses)
                stopped(server)
                server = started(installation, listening)
            _wait_for_more(statuses)
        finally:
            over.set()
            asking.join()
            stopped(server)
    assert set(statuses) == {200}


def _wait_for_more(statuses: list[int | str]) -> None:
    enough = len(statuses) + 5
    while len(statuses) < enough:
        time.sleep(0.05)


def test_the_web_unit_takes_the_socket_of_its_port() -> None:
    assert unit(ROOT / "deploy" / "delegation-web@.socket")["Socket"]["ListenStream"] == "127.0.0.1:%i"
    assert unit(ROOT / "deploy" / "delegation-web@.service")["Unit"]["Requires"] == "delegation-web@%i.socket"


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_no_unit_may_do_more_than_it_needs(path: Path) -> None:
    """The bug: `systemd-analyze security` said 5.2 and 8.5. With these it says 1.4."""
    service = unit(path)["Service"]
    assert (service["User"], service["CapabilityBoundingSet"], service["UMask"]) == ("delegation", "", "0077")
    switched_on = (
        "NoNewPrivileges", "ProtectHome", "PrivateTmp", "PrivateDevices", "ProtectClock", "ProtectControlGroups",
        "ProtectHostname", "ProtectKernelLogs", "ProtectKernelModules", "ProtectKernelTunables", "LockPersonality",
        "MemoryDenyWriteExecute", "RemoveIPC", "RestrictNamespaces", "RestrictRealtime", "RestrictSUIDSGID",
    )  # fmt: skip
    assert [name for name in switched_on if service.get(name) != "yes"] == []
