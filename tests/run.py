"""The whole suite on each database: `python -m tests.run [pytest's own arguments]`. What `make test` runs.

On one alone where `TEST_DATABASE` names it.
"""

import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Final

from tests import databases

DATABASES: Final = (databases.SQLITE, databases.POSTGRESQL)
OUTCOMES: Final = ("passed", "failed", "error", "skipped")


@dataclass(frozen=True)
class Summary:
    """How the suite went on one database."""

    database: str
    exit_status: int
    counts: dict[str, int]
    seconds: float

    def __str__(self) -> str:
        failed = self.counts["failed"] + self.counts["error"]
        outcomes = f"{self.counts['passed']} passed, {failed} failed, {self.counts['skipped']} skipped"
        # A suite that could not be read, was interrupted or is empty has no failed test either.
        remark = f" (pytest ended with status {self.exit_status})" if self.exit_status and not failed else ""
        return f"{self.database}: {outcomes}, in {self.seconds:.0f} s{remark}"


def main() -> int:
    """Run the suite once for each database, then say in one line for each how it went."""
    chosen = (databases.chosen(),) if os.environ.get("TEST_DATABASE") else DATABASES
    summaries = [_run(database, sys.argv[1:]) for database in chosen]
    print()
    for summary in summaries:
        print(summary)
    return max(summary.exit_status for summary in summaries)


def _run(database: str, arguments: list[str]) -> Summary:
    print(f"\n==> {database}\n", flush=True)
    started = time.monotonic()
    last_line = ""
    with subprocess.Popen(
        [sys.executable, "-m", "pytest", "--color=no", *arguments],
        env=os.environ | {"TEST_DATABASE": database},
        stdout=subprocess.PIPE,
        text=True,
    ) as suite:
        assert suite.stdout
        for line in suite.stdout:
            print(line, end="", flush=True)
            last_line = line if line.strip() else last_line
    return Summary(database, suite.returncode, _counts(last_line), time.monotonic() - started)


def _counts(last_line: str) -> dict[str, int]:
    found = {word: re.search(rf"(\d+) {word}", last_line) for word in OUTCOMES}
    return {word: int(match.group(1)) if match else 0 for word, match in found.items()}


if __name__ == "__main__":
    sys.exit(main())
