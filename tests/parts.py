"""Which part of the suite a test belongs to. It is derived from what the test uses, so new tests need no mark.

- `test` is for every change. It starts no server.
- `served` drives servers, browsers and third-party programs, or waits for real seconds.
- `full` takes too long for every change, or needs what few machines have. It is run before a release.

`change` is the first two in one run: while tests of `served` wait, others compute.

A test that uses no database has the same result on each. If a run uses both databases, such a test runs on one.
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
CHANGE: Final = "change"

# Folders and modules. `@pytest.mark.full` marks one test, `pytestmark = pytest.mark.full` a module.
FULL_PATHS: Final = (
    "browser/firefox", "key_providers", "browser/test_api_docs.py", "browser/test_bad_days.py", "browser/test_looks.py",
    "demo/test_api_docs.py", "fuzz/test_contract_run.py",
    # Real processes that are killed, and databases that go away for seconds.
    "conversations/test_database_goes_during_a_sign_in.py", "conversations/test_statistics_crashes.py",
    "conversations/test_webhook_crashes.py", "conversations/test_worker_outages.py",
    "conversations/test_server_health_processes.py",
)  # fmt: skip
# These third-party servers are run for every change. Everything else in `peers` is part of `full`.
PEERS: Final = "peers"
PEERS_OF_EVERY_CHANGE: Final = tuple(
    f"peers/test_{name}.py" for name in ("beyond", "dpop", "journeys", "oidc_provider", "sample_brand")
)
SERVED_PATHS: Final = ("browser", "demo", "docs", "peers", "test_bench.py")
# Tests of a module that imports one of these, and tests with one of these fixtures, are part of `served`.
SERVING_MODULES: Final = frozenset({
    "bench.product", "demo.processes", "tests.contract_run.run", "tests.demo.machines", "tests.own_postgresql",
    "tests.served",
})  # fmt: skip
# So are tests that create an installation themselves, with processes that run for seconds.
PROCESS_MODULES: Final = frozenset({"tests.installation"})
SERVING_FIXTURES: Final = frozenset({
    "oidc_provider", "requires_chromium", "requires_node", "requires_redis", "sample_brand", "stage",
})  # fmt: skip

# Names whose use opens a database connection in this process, or creates a database on the run's server.
DATABASE_FIXTURES: Final = frozenset({"db", "django_db_setup", "live_server", "transactional_db"})
# The second and third define the classes of `django.db.connection` and `connections`.
DATABASE_MODULES: Final = frozenset({
    "tests.databases", "django.utils.connection", "django.db.utils", "tests.installation",
})  # fmt: skip


def part_of(item: pytest.Item) -> str:
    """The only part that a test belongs to."""
    path = _path(item)
    if item.get_closest_marker(FULL) or _is_below(path, FULL_PATHS):
        return FULL
    if _is_below(path, (PEERS,)) and path not in PEERS_OF_EVERY_CHANGE:
        return FULL
    if _is_below(path, SERVED_PATHS) or _uses(item, SERVING_FIXTURES, SERVING_MODULES) or _starts_processes(item):
        return SERVED
    return TEST


def touches_a_database(item: pytest.Item) -> bool:
    """Whether a test may have another result on another database."""
    return bool(item.get_closest_marker("django_db")) or _uses(item, DATABASE_FIXTURES, DATABASE_MODULES)


def is_in(item: pytest.Item, places: Iterable[str]) -> bool:
    """Whether a test is in one of these folders or modules, named relative to `tests`."""
    return _is_below(_path(item), places)


def group_of(item: pytest.Item) -> str:
    """The group of tests that share servers, and so a process. Without servers it is the module."""
    path = _path(item)
    if mark := item.get_closest_marker("xdist_group"):
        return str(mark.args[0])
    if _is_below(path, ("browser",)):
        return "product_in_browser"
    if _is_below(path, ("generators",)):
        return path  # what one test generates another one runs
    return "demo" if "stage" in getattr(item, "fixturenames", ()) else path


def spread(items: list[pytest.Item]) -> list[pytest.Item]:
    """Put the groups of `served` evenly among the others, of both kinds the largest first.

    Processes take groups in this order (`--no-loadscope-reorder`). Largest first over all would leave those groups that
    mostly wait to the end, where nothing else is left to compute.
    """
    groups: dict[str, list[pytest.Item]] = {}
    for item in items:
        groups.setdefault(group_of(item), []).append(item)
    of_servers = {name for name, group in groups.items() if any(part_of(item) == SERVED for item in group)}
    kinds = (of_servers, groups.keys() - of_servers)
    placed = [place for kind in kinds for place in _places({name: groups[name] for name in kind})]
    return [item for _, name in sorted(placed) for item in groups[name]]


def _places(groups: dict[str, list[pytest.Item]]) -> Iterator[tuple[float, str]]:
    """Each group's place in the run, from 0 to 1, by the size of the larger groups before it."""
    sizes = {name: sum(map(_size, group)) for name, group in groups.items()}
    before = 0
    for name in sorted(groups, key=lambda name: (-sizes[name], name)):
        yield before / sum(sizes.values()), name
        before += sizes[name]


def _size(item: pytest.Item) -> int:
    """A test in a browser takes as long as ten others."""
    return 10 if "requires_chromium" in getattr(item, "fixturenames", ()) else 1


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
    """The modules that a module imports from, and those that the suite's own ones among them import from."""
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
