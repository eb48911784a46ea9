"""Measure the same requests, interleaved, on databases of different sizes.

Then measure each statement of the admin's lists, a sweep and a purge, and the sizes of tables and indexes.
"""

from contextlib import ExitStack
from dataclasses import dataclass
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
_MOST_ROUNDS: Final = 2

_WEIGHTS: Final = """
    SELECT relname, pg_table_size(oid), pg_indexes_size(oid) FROM pg_class
    WHERE relkind = 'r' AND (relname LIKE 'conversations_%' OR relname = 'infrastructure_auditevent')
    ORDER BY relname
"""


@dataclass(frozen=True)
class Grown:
    """A database of one size with the server in front of it."""

    size: int
    database: str
    installation: Installation
    targets: dict[str, Target]


def measure(
    databases: Databases, folder: Path, sizes: tuple[int, ...], *, rounds: int, seconds: int, say: Say
) -> dict[str, Any]:
    """Seed a database for each size, measure them interleaved, then sweep and purge each."""
    with ExitStack() as stack:
        grown = [_grow(stack, databases, folder, size, say) for size in sizes]
        series = _interleaved(grown, databases, min(rounds, _MOST_ROUNDS), seconds, say)
    report: dict[str, Any] = {"sizes": list(sizes), "requests": {}}
    for kind in KINDS:
        first = series[kind, sizes[0]]
        report["requests"][kind] = {
            str(size): series[kind, size].summary()
            | {"p50_ratio": _p50_ratio(series[kind, size], first), "rate_ratio": ratio(series[kind, size], first)}
            for size in sizes
        }
    largest = grown[-1]
    report["home_page"] = home_page.measured(
        largest.installation, databases, largest.database, rounds=min(rounds, _MOST_ROUNDS), say=say
    )
    report["statements"] = {}
    for one in grown:
        say(f"{one.size:,} conversations: sweep and purge")
        report["statements"][str(one.size)] = one.installation.python("bench.growth_statements")
    report["weights"] = {str(one.size): _weights(databases, one.database) for one in grown}
    for one in grown:
        databases.drop(one.database)
    return report


def _grow(stack: ExitStack, databases: Databases, folder: Path, size: int, say: Say) -> Grown:
    say(f"{size:,} conversations: seeding")
    name = f"growth_{size}"
    installation = Installation.new(folder, databases.create(name))
    made = installation.seed(name, conversations=size, share_ended=SHARE_ENDED, share_old=SHARE_OLD)
    server = stack.enter_context(serving(installation, workers=1, threads=4))
    targets = {target.name: target for target in product_targets(server, made)}
    return Grown(size, name, installation, {kind: targets[kind] for kind in KINDS})


def _interleaved(
    grown: list[Grown], databases: Databases, rounds: int, seconds: int, say: Say
) -> dict[tuple[str, int], Series]:
    kept: dict[tuple[str, int], list[Round]] = {(kind, one.size): [] for kind in KINDS for one in grown}
    for number in range(rounds + 1):
        for (kind, size), done in kept.items():
            one = next(one for one in grown if one.size == size)
            # Round 0 warms up plans, connections and the database's memory.
            length = seconds if number else WARM_UP_SECONDS
            round_ = measured(one.targets[kind], length, databases, one.database)
            if number:
                done.append(round_)
        say(f"growth, round {number} of {rounds}")
    return {key: Series(tuple(series)) for key, series in kept.items()}


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
