"""Measure the same requests, interleaved, on databases of different sizes.

Then measure each statement of the admin's lists, a sweep and a purge, and the sizes of tables and indexes. A run whose
folder is kept can be stopped at any moment: the next one goes on with the step that was not finished.
"""

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from bench import home_page
from bench.databases import POSTGRESQL, Databases
from bench.figures import Round, Series, ratio
from bench.product import Installation, serving
from bench.rounds import WARM_UP_SECONDS, Say, measured
from bench.targets import Target, product_targets

# One of 4 conversations ended 60 days ago. One of 20 has an old challenge that the purge deletes.
SHARE_ENDED: Final = 4
SHARE_OLD: Final = 20
KINDS: Final = ("token_read", "status_read", "create")
# Other sizes are compared with the first one. `make bench-growth` measures more of them.
SIZES: Final = (10_000, 1_000_000)
# The name of the database with empty tables that others are copies of.
TABLES: Final = "tables"
_MOST_SECONDS: Final = 3
# Every twentieth row is enough there, so that requests seldom meet one twice.
_COPIED_FROM: Final = 100_000

_WEIGHTS: Final = """
    SELECT relname, pg_table_size(oid), pg_indexes_size(oid) FROM pg_class
    WHERE relkind = 'r' AND (relname LIKE 'conversations_%' OR relname LIKE 'audit_log_%')
    ORDER BY relname
"""


class Progress:
    """The finished steps of a run with their results, which are JSON. Those of a kept folder outlive the run."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._done: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}

    def once(self, step: str, take: Callable[[], Any]) -> Any:
        """Return what the step returned, in this run or an earlier one; take it if it is not finished."""
        if step not in self._done:
            self._done[step] = take()
            # Renamed into its place: a run that is killed while it writes leaves the old file.
            written = self._file.with_suffix(".new")
            written.write_text(json.dumps(self._done))
            written.replace(self._file)
        return self._done[step]


@dataclass(frozen=True)
class Grown:
    """A database of one size with the server in front of it."""

    size: int
    database: str
    installation: Installation
    targets: dict[str, Target]

    def statements(self) -> dict[str, Any]:
        """Sweep, purge and read the admin's lists, once: it changes the rows."""
        return self.installation.python("bench.growth_statements")


def measure(
    databases: Databases,
    folder: Path,
    sizes: tuple[int, ...],
    *,
    rounds: int,
    seconds: float,
    say: Say,
    has_home_page: bool = False,
) -> dict[str, Any]:
    """Seed a database for each size, measure them interleaved, then sweep and purge each.

    `has_home_page`: measure the admin's first page at the largest size, too, which takes a minute and a half.
    """
    progress, rounds = Progress(folder / "progress.json"), min(rounds, int(_MOST_SECONDS / seconds))
    with ExitStack() as stack:
        grown = []
        for size in sizes:
            say(f"{size:,} conversations: seeding")
            grown.append(_grow(stack, databases, folder, size, progress))
        series = _interleaved(grown, databases, progress, rounds=rounds, seconds=seconds, say=say)
    report: dict[str, Any] = {"sizes": list(sizes), "requests": {}}
    for kind in KINDS:
        first = series[kind, sizes[0]]
        report["requests"][kind] = {
            str(size): series[kind, size].summary()
            | {"p50_ratio": _p50_ratio(series[kind, size], first), "rate_ratio": ratio(series[kind, size], first)}
            for size in sizes
        }
    if has_home_page:
        report["home_page"] = progress.once("home page", partial(_home_page, grown[-1], databases, rounds, say))
    report["statements"] = {str(one.size): progress.once(f"statements {one.size}", one.statements) for one in grown}
    report["weights"] = {
        str(one.size): progress.once(f"weights {one.size}", partial(_weights, databases, one.database)) for one in grown
    }
    for one in grown:
        databases.drop(one.database)
    return report


def _home_page(one: Grown, databases: Databases, rounds: int, say: Say) -> dict[str, Any]:
    return home_page.measured(one.installation, databases, one.database, rounds=rounds, say=say)


def _grow(stack: ExitStack, databases: Databases, folder: Path, size: int, progress: Progress) -> Grown:
    name = f"growth_{size}"
    installation = Installation.new(folder, databases.create(name, again=True, like=TABLES))
    # The same keys as those of the rows.
    environment = progress.once(f"keys {size}", lambda: installation.environment) | {
        "DATABASE_URL": installation.database_url
    }
    installation = replace(installation, environment=environment)
    made = progress.once(
        f"seeded {size}",
        lambda: installation.seed(name, conversations=size, **_shares(databases, size)),
    )
    server = stack.enter_context(serving(installation, workers=1, threads=4))
    targets = {target.name: target for target in product_targets(server, made)}
    return Grown(size, name, installation, {kind: targets[kind] for kind in KINDS})


def _shares(databases: Databases, size: int) -> dict[str, Any]:
    """Which conversations have ended or have an old challenge; whether most rows of a large database are copies."""
    copied = databases.kind == POSTGRESQL and size >= _COPIED_FROM
    return {"share_ended": SHARE_ENDED, "share_old": SHARE_OLD, "copied": copied}


def _interleaved(
    grown: list[Grown], databases: Databases, progress: Progress, *, rounds: int, seconds: float, say: Say
) -> dict[tuple[str, int], Series]:
    kept: dict[tuple[str, int], list[Round]] = {(kind, one.size): [] for kind in KINDS for one in grown}
    for one in grown:
        # Plans, connections and the database's memory.
        for kind in KINDS:
            measured(one.targets[kind], WARM_UP_SECONDS, databases, one.database)
    of_size = {one.size: one for one in grown}
    for number in range(1, rounds + 1):
        for (kind, size), done in kept.items():
            take = partial(_round, of_size[size], kind, databases, seconds)
            done.append(Round(**progress.once(f"round {number} {kind} {size}", take)))
        say(f"growth, round {number} of {rounds}")
    return {key: Series(tuple(series)) for key, series in kept.items()}


def _round(one: Grown, kind: str, databases: Databases, seconds: float) -> dict[str, Any]:
    return asdict(measured(one.targets[kind], seconds, databases, one.database))


def _p50_ratio(series: Series, reference: Series) -> float:
    before = float(reference.summary()["p50_ms"])
    return round(float(series.summary()["p50_ms"]) / before, 2) if before else 0.0


def _weights(databases: Databases, name: str) -> dict[str, Any]:
    if databases.kind != POSTGRESQL:
        return {"file_mib": round(databases.file(name).stat().st_size / 2**20)}
    return {
        table: {"table_mib": round(rows / 2**20), "indexes_mib": round(indexes / 2**20)}
        for table, rows, indexes in databases.execute(name, _WEIGHTS)
    }


def sizes_up_to(rows: int) -> tuple[int, ...]:
    """Return the powers of ten from 10,000 up to `rows`, and `rows`."""
    sizes = [SIZES[0]]
    while sizes[-1] * 10 < rows:
        sizes.append(sizes[-1] * 10)
    return (*sizes, rows) if rows > sizes[-1] else tuple(sizes)
