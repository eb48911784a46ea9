"""Positions and sizes of the shapes in the home page's charts.

They are whole numbers, because some languages write fractions with a comma, which SVG does not accept.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from conversations.home import Point, Step

WIDTH: Final = 360
_ROW: Final = 46
_BAR_TOP: Final = 20
_TOP: Final = 20
COLUMNS_HEIGHT: Final = 120


@dataclass(frozen=True)
class Bar:
    """One step of the funnel: its text, and its bar below the text."""

    step: Step
    text_y: int
    bar_y: int
    width: int


@dataclass(frozen=True)
class Column:
    """One hour or day: a bar for the links issued, and in front of it a bar for the sign-ins confirmed."""

    point: Point
    x: int
    width: int
    issued_y: int
    issued_height: int
    confirmed_y: int
    confirmed_height: int


@dataclass(frozen=True)
class Funnel:
    """The funnel's bars."""

    bars: list[Bar]
    height: int


@dataclass(frozen=True)
class Columns:
    """The columns over time. `most` is the number that the highest bar stands for."""

    columns: list[Column]
    most: int
    floor: int


def funnel(steps: Sequence[Step]) -> Funnel:
    most = max([step.times for step in steps] + [1])
    bars = [
        Bar(step, number * _ROW + 14, number * _ROW + _BAR_TOP, _scaled(step.times, most, WIDTH))
        for number, step in enumerate(steps)
    ]
    return Funnel(bars, len(bars) * _ROW)


def columns(points: Sequence[Point]) -> Columns:
    most = max([max(point.issued, point.confirmed) for point in points] + [1])
    floor, room = _TOP + COLUMNS_HEIGHT, WIDTH // len(points)
    drawn = []
    for number, point in enumerate(points):
        issued, confirmed = (_scaled(times, most, COLUMNS_HEIGHT) for times in (point.issued, point.confirmed))
        x, width = number * room + 1, max(room - 2, 1)
        drawn.append(Column(point, x, width, floor - issued, issued, floor - confirmed, confirmed))
    return Columns(drawn, most, floor)


def _scaled(times: int, most: int, length: int) -> int:
    """Return the length of a bar: at least 2, so that it can be seen, unless the number is 0."""
    return max(round(length * times / most), 2) if times else 0
