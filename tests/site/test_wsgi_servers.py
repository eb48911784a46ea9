"""gunicorn, and granian as docs/operator.md starts it: what the product needs of its server, it does itself."""

import shlex
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Final

import pytest
import requests

from tests.installation import ROOT, Installation
from tests.served import COMMAND, installation_at_a_free_port, prepared, serving

_THREADS: Final = "2"


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    return installation_at_a_free_port(tmp_path, THREADS=_THREADS)


@pytest.fixture(params=["gunicorn", "granian"])
def command(request: pytest.FixtureRequest, installation: Installation) -> list[str]:
    return COMMAND if request.param == "gunicorn" else _documented(installation)


def _documented(installation: Installation) -> list[str]:
    """Return the command of the operators' page, for this installation."""
    page = (ROOT / "docs/operator.md").read_text()
    line = next(line for line in page.splitlines() if line.startswith(".venv/bin/granian "))
    _, *options = shlex.split(line)
    host, port = installation.settings["BIND"].split(":")
    here = {"127.0.0.1": host, "8000": port, "16": _THREADS, "2": "1"}
    return [sys.executable, "-m", "granian", *(here.get(option, option) for option in options)]


def test_counts_of_token_reads_are_written_when_the_server_stops(
    installation: Installation, command: list[str]
) -> None:
    """The bug: a hook of gunicorn's wrote them. Under another server, up to a minute of them was lost."""
    made = prepared(installation, ["completed"])
    address = f"{installation.settings['PUBLIC_BASE_URL']}/api/v1/conversations/web:0/token?purpose=orders"
    with serving(installation, command):
        answers = [requests.get(address, headers=_bearer(made["key"]), timeout=60) for _ in range(3)]
    assert [answer.json()["access_token"] for answer in answers] == ["token-0"] * 3
    found = "import django; django.setup(); from conversations.models import TokenReadCount as counts;"
    assert installation.python(f"{found} print(*counts.objects.values_list('purpose', 'times'))") == "('orders', 3)"


def test_a_long_poll_is_answered_though_its_server_stops(installation: Installation, command: list[str]) -> None:
    made = prepared(installation, ["issued"])
    challenge = made["chats"]["web:0"]["challenge_id"]
    address = f"{installation.settings['PUBLIC_BASE_URL']}/api/v1/challenges/{challenge}?wait=8"
    with ThreadPoolExecutor(2) as bots:
        with serving(installation, command):
            polls = [bots.submit(requests.get, address, headers=_bearer(made["key"]), timeout=60) for _ in range(2)]
            # One of two threads may wait. As soon as one poll is turned away, the other one waits.
            assert "Retry-After" in next(as_completed(polls)).result().headers
        answers = [poll.result() for poll in polls]
    assert [(answer.status_code, answer.json()["status"]) for answer in answers] == [(200, "issued")] * 2
    assert sum("Retry-After" in answer.headers for answer in answers) == 1


def test_a_call_that_waits_for_the_server_to_ask_for_its_body_is_answered(
    installation: Installation, command: list[str]
) -> None:
    """RFC 9110 section 10.1.1: curl and .NET send `Expect: 100-continue` before a large body."""
    made = prepared(installation, ["completed"])
    host, port = installation.settings["BIND"].split(":")
    body = b'{"arguments": {"note": "%s"}}' % (b"x" * 2000)
    lines = [
        "POST /api/v1/conversations/web:0/calls/orders.note HTTP/1.1",
        f"Host: {host}:{port}",
        f"Authorization: {_bearer(made['key'])['Authorization']}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Expect: 100-continue",
        "Connection: close",
    ]
    with serving(installation, command), socket.create_connection((host, int(port)), timeout=60) as bot:
        bot.sendall("\r\n".join([*lines, "", ""]).encode())
        with bot.makefile("rb") as answer:
            asked = answer.readline() + answer.readline()
            bot.sendall(body)
            answered = answer.read()
    assert asked == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert b'"code":"operation_unknown"' in answered


@pytest.mark.parametrize(
    ("setting", "value", "found"),
    [
        ("ENCRYPTION_KEYS", "key-1:AAAA", "delegation.E001"),
        ("PUBLIC_BASE_URL", "http://acme.example", "delegation.E003"),
    ],
)
def test_no_server_starts_on_a_dangerous_environment(
    installation: Installation, command: list[str], setting: str, value: str, found: str
) -> None:
    """N10."""
    installation.settings |= {"ALLOWED_HOSTS": "127.0.0.1", setting: value}
    result = subprocess.run(
        command, cwd=ROOT, env=installation.environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert result.returncode
    assert found in result.stdout + result.stderr


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}
