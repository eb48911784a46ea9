"""Print at the end how many cases were tried, and fail a long run that tried fewer than a test promises."""

import logging
import os
import random
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.fuzz.cases import LONG


@pytest.fixture(autouse=True)
def _cases(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    inner = getattr(getattr(request.function, "hypothesis", None), "inner_test", None)
    if inner is not None:
        request.node.user_properties.append(("cases", inner.cases))
        if LONG:
            assert inner.cases >= inner.promised


@pytest.fixture(autouse=True)
def _silence() -> Iterator[None]:
    """Turn logging off: pytest would keep every line of every case."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def answered_fast() -> Iterator[list[int]]:
    """Collect what the fast path answered. A test that it never answers proves nothing."""
    found: list[int] = []
    yield found
    assert len(found) > 10


@pytest.fixture
def dice(monkeypatch: pytest.MonkeyPatch) -> dict[int, Any]:
    """Let both ways draw the same random bytes: each time the next ones of their length; and the same key of DPoP."""
    drawn: dict[int, Any] = {}

    def draw(size: int) -> bytes:
        number = next(drawn.setdefault(size, count()))
        return random.Random(f"{size} {number}").randbytes(size)  # noqa: S311  # the point is that it repeats

    monkeypatch.setattr(os, "urandom", draw)
    monkeypatch.setattr(random, "_urandom", draw)
    # OpenSSL draws by itself.
    key = ec.generate_private_key(ec.SECP256R1())
    monkeypatch.setattr(ec, "generate_private_key", lambda _curve: key)
    return drawn


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Add up the cases of all tests of the run."""
    reports = [report for kind in terminalreporter.stats.values() for report in kind if hasattr(report, "nodeid")]
    properties = [(report.nodeid, report.user_properties) for report in reports if hasattr(report, "user_properties")]
    cases = {nodeid: value for nodeid, pairs in properties for name, value in pairs if name == "cases"}
    if cases:
        for nodeid, tried in sorted(cases.items()):
            terminalreporter.write_line(f"{tried:>8} cases: {nodeid}")
        terminalreporter.write_line(f"{sum(cases.values()):>8} cases in all")
