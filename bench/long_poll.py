"""Measure how soon after a change its long poll is answered: `python -m bench.long_poll`, on both databases.

It runs gunicorn with our configuration and one process. Changes are withdrawals and completions in turn, at different
points of the polling interval. The delay counts from the answer to the call that makes the change, which comes after
its commit; and, as a stricter figure, from when that call is sent. A plain read of the same challenge beside each
sample shows how busy the machine is.
"""

import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import requests

from tests import databases
from tests.served import installation_at_a_free_port, prepared, serving

SAMPLES: Final = 50
GOAL_MS: Final = 200


def main() -> None:
    """Measure on the database that `TEST_DATABASE` names, or on both."""
    if "TEST_DATABASE" in os.environ:
        databases.enter()
        _report(databases.chosen(), _measure())
        return
    for name in (databases.SQLITE, databases.POSTGRESQL):
        command = [sys.executable, "-m", "bench.long_poll"]
        subprocess.run(command, check=True, env=os.environ | {"TEST_DATABASE": name})  # our own command


@dataclass(frozen=True)
class Sample:
    """Milliseconds until the poll was answered."""

    since_answer: float
    since_sending: float
    plain_read: float


@dataclass
class Bots:
    """A bot that waits and a bot that makes the change, each on its own connection."""

    base: str
    key: str

    def __post_init__(self) -> None:
        self.polling, self.changing = requests.Session(), requests.Session()
        for session in (self.polling, self.changing):
            session.headers["Authorization"] = f"Bearer {self.key}"

    def sample(self, chat: str, facts: dict[str, str], waiter: ThreadPoolExecutor) -> Sample:
        """Wait in another thread, and make the change in this one."""
        polled = waiter.submit(self._poll, facts["challenge_id"])
        time.sleep(0.2 + random.uniform(0, 0.1))  # at another point of the polling interval each time
        sent = time.perf_counter()
        self._change(chat, facts)
        answered = time.perf_counter()
        woken = polled.result()
        begun = time.perf_counter()
        self.polling.get(f"{self.base}/challenges/{facts['challenge_id']}", timeout=60).raise_for_status()
        read = time.perf_counter()
        return Sample((woken - answered) * 1000, (woken - sent) * 1000, (read - begun) * 1000)

    def _poll(self, challenge_id: str) -> float:
        status = self.polling.get(f"{self.base}/challenges/{challenge_id}?wait=25", timeout=60).json()["status"]
        if status not in {"withdrawn", "completed"}:
            raise SystemExit(f"the poll was answered with {status}")
        return time.perf_counter()

    def _change(self, chat: str, facts: dict[str, str]) -> None:
        if facts["code"]:
            address, body = f"{self.base}/conversations/{chat}/completion", {"code": facts["code"]}
            self.changing.post(address, json=body, timeout=60).raise_for_status()
        else:
            self.changing.delete(f"{self.base}/challenges/{facts['challenge_id']}", timeout=60).raise_for_status()


def _measure() -> list[Sample]:
    with tempfile.TemporaryDirectory() as folder:
        installation = installation_at_a_free_port(Path(folder), THREADS="8")
        made = prepared(installation, ["issued", "confirmation_needed"] * (SAMPLES // 2))
        with serving(installation), ThreadPoolExecutor(1) as waiter:
            bots = Bots(f"{installation.settings['PUBLIC_BASE_URL']}/api/v1", made["key"])
            return [bots.sample(chat, facts, waiter) for chat, facts in made["chats"].items()]


def _report(database: str, samples: list[Sample]) -> None:
    sys.stdout.write(f"{database}, {len(samples)} changes, goal under {GOAL_MS} ms\n")
    for what, values in (
        ("since its answer", [sample.since_answer for sample in samples]),
        ("since its sending", [sample.since_sending for sample in samples]),
        ("a plain read", [sample.plain_read for sample in samples]),
    ):
        *_, p95 = statistics.quantiles(values, n=20)
        sys.stdout.write(f"  {what}: p50 {statistics.median(values):.0f}, p95 {p95:.0f}, max {max(values):.0f} ms\n")


if __name__ == "__main__":
    main()
