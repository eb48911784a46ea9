"""The goals, and the figure of a run for each."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

Report = dict[str, Any]
MET, FLOOR, MISSED, UNKNOWN = "met", "above the floor", "missed", "not measured"


@dataclass(frozen=True)
class Goal:
    """A figure with its goal and its floor. `measured` raises `KeyError` if the run did not measure it."""

    operation: str
    goal: str
    floor: str
    measured: Callable[[Report], float]
    shown: Callable[[Report], str]
    met: Callable[[float], bool]
    above_floor: Callable[[float], bool]

    def row(self, report: Report) -> tuple[str, str, str, str, str]:
        """Return operation, goal, floor, measured value and verdict."""
        try:
            value, shown = self.measured(report), self.shown(report)
        except KeyError:
            return self.operation, self.goal, self.floor, "-", UNKNOWN
        verdict = MET if self.met(value) else FLOOR if self.above_floor(value) else MISSED
        return self.operation, self.goal, self.floor, shown, verdict


def _at_least(
    operation: str, goal: float, floor: float, ratio_in: Callable[[Report], dict[str, Any]], *, of_yardstick: bool
) -> Goal:
    unit = " of A1" if of_yardstick else "x"

    def shown(report: Report) -> str:
        found = ratio_in(report)
        low, high = found["range"]
        return f"{found['ratio']:.2f}{unit} ({low:.2f} to {high:.2f})"

    return Goal(
        operation,
        f"at least {goal:.2f}{unit}",
        f"{floor:.2f}",
        lambda report: float(ratio_in(report)["ratio"]),
        shown,
        lambda value: value >= goal,
        lambda value: value >= floor,
    )


def _at_most(operation: str, limits: tuple[float, float], unit: str, value_in: Callable[[Report], float]) -> Goal:
    return Goal(
        operation,
        f"at most {limits[0]:g}{unit}",
        f"{limits[1]:g}{unit}",
        value_in,
        lambda report: f"{value_in(report):.2f}{unit}",
        lambda value: value <= limits[0],
        lambda value: value <= limits[1],
    )


def _of_yardstick(name: str) -> Callable[[Report], dict[str, Any]]:
    return lambda report: dict(report["targets"][name]["cpu_of_yardstick"])


def _of_build_before(name: str) -> Callable[[Report], dict[str, Any]]:
    return lambda report: dict(report["beside"][name]["cpu"])


def _against(name: str) -> Callable[[Report], dict[str, Any]]:
    return lambda report: dict(report["token_read_against"][name])


def _at_a_million(report: Report, part: str) -> dict[str, Any]:
    """Return the growth figures for 10^6 conversations. The goal says nothing about smaller sizes."""
    of_sizes = report["growth"]["requests"]["token_read"] if part == "token_read" else report["growth"]["statements"]
    return dict(of_sizes["1000000"])


def _disturbed(report: Report, who: str) -> dict[str, Any]:
    return dict(report["starvation"][who]["beside_a_hanging_brand"])


def _starvation(operation: str, goal: str, floor: str, who: str, limits: tuple[float, float]) -> Goal:
    def shown(report: Report) -> str:
        found, p99 = report["starvation"][who], _disturbed(report, who)
        before = found["undisturbed"]["p99_ms"]
        return f"{found['p99_ratio']:.2f}x ({before:.1f} to {p99['p99_ms']:.1f} ms), slowest {p99['max_ms']:.0f} ms"

    def value(report: Report) -> float:
        # A single request over a second misses the floor, whatever the percentile is.
        return float("inf") if _disturbed(report, who)["max_ms"] > 1_000 else report["starvation"][who]["p99_ratio"]

    return Goal(
        operation, goal, floor, value, shown, lambda ratio: ratio <= limits[0], lambda ratio: ratio <= limits[1]
    )


GOALS: Final = (
    _at_least("`GET .../token`", 0.70, 0.60, _of_yardstick("token_read"), of_yardstick=True),
    _at_least(
        "`GET .../token` against django-oauth-toolkit's introspection",
        8,
        6.5,
        _against("django_oauth_toolkit"),
        of_yardstick=False,
    ),
    _at_least(
        "`GET .../token` against Node `oidc-provider`'s introspection",
        1.05,
        0.9,
        _against("oidc_provider"),
        of_yardstick=False,
    ),
    _at_least("`POST .../challenges`, committed", 0.32, 0.26, _of_yardstick("create"), of_yardstick=True),
    _at_least("`POST /c/{link_token}` (begin)", 0.18, 0.15, _of_yardstick("begin"), of_yardstick=True),
    _at_least(
        "`GET /callback/{id}` against the build before", 1.7, 1.3, _of_build_before("callback"), of_yardstick=False
    ),
    _at_most(
        "bot reads (100/s) beside 500 long polls, p99 against undisturbed",
        (1.5, 3),
        "x",
        lambda report: float(report["waiting"]["reads"]["p99_ratio"]),
    ),
    _starvation(
        "bot reads (100/s) while one brand hangs under 40 callbacks",
        "p99 at most 1.5x undisturbed, none over 1 s",
        "2x",
        "reads",
        (1.5, 2.0),
    ),
    _starvation(
        "another brand's callbacks meanwhile", "p99 at most 3x undisturbed", "none over 1 s", "other_brand", (3.0, 1e9)
    ),
    _at_most(
        "`POST .../calls/{operation}`, CPU beyond the same request by `requests`",
        (3, 4),
        " of A1",
        lambda report: float(report["call_beyond_requests"]["ratio"]),
    ),
    _at_most(
        "bot reads (100/s) beside 40 calls of a hanging API, p99 against undisturbed",
        (1.5, 2),
        "x",
        lambda report: float(report["hanging_api"]["p99_ratio"]),
    ),
    _at_most(
        "token read at 10^6 conversations against 10^4, p50",
        (1.1, 1.3),
        "x",
        lambda report: float(_at_a_million(report, "token_read")["p50_ratio"]),
    ),
    _at_most(
        "one purge statement at 10^6 conversations",
        (100, 250),
        " ms",
        lambda report: float(_at_a_million(report, "statements")["purge"]["max_ms"]),
    ),
    _at_most(
        "a worker's own memory (USS, having worked)",
        (20, 30),
        " MiB",
        lambda report: float(max(report["boot"]["unique_mib"])),
    ),
    _at_most(
        "boot of a worker, CPU",
        (0.5, 0.8),
        " s",
        lambda report: float(median(report["boot"]["cpu_seconds"])),
    ),
)


def rows(report: Report) -> list[tuple[str, str, str, str, str]]:
    return [goal.row(report) for goal in GOALS]
