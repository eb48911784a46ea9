"""`python -m drills`: see `--help`, or docs/operator.md."""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import psutil
import psycopg2

from drills.catalog import DRILLS
from drills.promises import Drill, FaultDidNotTakeHold
from drills.run import run
from drills.stage import Prepared, prepared
from drills.table import Result, as_markdown, code, exit_status, publish

_BEGAN: Final = time.monotonic()


def main() -> int:
    """Run the drills. The exit status is 0 only if one ran and all that ran kept their promises (`exit_status`)."""
    parser = argparse.ArgumentParser(prog="python -m drills", description="Break what the product needs, under load.")
    names = [drill.name for drill in DRILLS]
    parser.add_argument(
        "--only", action="append", choices=names, metavar="DRILL", help=f"{', '.join(names)}; in this order"
    )
    parser.add_argument("--publish", action="store_true", help="write the rows of this run into docs/operator.md")
    wanted = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that every process is stopped
    by_name = {drill.name: drill for drill in DRILLS}
    chosen = [by_name[name] for name in dict.fromkeys([DRILLS[0].name, *(wanted.only or names)])]
    version = code()
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="drills-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL's account looks for its folders below
        with prepared(folder) as made:
            for result in in_turn(chosen, lambda drill: _carried_through(drill, made)):
                results.append(result)
                _say(" | ".join(result.row()))
                if wanted.publish:  # each at once: a run of half an hour may be stopped
                    publish([result], names, made.load_in_words(), version)
    print(as_markdown(results))
    return exit_status(results, is_ci=os.environ.get("CI", "").lower() == "true")


def in_turn(drills: Iterable[Drill], carry_through: Callable[[Drill], Result]) -> Iterator[Result]:
    """Yield the result of each drill. After a control run that did not keep its promise there are no others."""
    for drill in drills:
        result = carry_through(drill)
        yield result
        if drill.is_control and (result.is_broken or result.outcome is None):
            _say("the control run counts first: without it, no drill says anything of its fault")
            return


def _carried_through(drill: Drill, made: Prepared) -> Result:
    """Run one drill. If it cannot be carried through, the others still are."""
    try:
        return run(drill, made, _say)
    except FaultDidNotTakeHold as reason:
        return Result(drill, failed=f"the fault did not take hold ({reason})")
    except (
        RuntimeError,
        ValueError,
        AssertionError,
        OSError,
        psutil.Error,
        psycopg2.Error,
        subprocess.SubprocessError,
    ) as fault:
        traceback.print_exc()
        return Result(drill, failed=type(fault).__name__)


def _say(line: str) -> None:
    print(f"{time.monotonic() - _BEGAN:6.0f} s  {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
