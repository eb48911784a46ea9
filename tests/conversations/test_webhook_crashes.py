"""Worker and receiver are killed at random points while a bot goes on: every event arrives, repeated ones with one id.

Real processes, a real database, SIGKILL. `CHANGES=1000` plays a thousand changes; the suite is content with twelve.
"""

import os
import random
import socket
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.installation import ROOT, START, Installation

CHANGES = int(os.environ.get("CHANGES", "12"))

SET_UP = """
from brands.models import AuthorizationServer, Brand, WebhookEndpoint
from brands.webhooks import create_webhook_endpoint
brand = Brand.objects.create(name="Acme", slug="acme")
server = AuthorizationServer(
    brand=brand, key="orders", authorization_endpoint="https://login.acme.example/authorize",
    token_endpoint="https://login.acme.example/token", client_id="x",
)
server.save()
create_webhook_endpoint(WebhookEndpoint(brand=brand, url="http://127.0.0.1:{port}/hooks"))
"""
# Each change is a transaction of its own and one event; what was committed is printed.
CHANGE = """
import time
from uuid import uuid4
from django.utils import timezone
from brands.models import AuthorizationServer
from conversations.flow.challenges import WantedChallenge, issue_challenge, withdraw_challenge
from conversations.flow.termination import close_conversation
server = AuthorizationServer.objects.select_related("brand").get()
wanted, changes = WantedChallenge(server=server), 0
while changes < {changes}:
    challenge, _ = issue_challenge(server.brand, str(uuid4()), wanted, actor="test", now=timezone.now())
    for change in (lambda now: withdraw_challenge(challenge, actor="test", now=now),
                   lambda now: close_conversation(challenge.conversation, actor="test", now=now)):
        time.sleep(0.01)
        change(timezone.now())
    changes += 3
print(changes)
"""
# Answers on standard input, so that no process has to be started for each question. A killed worker's rows are free
# again when their lease runs out; that minute is not waited for.
ASK = """
from django.utils import timezone
from conversations.models import WebhookDelivery
rows = WebhookDelivery.objects
for line in sys.stdin:
    if line == "end leases\\n":
        print(rows.filter(lease_until__isnull=False).update(lease_until=timezone.now()), flush=True)
    elif line == "count\\n":
        print(rows.count(), rows.waiting().count(), rows.dead().count(), flush=True)
    else:
        print(*rows.values_list("event_uuid", flat=True), flush=True)
"""


@dataclass
class Stage:
    """The processes that are killed, and how often each was."""

    installation: Installation
    folder: Path
    port: int
    processes: dict[str, "subprocess.Popen[Any]"] = field(default_factory=dict)
    kills: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        (self.folder / "received").touch()
        self.database = self.installation.start(ASK)

    def start(self, name: str) -> None:
        """Start worker, receiver or bot."""
        command = {
            "worker": ["manage.py", "worker"],
            "receiver": ["-m", "tests.webhook_crash_receiver", str(self.port), str(self.folder / "received")],
            "bot": ["-c", START + CHANGE.format(changes=CHANGES)],
        }[name]
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, *command], cwd=ROOT, env=self.installation.environment, stdout=log, stderr=log
            )

    def kill(self, name: str) -> None:
        """End one without a chance to tidy up, and start it again after a moment."""
        self.processes[name].kill()
        self.processes[name].wait()
        self.kills[name] += 1
        if name == "worker":
            self.kills["rows that it had taken"] += int(self.ask("end leases")[0])
        else:
            time.sleep(random.uniform(0, 0.5))  # noqa: S311  # when to kill is no secret
        self.start(name)

    def end(self) -> None:
        """Leave nothing running."""
        for process in (*self.processes.values(), self.database):
            process.kill()
            process.communicate()

    def ask(self, question: str) -> list[str]:
        """Ask the database."""
        self.database.stdin.write(f"{question}\n")
        self.database.stdin.flush()
        return list(self.database.stdout.readline().split())

    def received(self) -> list[tuple[str, str, str]]:
        """Return id, event and sequence of every message that the receiver has taken."""
        lines = (self.folder / "received").read_text().splitlines()
        return [(line.split()[0], line.split()[1], line.split()[2]) for line in lines]

    def is_over(self) -> bool:
        """Tell whether nothing more can come."""
        return self.processes["bot"].poll() is not None and self.ask("count")[1] == "0"

    def wait_for(self, messages: int) -> None:
        """Wait until so many messages have arrived, or nothing more can come."""
        while len(self.received()) < messages and not self.is_over():
            time.sleep(0.01)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def stage(tmp_path: Path) -> Any:
    settings = {"PUBLIC_BASE_URL": "https://delegation.test", "ALLOW_LOCAL_ENDPOINTS": "1"}
    key = "only:9l8GIbXrL3uWnxkKcEgT1nKk1jC1s0pNqQv3y0m0c5A="
    stage = Stage(Installation(tmp_path, key, settings), tmp_path, free_port())
    stage.installation.migrate()
    stage.installation.python(SET_UP.format(port=stage.port))
    yield stage
    stage.end()


@pytest.mark.timeout(120 + 3 * CHANGES)
def test_every_event_arrives_however_often_worker_and_receiver_are_killed(stage: Stage) -> None:
    began = time.monotonic()
    for name in ("receiver", "worker", "bot"):
        stage.start(name)
    while len(stage.received()) < CHANGES * 0.9 and not stage.is_over():
        stage.wait_for(min(len(stage.received()) + random.randint(1, 10), CHANGES))  # noqa: S311  # when to kill is no secret
        time.sleep(random.uniform(0, 0.02))  # noqa: S311
        stage.kill(random.choice(["worker", "receiver"]))  # noqa: S311
    assert stage.processes["bot"].wait() == 0
    while int(stage.ask("count")[1]) > 0:
        time.sleep(0.2)
    changes = int((stage.folder / "bot.log").read_text().splitlines()[-1])
    received, ids = stage.received(), set(stage.ask("ids"))
    assert changes >= CHANGES
    assert stage.ask("count") == [str(changes), "0", "0"]
    by_id = {message[0]: message for message in received}
    assert set(by_id) == ids
    # A repeated event is the same one in every way.
    assert set(received) == set(by_id.values())
    assert Counter(event for _, event, _ in by_id.values()) == dict.fromkeys(
        ("challenge.issued", "challenge.withdrawn", "conversation.closed"), changes // 3
    )
    assert stage.kills["worker"] + stage.kills["receiver"] >= CHANGES // 15
    print(  # noqa: T201  # the figures of a long run
        f"{changes} changes, {len(received)} messages, {len(received) - len(ids)} repeated, 0 lost; "
        f"killed: {dict(stage.kills)}; {time.monotonic() - began:.0f} s"
    )
