"""Processes that count are killed at random points while a bot goes on: each row of the audit log is counted once."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any, Final

from tests.installation import Installation

KEYS: Final = "key-1:3hSxq0CkB7dT9rYwVbN2mZ5fJ8gLpQeRtUiOaXcKvMs="
CHALLENGES: Final = 150
SET_UP: Final = """
from brands.models import AuthorizationServer, Brand
AuthorizationServer(
    brand=Brand.objects.create(name="Acme", slug="acme"), key="orders", client_id="x",
    authorization_endpoint="https://login.acme.example/authorize", token_endpoint="https://login.acme.example/token",
).save()
"""
WRITE: Final = f"""
from uuid import uuid4
from django.utils import timezone
from brands.models import AuthorizationServer
import logging
logging.disable()  # nobody reads what it prints
from conversations.flow.challenges import WantedChallenge, issue_challenge, withdraw_challenge
server = AuthorizationServer.objects.select_related("brand").get()
for _ in range({CHALLENGES}):
    wanted = WantedChallenge(server=server)
    challenge, _ = issue_challenge(server.brand, str(uuid4()), wanted, actor="test", now=timezone.now())
    withdraw_challenge(challenge, actor="test", now=timezone.now())
"""
# Small pieces, so that a kill has many places to hit.
COUNT: Final = """
from django.utils import timezone
from conversations import statistics
statistics.CHUNK = 2
print("counting", flush=True)
while True:
    statistics.count_events(timezone.now())
"""
COMPARE: Final = """
import time
from collections import Counter
from django.utils import timezone
from conversations.models import AuditEvent, CountedAuditLog, HourlyCount
from conversations.statistics import count_events
from tests.counted_by_hand import in_the_log
until = time.monotonic() + 30
while CountedAuditLog.objects.get().counted_id < AuditEvent.objects.latest("pk").pk and time.monotonic() < until:
    count_events(timezone.now())
rows = HourlyCount.objects.values_list("brand__uuid", "hour", "measure", "detail", "times")
counts = Counter({row[:-1]: row[-1] for row in rows})
print(counts == in_the_log(), counts.total())
"""


def test_whatever_is_killed_each_row_is_counted_once(tmp_path: Path) -> None:
    installation = Installation(tmp_path, KEYS)
    installation.migrate()
    installation.python(SET_UP)
    chance, kills = Random(7), 0  # noqa: S311  when to kill is no secret
    with running(installation, WRITE) as bot:
        while bot.poll() is None or kills < 3:
            with running(installation, COUNT) as counting:
                assert counting.stdout.readline() == "counting\n"
                time.sleep(chance.uniform(0.02, 0.4))
            kills += 1
        assert bot.returncode == 0
    assert installation.python(COMPARE).splitlines()[-1] == f"True {2 * CHALLENGES}"


@contextmanager
def running(installation: Installation, code: str) -> Iterator[Any]:
    """Run Python in a process of the product, and kill it at the end."""
    process = installation.start(code)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
