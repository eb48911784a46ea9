"""Compute figures from rounds: middle halves, ratios of interleaved rounds, percentiles."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import mean, median
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Round:
    """The result of one target in one round, a closed loop with a fixed number of connections."""

    answers: int
    seconds: float
    p50_ms: float
    p99_ms: float
    errors: int
    server_cpu_seconds: float = 0.0
    database_cpu_seconds: float = 0.0

    @property
    def per_second(self) -> float:
        return self.answers / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Series:
    """All rounds of one target."""

    rounds: tuple[Round, ...]

    @property
    def per_second(self) -> float:
        return median(one.per_second for one in self.rounds)

    @property
    def errors(self) -> int:
        """The number of wrong or missing responses; it must be 0."""
        return sum(one.errors for one in self.rounds)

    def cpu_microseconds(self, part: str) -> float:
        """CPU time of `server` or `database` per response over all rounds. It varies less than the rate."""
        answers = sum(one.answers for one in self.rounds)
        seconds = sum(float(getattr(one, f"{part}_cpu_seconds")) for one in self.rounds)
        return seconds * 1e6 / answers if answers else 0.0

    def summary(self) -> dict[str, Any]:
        rates = middle_half([one.per_second for one in self.rounds])
        return {
            "per_second": round(self.per_second, 1),
            "per_second_range": [round(rates[0], 1), round(rates[-1], 1)],
            "p50_ms": round(median(one.p50_ms for one in self.rounds), 2),
            "p99_ms": round(median(one.p99_ms for one in self.rounds), 2),
            "server_cpu_us": round(self.cpu_microseconds("server")),
            "database_cpu_us": round(self.cpu_microseconds("database")),
            # To look at single rounds later.
            "rounds_cpu_us": [
                round(one.server_cpu_seconds * 1e6 / one.answers) if one.answers else 0 for one in self.rounds
            ],
            "answers": sum(one.answers for one in self.rounds),
            "errors": self.errors,
        }


def ratio(target: Series, reference: Series) -> dict[str, Any]:
    """Return the mean and range of the middle half of the ratios of rounds, whose sides ran seconds apart."""
    pairs = zip(target.rounds, reference.rounds, strict=True)
    return _summed_up([one.per_second / other.per_second for one, other in pairs if other.per_second])


def middle_half(values: Sequence[float]) -> list[float]:
    """Return the values without the lowest and the highest quarter; of two all, of three the median."""
    quarter = round(len(values) / 4)
    return sorted(values)[quarter : len(values) - quarter]


def _summed_up(ratios: Sequence[float]) -> dict[str, Any]:
    if not ratios:
        return {"ratio": 0.0, "range": [0.0, 0.0]}
    middle = middle_half(ratios)
    return {"ratio": round(mean(middle), 2), "range": [round(middle[0], 2), round(middle[-1], 2)]}


def cpu_ratio(target: Series, reference: Series) -> dict[str, Any]:
    """As `ratio`, of the answers that a second of the server's CPU time gave: it varies less than the rate."""
    return ratio(_per_cpu_second(target), _per_cpu_second(reference))


def cpu_beyond(target: Series, reference: Series, yardstick: Series) -> dict[str, Any]:
    """Return by how many answers of the yardstick a target's CPU time exceeds that of a reference without its A1."""
    rounds = zip(target.rounds, reference.rounds, yardstick.rounds, strict=True)
    times = [
        [one.server_cpu_seconds / one.answers for one in three] for three in rounds if all(o.answers for o in three)
    ]
    ratios = [(ours - (theirs - bare)) / bare for ours, theirs, bare in times if bare]
    return _summed_up(ratios)


def _per_cpu_second(series: Series) -> Series:
    return Series(tuple(replace(one, seconds=one.server_cpu_seconds) for one in series.rounds))


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least `share` percent of `values` do not exceed (nearest rank)."""
    if not values:
        return 0.0
    rank = max(1, math.ceil(len(values) * share / 100))
    return sorted(values)[rank - 1]


def spread(milliseconds: Sequence[float]) -> dict[str, float]:
    """Summarise a list of durations."""
    return {
        "count": len(milliseconds),
        "p50_ms": round(percentile(milliseconds, 50), 2),
        "p99_ms": round(percentile(milliseconds, 99), 2),
        "max_ms": round(max(milliseconds, default=0.0), 2),
    }
