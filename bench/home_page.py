"""Measure the admin's first page with a busy brand of a large database, beside the yardstick."""

from typing import Any, Final

from bench.calls import proxied
from bench.databases import Databases
from bench.figures import Series
from bench.product import Installation, Server, serving, serving_wsgi
from bench.rounds import Say, measure
from bench.targets import Target, yardstick

PERIODS: Final = ("24h", "7d", "30d")
_SMALL: Final = {"workers": 1, "threads": 4}


def measured(
    installation: Installation, databases: Databases, database: str, *, rounds: int, say: Say
) -> dict[str, Any]:
    """Return the server's CPU time of one page for each period in milliseconds, and the yardstick's in microseconds."""
    say("home page: counting the audit log")
    made = installation.python("bench.home_page_rows")
    with (
        serving_wsgi("bench.yardstick:application", installation.folder, {}, **_SMALL) as bare,
        serving(installation, **_SMALL) as server,
    ):
        targets = [yardstick(bare), *(_page(server, made, period) for period in PERIODS)]
        series = measure(targets, rounds=rounds, seconds=1, databases=databases, database=database, say=say)
    counted: dict[str, Any] = made["counted"]
    return counted | {
        "yardstick_cpu_us": _cpu_us(series["yardstick"]),
        "cpu_ms": {period: round(_cpu_us(series[period]) / 1000, 1) for period in PERIODS},
        "errors": sum(int(one.summary()["errors"]) for one in series.values()),
    }


def _cpu_us(series: Series) -> int:
    return int(series.summary()["server_cpu_us"])


def _page(server: Server, made: dict[str, Any], period: str) -> Target:
    request = proxied("GET", f"/admin/?brand=acme&period={period}", Cookie=made["cookie"])
    return Target(
        name=period,
        label=f"GET /admin/, {period}",
        server=server,
        write=lambda count: [request] * count,
        sample=lambda: [(request, b"<svg")],
        connections=1,
    )
