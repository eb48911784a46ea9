"""Which run a test belongs to, told from what it uses: nobody has to say it of a new test.

- `test` is for every change: it starts no server.
- `served` drives servers, browsers and other people's programs, or waits for real seconds.
- `full` takes longer than a change may wait, or needs what few machines have. It is run before a release.

A test that touches no database gives the same answer on each of them. Where a run is on both, it runs on one.
"""

import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Final

import pytest

TESTS: Final = Path(__file__).parent
TEST: Final = "test"
SERVED: Final = "served"
FULL: Final = "full"
PARTS: Final = (TEST, SERVED, FULL)

# Folders and modules; `@pytest.mark.full` does the same for one test, `pytestmark = pytest.mark.full` for a module.
FULL_PATHS: Final = ("browser/firefox", "browser/test_bad_days.py", "browser/test_looks.py")
# Of the servers that others wrote, these are run for every change. All else in `peers` is part of `full`.
PEERS: Final = "peers"
PEERS_OF_EVERY_CHANGE: Final = tuple(
    f"peers/test_{name}.py" for name in ("beyond", "journeys", "oidc_provider", "sample_brand")
)
SERVED_PATHS: Final = ("browser", "demo", "docs", "peers", "test_bench.py")
# A module that imports from one of these, or a test that asks for one of these fixtures, drives what is served.
SERVING_MODULES: Final = frozenset({
    "bench.product", "demo.processes", "tests.contract_run.run", "tests.demo.machines", "tests.own_postgresql",
    "tests.served",
})  # fmt: skip
# The same for a test whose own body makes an installation, with processes that live for seconds.
PROCESS_MODULES: Final = frozenset({"tests.installation"})
SERVING_FIXTURES: Final = frozenset({
    "oidc_provider", "requires_chromium", "requires_node", "requires_redis", "sample_brand", "stage",
})  # fmt: skip

# What opens a connection in this process, or has a database of its own made on the server that the run has chosen.
DATABASE_FIXTURES: Final = frozenset({"db", "django_db_setup", "live_server", "transactional_db"})
# The second and third are where `django.db.connection` and `connections` have their classes.
DATABASE_MODULES: Final = frozenset({
    "tests.databases", "django.utils.connection", "django.db.utils", "tests.installation",
})  # fmt: skip


def part_of(item: pytest.Item) -> str:
    """Return the one part that a test belongs to."""
    path = _path(item)
    if item.get_closest_marker(FULL) or _is_below(path, FULL_PATHS):
        return FULL
    if _is_below(path, (PEERS,)) and path not in PEERS_OF_EVERY_CHANGE:
        return FULL
    if _is_below(path, SERVED_PATHS) or _uses(item, SERVING_FIXTURES, SERVING_MODULES) or _starts_processes(item):
        return SERVED
    return TEST


def touches_a_database(item: pytest.Item) -> bool:
    """Tell whether a test may give another answer on another database."""
    return bool(item.get_closest_marker("django_db")) or _uses(item, DATABASE_FIXTURES, DATABASE_MODULES)


def is_in(item: pytest.Item, places: Iterable[str]) -> bool:
    """Tell whether a test is in one of these folders or modules, named from `tests` on."""
    return _is_below(_path(item), places)


def group_of(item: pytest.Item) -> str:
    """Return the name of the tests that share servers, and so a process; without servers that is a module."""
    path = _path(item)
    if _is_below(path, ("browser",)):
        return "product_in_browser"
    return "demo" if "stage" in getattr(item, "fixturenames", ()) else path


def _path(item: pytest.Item) -> str:
    return str(item.path.relative_to(TESTS))


def _is_below(path: str, places: Iterable[str]) -> bool:
    return any(path == place or path.startswith(f"{place}/") for place in places)


def _uses(item: pytest.Item, fixtures: frozenset[str], modules: frozenset[str]) -> bool:
    asked = fixtures.intersection(getattr(item, "fixturenames", ()))
    module = getattr(item, "module", None)
    return bool(asked) or (module is not None and bool(modules & _modules_behind(module.__name__)))


def _starts_processes(item: pytest.Item) -> bool:
    function = getattr(item, "function", None)
    code, scope = getattr(function, "__code__", None), getattr(function, "__globals__", {})
    named = [scope.get(name) for name in (code.co_names if code else ())]
    return any(getattr(value, "__module__", None) in PROCESS_MODULES for value in named)


@cache
def _modules_behind(name: str) -> frozenset[str]:
    """Return the modules that a module takes something from, and those that the suite's own ones among them do."""
    found: set[str] = set()
    new = {name}
    while new:
        found |= new
        own = [sys.modules[module] for module in new if module.startswith("tests.") and module in sys.modules]
        new = {taken for module in own for taken in _taken_from(module)} - found
    return frozenset(found)


def _taken_from(module: ModuleType) -> Iterator[str]:
    for value in list(vars(module).values()):
        source = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
        if isinstance(source, str):
            yield source
