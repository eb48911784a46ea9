"""`python -m bench`: see `--help`, or docs/performance.md."""

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from bench import growth, report
from bench.chart import chart
from bench.databases import POSTGRESQL, SQLITE
from bench.processes import ROOT
from bench.product import can_seed
from bench.publishing import publish
from bench.run import COMPARED, OTHERS, USUAL, Options, run

RESULTS: Final = ROOT / "bench" / "results"
_BEGAN: Final = time.monotonic()


def main() -> int:
    """Run the benchmark. The exit status is 1 if any response was wrong."""
    parser = _parser()
    arguments = parser.parse_args()
    # Handle these signals, so that every server is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if arguments.keep and arguments.what != "growth":
        parser.error("--keep is for growth")
    if arguments.beside and arguments.what == "growth":
        parser.error("--beside is not for growth")
    if arguments.beside and not can_seed(arguments.beside):
        parser.error(f"--beside {arguments.beside}: git has no such commit here, or it has no bench/seeding.py")
    reports = [_run(options, arguments.keep) for options in _chosen(arguments)]
    RESULTS.mkdir(exist_ok=True)
    name = time.strftime("%Y-%m-%d-%H%M%S", time.gmtime())
    (RESULTS / f"{name}.json").write_text(json.dumps(reports, indent=1))
    text = "\n".join(report.as_text(one) for one in reports)
    (RESULTS / f"{name}.txt").write_text(text)
    (RESULTS / f"{name}.svg").write_text(chart(reports[0]))
    print(text)
    print(f"bench/results/{name}.json, .txt and .svg")
    if arguments.publish:
        publish(reports)
        print("docs/performance.md, and docs/measured/performance.md, .json and .svg")
    errors = sum(report.errors_in(one) for one in reports)
    return int(errors > 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure, side by side in one run.")
    parser.add_argument("what", nargs="?", choices=["all", "growth"], default="all")
    parser.add_argument("--database", choices=[POSTGRESQL, SQLITE], help="default: PostgreSQL, then SQLite in short")
    parser.add_argument("--only", action="append", choices=[*COMPARED, *OTHERS], help="may be given several times")
    parser.add_argument("--rows", type=int, help="conversations; for growth the largest size")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1, help="of each target in each round")
    parser.add_argument("--beside", metavar="COMMIT", default="", help="measure the build of that commit, too")
    keep = "for growth: keep databases and figures in this folder, so that a stopped run can go on"
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help=keep)
    parser.add_argument("--publish", action="store_true", help="write docs/performance.md and docs/measured")
    return parser


def _chosen(arguments: argparse.Namespace) -> list[Options]:
    growing = arguments.what == "growth"
    only = ("growth", "home_page") if growing else tuple(arguments.only or USUAL)
    rows = arguments.rows or (growth.SIZES[-1] if growing else 40_000)
    sizes = growth.sizes_up_to(rows) if growing else growth.SIZES
    wanted = {
        "conversations": rows,
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
        "only": only,
        "sizes": sizes,
        "beside": arguments.beside,
    }
    first = Options(database=arguments.database or POSTGRESQL, **wanted)
    if arguments.database or growing:
        return [first]
    short = {"rounds": min(3, arguments.rounds), "seconds": min(0.5, arguments.seconds)}
    short["conversations"] = min(5_000, rows)
    on_sqlite = tuple(name for name in only if name in COMPARED)
    return [first, Options(database=SQLITE, **wanted | short | {"only": on_sqlite})]


def _run(options: Options, kept: Path | None) -> dict[str, Any]:
    if kept:
        kept.mkdir(mode=0o700, parents=True, exist_ok=True)
        report = run(options, kept.absolute(), _say)
        shutil.rmtree(kept)  # only now that all is measured
        return report
    folder = Path(tempfile.mkdtemp(prefix="consumer-delegation-bench-"))
    try:
        return run(options, folder, _say)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _say(line: str) -> None:
    print(f"{time.monotonic() - _BEGAN:6.0f} s  {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
