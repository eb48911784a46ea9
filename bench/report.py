"""A report as text, and the number of errors in it."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from bench import goals

Report = dict[str, Any]

_HEADINGS: Final = (
    "", "a second", "range", "of A1", "range", "CPU of A1", "p50 ms", "p99 ms", "server us", "database us", "answers",
    "errors",
)  # fmt: skip


def as_text(report: Report) -> str:
    size, rounds = f"{report['conversations']:,} conversations", f"{report['rounds']} rounds of {report['seconds']} s"
    parts = [
        f"{report['database']}, {size}, {rounds}, {report['began']}",
        "\n".join(f"  {name}: {value}" for name, value in report["machine"].items()),
    ]
    parts += [f"  {name} was skipped: {reason}" for name, reason in report["skipped"].items()]
    if "targets" in report:
        parts.append(table(_HEADINGS, target_rows(report)))
    if report.get("beside"):
        parts.append(table(("the build before / this one", "CPU", "range", "rate", "range"), beside_rows(report)))
    parts += [table(("", "p50 ms", "p99 ms", "slowest ms", "errors"), rows) for rows in _spreads(report)]
    if "waiting" in report:
        told = {name: value for name, value in report["waiting"].items() if name not in {"reads", "one_group"}}
        parts.append(f"waiting: {told}")
    if "profile" in report:
        parts.append(table(PROFILE_HEADINGS, profile_rows(report)))
    if "boot" in report:
        parts.append(f"boot: {report['boot']}")
    if "growth" in report:
        parts.append(table(GROWTH_HEADINGS, growth_rows(report)))
        parts.append(table(STATEMENT_HEADINGS, statement_rows(report)))
        parts.append(f"weights in MiB: {report['growth']['weights']}")
        parts += home_page(report["growth"])
    if report["database"] == "postgresql":
        parts.append(table(("goal", "", "floor", "measured", ""), goals.rows(report)))
    return "\n\n".join(parts) + "\n"


def home_page(growth: Report) -> list[str]:
    """Return the sentence about the admin's first page, if it was measured."""
    if "home_page" not in growth:
        return []
    found = growth["home_page"]
    times = ", ".join(f"{period} {milliseconds:g} ms" for period, milliseconds in found["cpu_ms"].items())
    return [
        (
            f"The admin's first page, CPU of the server: {times} (goal: under 400 ms; bare Django's constant view: "
            f"{found['yardstick_cpu_us'] / 1000:.2f} ms), over {found['hourly_counts']:,} hourly counts of one brand. "
            f"{found['audit_events']:,} audit events were counted in {found['counting_seconds']:g} s."
        )
    ]


def target_rows(report: Report) -> list[Sequence[str]]:
    """Rows of the targets that were measured in rounds."""
    return [
        (
            target["label"],
            f"{target['per_second']:.0f}",
            _range(target["per_second_range"], 0),
            f"{target['of_yardstick']['ratio']:.2f}",
            _range(target["of_yardstick"]["range"], 2),
            f"{target['cpu_of_yardstick']['ratio']:.2f}" if "cpu_of_yardstick" in target else "-",
            f"{target['p50_ms']:.1f}",
            f"{target['p99_ms']:.1f}",
            str(target["server_cpu_us"]),
            str(target["database_cpu_us"]),
            str(target["answers"]),
            str(target["errors"]),
        )
        for target in report["targets"].values()
    ]


def beside_rows(report: Report) -> list[Sequence[str]]:
    """Rows of the targets that another build has answered in the same rounds."""
    return [
        (report["targets"][name]["label"], *_ratio(found["cpu"]), *_ratio(found["rate"]))
        for name, found in report["beside"].items()
    ]


def _ratio(found: dict[str, Any]) -> tuple[str, str]:
    return f"{found['ratio']:.2f}x", _range(found["range"], 2)


PROFILE_HEADINGS: Final = ("microseconds a request", "all", "of these")


def profile_rows(report: Report) -> list[Sequence[str]]:
    """Rows of each request's time by part, the largest part first."""
    return [
        (
            name.replace("_", " "),
            f"{parts['total']:.0f}",
            ", ".join(f"{part} {microseconds:.0f}" for part, microseconds in parts.items() if part != "total"),
        )
        for name, parts in report["profile"].items()
    ]


GROWTH_HEADINGS: Final = ("", "conversations", "p50 ms", "p99 ms", "p50 against the smallest", "database us", "errors")


def growth_rows(report: Report) -> list[Sequence[str]]:
    """Rows of the requests on databases of different sizes."""
    return [
        (
            kind,
            f"{int(size):,}",
            f"{found['p50_ms']:.2f}",
            f"{found['p99_ms']:.2f}",
            f"{found['p50_ratio']:.2f}x",
            str(found["database_cpu_us"]),
            str(found["errors"]),
        )
        for kind, sizes in report["growth"]["requests"].items()
        for size, found in sizes.items()
    ]


STATEMENT_HEADINGS: Final = ("", "conversations", "statements", "seconds", "p50 ms", "slowest ms")


def statement_rows(report: Report) -> list[Sequence[str]]:
    """Rows of the single statements of sweep, purge and lists."""
    return [
        (
            name.replace("_", " "),
            f"{int(size):,}",
            str(found["count"]),
            f"{found['seconds']:.2f}",
            f"{found['p50_ms']:.2f}",
            f"{found['max_ms']:.1f}",
        )
        for size, statements in report["growth"]["statements"].items()
        for name, found in statements.items()
    ]


def spread_rows(named: dict[str, dict[str, float]]) -> list[Sequence[str]]:
    """Rows of an open loop's durations, one for each phase."""
    return [
        (
            name.replace("_", " "),
            f"{found['p50_ms']:.1f}",
            f"{found['p99_ms']:.1f}",
            f"{found['max_ms']:.0f}",
            f"{found['errors']:.0f}",
        )
        for name, found in named.items()
    ]


def _spreads(report: Report) -> list[list[Sequence[str]]]:
    found = []
    if "starvation" in report:
        phases = {
            f"{who}, {phase}": report["starvation"][who][phase]
            for who in ("reads", "other_brand")
            for phase in ("undisturbed", "beside_a_hanging_brand")
        }
        found.append(spread_rows(phases))
    if "hanging_api" in report:
        found.append(spread_rows(hanging_api_phases(report["hanging_api"])))
    if "reads" in report.get("waiting", {}):
        found.append(spread_rows(waiting_phases(report["waiting"])))
    return found


def hanging_api_phases(found: Report) -> dict[str, dict[str, float]]:
    return {f"reads, {phase}": found[phase] for phase in ("undisturbed", "beside_a_hanging_api")}


def waiting_phases(waiting: Report) -> dict[str, dict[str, float]]:
    """Name the phases of the reads beside long polls."""
    groups = {"": waiting["reads"]} | ({", in one group": waiting["one_group"]} if "one_group" in waiting else {})
    return {
        f"reads, {phase}{where}": found[phase]
        for where, found in groups.items()
        for phase in ("undisturbed", "beside_waiting")
    }


def errors_in(report: Any) -> int:
    """Sum up every `errors` in a report, at any depth. One wrong response fails the run."""
    if isinstance(report, list):
        return sum(map(errors_in, report))
    if not isinstance(report, dict):
        return 0
    return sum(int(value) if name == "errors" else errors_in(value) for name, value in report.items())


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Align rows in columns: the first column left, the others right."""
    lines = [headings, *rows]
    widths = [max(len(line[place]) for line in lines) for place in range(len(headings))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _range(low_and_high: Sequence[float], digits: int) -> str:
    low, high = low_and_high
    return f"{low:.{digits}f}-{high:.{digits}f}"
