"""The whole journey, as `make journey` plays it: separate processes, real HTTP, a token that really expires."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from demo.addresses import ROOT
from tests.demo.machines import answers, free_ports

UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
LOOKS_SECRET = re.compile(r"[A-Za-z0-9_-]{24,}")


def play(folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "demo.journey"],
        cwd=ROOT,
        env={**os.environ, "DEMO_FOLDER": str(folder), **settings},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_the_whole_journey_holds(tmp_path: Path) -> None:
    product, brand = free_ports(2)
    done = play(tmp_path / "demo", DEMO_PRODUCT_PORT=str(product), DEMO_BRAND_PORT=str(brand))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The whole journey held" in done.stdout
    assert LOOKS_SECRET.findall(UUID.sub("", done.stdout)) == []
    assert [port for port in (product, brand) if answers(port)] == []


def test_a_busy_port_ends_it_with_a_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        done = play(tmp_path / "demo", DEMO_PRODUCT_PORT=str(port))
    assert done.returncode == 1
    assert f"Port {port} is busy" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "demo").exists()


def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    ports = free_ports(2)
    settings = {"DEMO_PRODUCT_PORT": str(ports[0]), "DEMO_BRAND_PORT": str(ports[1])}
    playing = subprocess.Popen(
        [sys.executable, "-m", "demo.journey"],
        cwd=ROOT,
        env={**os.environ, "DEMO_FOLDER": str(tmp_path / "demo"), **settings},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_until_all_answer(ports)
    playing.send_signal(signal.SIGINT)
    assert playing.wait(30) == 130
    assert not any(answers(port) for port in ports)


def wait_until_all_answer(ports: list[int]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not all(answers(port) for port in ports):
        time.sleep(0.2)
