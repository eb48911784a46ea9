"""`python -m drills`: see `--help`, or docs/operator.md."""

import argparse
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Final

import psycopg2

from drills.catalog import DRILLS
from drills.promises import Drill
from drills.run import run
from drills.stage import Prepared, prepared
from drills.table import Result, as_markdown, publish

_BEGAN: Final = time.monotonic()


def main() -> int:
    """Run the drills. The exit status is 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m drills", description="Break what the product needs, under load.")
    names = [drill.name for drill in DRILLS]
    parser.add_argument("--only", action="append", choices=names, metavar="DRILL", help=f"one of {', '.join(names)}")
    parser.add_argument("--publish", action="store_true", help="write the rows of this run into docs/operator.md")
    wanted = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that every process is stopped
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="drills-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL's account looks for its folders below
        with prepared(folder) as made:
            for drill in DRILLS:
                if not wanted.only or drill.name in wanted.only:
                    results.append(_carried_through(drill, made))
                    _say(" | ".join(results[-1].row()))
    print(as_markdown(results))
    if wanted.publish:
        publish(results, names)
        print("docs/operator.md")
    return int(any(result.is_broken for result in results))


def _carried_through(drill: Drill, made: Prepared) -> Result:
    """Run one drill. If it cannot be carried through, the others still are."""
    try:
        return run(drill, made, _say)
    except (RuntimeError, AssertionError, OSError, psycopg2.Error, subprocess.SubprocessError) as fault:
        traceback.print_exc()
        return Result(drill, failed=type(fault).__name__)


def _say(line: str) -> None:
    print(f"{time.monotonic() - _BEGAN:6.0f} s  {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
