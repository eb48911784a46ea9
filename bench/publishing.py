"""Write a run's goals into docs/performance.md and all its tables into docs/measured/, with date and machine."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from bench import goals
from bench.chart import chart
from bench.processes import ROOT
from bench.report import (
    GROWTH_HEADINGS,
    PROFILE_HEADINGS,
    STATEMENT_HEADINGS,
    growth_rows,
    hanging_api_phases,
    home_page,
    profile_rows,
    spread_rows,
    statement_rows,
    target_rows,
    waiting_phases,
)

DOCS: Final = ROOT / "docs"
BEGIN: Final = "<!-- measured: written by `make bench ARGS=--publish` -->"
END: Final = "<!-- end of measured -->"
_TARGETS: Final = (
    "", "a second", "range", "of A1", "range", "CPU of A1", "p50 ms", "p99 ms", "server µs", "database µs", "answers",
    "errors",
)  # fmt: skip

Report = dict[str, Any]


def publish(reports: Sequence[Report], docs: Path = DOCS) -> None:
    """Write the summary, the tables, the chart and the JSON. Both documents must contain the two marks."""
    full = docs / "measured" / "performance.md"
    write_between_marks(docs / "performance.md", [part for report in reports for part in _summary(report)])
    write_between_marks(full, [part for report in reports for part in _tables(report)])
    full.with_suffix(".json").write_text(json.dumps(list(reports), indent=1) + "\n")
    full.with_suffix(".svg").write_text(chart(reports[0]))


def write_between_marks(document: Path, parts: Sequence[str], begin: str = BEGIN, end: str = END) -> None:
    """Replace what stands between two marks of a document."""
    before, _, rest = document.read_text().partition(begin)
    measured = "\n\n".join(parts)
    document.write_text(f"{before}{begin}\n\n{measured}\n\n{end}{rest.partition(end)[2]}")


def _summary(report: Report) -> list[str]:
    """Summarise the goals, which exist for PostgreSQL only."""
    if report["database"] != "postgresql":
        return []
    return [
        f"Measured on {report['began'][:10]}:",
        markdown(("operation", "goal", "floor", "measured", ""), goals.rows(report)),
        "![Requests a second as a share of bare Django's](measured/performance.svg)",
    ]


def _tables(report: Report) -> list[str]:
    name = {"postgresql": "PostgreSQL", "sqlite": "SQLite"}[report["database"]]
    parts = [f"## {name}, {report['began'][:10]}", _machine(report)]
    parts += [f"Skipped: {name} ({reason})." for name, reason in report["skipped"].items()]
    if "targets" in report:
        parts.append(markdown(_TARGETS, target_rows(report)))
    if "profile" in report:
        parts += ["### Where the time goes, without gunicorn", markdown(PROFILE_HEADINGS, profile_rows(report))]
    parts += _starvation(report) + _hanging_api(report) + _waiting(report)
    if "boot" in report:
        parts.append(f"Workers after the run, MiB resident: {_list(report['boot']['resident_mib'])}; of that not "
                     f"shared: {_list(report['boot']['unique_mib'])}. CPU seconds of a boot: "
                     f"{_list(report['boot']['cpu_seconds'])}.")  # fmt: skip
    if "growth" in report:
        parts += [
            "### Growth",
            markdown(GROWTH_HEADINGS, growth_rows(report)),
            markdown(STATEMENT_HEADINGS, statement_rows(report)),
            *_weights(report["growth"]["weights"]),
            *home_page(report["growth"]),
        ]
    return parts


def _machine(report: Report) -> str:
    facts = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in report["machine"].items())
    return (
        f"{report['conversations']:,} conversations, {report['rounds']} rounds of {report['seconds']} s each, "
        f"from {report['began']} to {report['ended']}; {facts}."
    )


def _starvation(report: Report) -> list[str]:
    if "starvation" not in report:
        return []
    found = report["starvation"]
    phases = {
        f"{who}, {phase}": found[who][phase]
        for who in ("reads", "other_brand")
        for phase in ("undisturbed", "beside_a_hanging_brand")
    }
    told = f"Callbacks of the hanging brand that were told at once to come again: {found['told_to_come_again']}."
    return [
        "### A brand that hangs",
        markdown(("", "p50 ms", "p99 ms", "slowest ms", "errors"), spread_rows(phases)),
        told,
    ]


def _hanging_api(report: Report) -> list[str]:
    if "hanging_api" not in report:
        return []
    found = report["hanging_api"]
    return [
        "### An API that hangs",
        markdown(("", "p50 ms", "p99 ms", "slowest ms", "errors"), spread_rows(hanging_api_phases(found))),
        f"Calls of the hanging API that were told at once to come again: {found['told_to_come_again']}.",
    ]


def _waiting(report: Report) -> list[str]:
    if "waiting" not in report:
        return []
    found = report["waiting"]
    told = (
        f"Of {found['asked_at_once']} long polls at once {found['waited']} waited; {found['told_to_come_again']} were "
        f"answered at once, with `Retry-After` (p99 {found['told_to_come_again_ms']['p99_ms']:.0f} ms)."
    )
    rows = spread_rows(waiting_phases(found))
    return ["### 500 long polls", markdown(("", "p50 ms", "p99 ms", "slowest ms", "errors"), rows), told]


def _weights(weights: dict[str, Any]) -> list[str]:
    if not all(isinstance(table, dict) for tables in weights.values() for table in tables.values()):
        return [f"File sizes in MiB: {weights}."]
    rows = [
        (f"`{table}`", f"{int(size):,}", str(found["table_mib"]), str(found["indexes_mib"]))
        for size, tables in weights.items()
        for table, found in tables.items()
    ]
    return [markdown(("table", "conversations", "rows, MiB", "indexes, MiB"), rows)]


def markdown(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _list(values: Iterable[float]) -> str:
    return ", ".join(str(value) for value in values)
