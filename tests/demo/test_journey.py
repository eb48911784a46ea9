"""The whole journey, as `make journey` plays it: separate processes, real HTTP, a token that really expires."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.__main__ import wait_for_ctrl_c
from demo.addresses import ROOT
from demo.journey import as_program
from tests.demo.machines import answers, free_ports

UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
LOOKS_SECRET = re.compile(r"[A-Za-z0-9_-]{24,}")


def play(
    folder: Path, program: str = "demo.journey", *options: str, **settings: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", program, *options],
        cwd=ROOT,
        env={**os.environ, "DEMO_FOLDER": str(folder), **settings},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_the_whole_journey_holds(tmp_path: Path) -> None:
    product, brand = free_ports(2)
    done = play(tmp_path / "demo", DEMO_PRODUCT_PORT=str(product), DEMO_BRAND_PORT=str(brand))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The whole journey held" in done.stdout
    assert LOOKS_SECRET.findall(UUID.sub("", done.stdout)) == []
    assert [port for port in (product, brand) if answers(port)] == []


@pytest.mark.full
def test_the_whole_journey_holds_over_tls_whose_authority_nobody_else_trusts(tmp_path: Path) -> None:
    """For WebKit, which keeps no Secure cookie over http. Its own clients check the certificate."""
    product, brand = free_ports(2)
    ports = {"DEMO_PRODUCT_PORT": str(product), "DEMO_BRAND_PORT": str(brand)}
    done = play(tmp_path / "demo", "demo.journey", "--tls", **ports)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The whole journey held" in done.stdout
    assert f"https://localhost:{product}" in done.stdout
    assert (tmp_path / "demo" / "demo.key").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("program", ["demo.journey", "demo"])
def test_a_busy_port_ends_it_with_a_sentence(tmp_path: Path, program: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        done = play(tmp_path / "demo", program, DEMO_PRODUCT_PORT=str(port))
    assert done.returncode == 1
    assert f"Port {port} is busy" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "demo").exists()


@pytest.fixture
def own_handlers() -> Iterator[None]:
    """Put the suite's signal handlers back."""
    kept = {
        number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
    }
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("own_handlers")
@pytest.mark.parametrize(("before", "exit_status"), [(signal.SIG_DFL, 130), (signal.SIG_IGN, 0)])
def test_a_closed_terminal_stops_it_unless_nohup_stands_before_it(before: signal.Handlers, exit_status: int) -> None:
    signal.signal(signal.SIGHUP, before)
    assert as_program(lambda: signal.raise_signal(signal.SIGHUP)) == exit_status


@pytest.mark.usefixtures("own_handlers")
def test_what_stays_up_does_so_until_ctrl_c(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGUSR1, lambda *_: None)
    pressed = iter([signal.SIGUSR1, signal.SIGINT])  # another one first, which ends nothing
    monkeypatch.setattr(signal, "pause", lambda: signal.raise_signal(next(pressed)))
    wait_for_ctrl_c()
    assert (list(pressed), capsys.readouterr().out) == ([], "\nStopping ...\n")


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
    assert playing.wait(100) == 130
    assert not any(answers(port) for port in ports)


def wait_until_all_answer(ports: list[int]) -> None:
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline and not all(answers(port) for port in ports):
        time.sleep(0.2)
