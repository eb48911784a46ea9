"""Run one part of the suite on both databases at once: `python -m tests.run PART [arguments of pytest]`.

`make test`, `make test-served` and `make test-full` use it. `make test-change` runs the first two in one run, which
loads the tests once, and computes while it waits for servers. The part `all` is the three together.
Tests without a database run with SQLite only. Of `served`, tests with a database run on PostgreSQL only.
`TEST_DATABASE` names one database to run everything on; `TEST_POSTGRESQL_PYTHON` another Python for PostgreSQL's side.
"""

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import pytest

from tests import databases, parts

DATABASES: Final = (databases.SQLITE, databases.POSTGRESQL)
OUTCOMES: Final = ("passed", "failed", "error", "skipped")
# Servers start slowly, so they are started once for all tests that share them. Most of their time is waiting.
_SERVED: Final = ("--dist=loadgroup", "-n2", "--timeout=300")
PARTS: Final = {
    "all": _SERVED,
    parts.TEST: ("--part", parts.TEST),
    parts.SERVED: ("--part", parts.SERVED, *_SERVED),
    parts.FULL: ("--part", parts.FULL, *_SERVED),
    parts.CHANGE: ("--part", parts.CHANGE, *_SERVED, "--no-loadscope-reorder"),
}
PROGRESS: Final = re.compile(r"\[ *\d+%\]$")


@dataclass
class Run:
    """One run of pytest. Its progress is printed at once, all other output at its end."""

    database: str
    command: list[str]
    said: list[str] = field(default_factory=list)
    exit_status: int = 0
    seconds: float = 0.0

    def __call__(self) -> None:
        """Run to the end."""
        began = time.monotonic()
        environment = os.environ | {"TEST_DATABASE": self.database}
        # Without bytecode, each of a run's processes would compile all tests again, with their assertions.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        with subprocess.Popen(self.command, env=environment, stdout=subprocess.PIPE, text=True) as suite:
            assert suite.stdout
            for line in suite.stdout:
                self._take(line.rstrip("\n"))
        self.exit_status, self.seconds = suite.returncode, time.monotonic() - began
        report = "\n".join(self.said)
        print(f"\n==> {self.database}\n\n{report}", flush=True)

    def _take(self, line: str) -> None:
        if PROGRESS.search(line):
            print(f"{self.database:>10}  {line}", flush=True)
        else:
            self.said.append(line)

    @property
    def had_tests(self) -> bool:
        return self.exit_status != pytest.ExitCode.NO_TESTS_COLLECTED

    def __str__(self) -> str:
        last_line = next((line for line in reversed(self.said) if line.strip()), "")
        found = {word: re.search(rf"(\d+) {word}", last_line) for word in OUTCOMES}
        counts = {word: int(match.group(1)) if match else 0 for word, match in found.items()}
        failed = counts["failed"] + counts["error"]
        outcomes = f"{counts['passed']} passed, {failed} failed, {counts['skipped']} skipped"
        # A suite that failed to load, was interrupted or is empty has no failed test either.
        remark = f" (pytest ended with status {self.exit_status})" if self.exit_status and not failed else ""
        return f"{self.database}: {outcomes}, in {self.seconds:.0f} s{remark}"


def main() -> int:
    """Run a part of the suite on each database, then print one line with the result of each."""
    part, *arguments = sys.argv[1:]
    runs = _runs(part, [*PARTS[part], *arguments])
    threads = [threading.Thread(target=run) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print()
    for run in runs:
        print(run)
    return status_of(runs)


def status_of(runs: Sequence[Run]) -> int:
    """The worst exit status. One database may have no chosen test; if none has, that is a failure."""
    return int(max((run.exit_status for run in runs if run.had_tests), default=pytest.ExitCode.NO_TESTS_COLLECTED))


def _runs(part: str, arguments: list[str]) -> list[Run]:
    if os.environ.get("TEST_DATABASE"):
        return [Run(databases.chosen(), _pytest(sys.executable, arguments))]
    other_python = os.environ.get("TEST_POSTGRESQL_PYTHON") or sys.executable
    # Servers start slowly. Their tests run on PostgreSQL for every change, on SQLite too before a release (.ci/full).
    other_half = ["--servers-without-a-database"] if part in {parts.SERVED, parts.CHANGE} else []
    return [
        Run(databases.SQLITE, _pytest(sys.executable, [*other_half, *arguments])),
        Run(databases.POSTGRESQL, _pytest(other_python, ["--touching-a-database", *arguments])),
    ]


def _pytest(python: str, arguments: list[str]) -> list[str]:
    return [python, "-m", "pytest", "--color=no", *arguments]


if __name__ == "__main__":
    sys.exit(main())
