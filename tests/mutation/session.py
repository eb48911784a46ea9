"""A pytest session that runs each mutant's tests in a forked process, so that nothing is set up again.

First every test runs once, and the session records which functions it reaches. Then, for each mutant, a child process
runs the tests that reach its function until one fails. What the warm session has cached, such as the text of a query,
is computed again there, with the mutant. Verdicts are written to `verdicts.jsonl`, one line each.
"""

import fnmatch
import json
import os
import re
import shutil
import signal
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, Final

import pytest
from django.db import connection, connections
from mutmut.mutation.trampoline import set_mutant_under_test
from mutmut.state import state

from infrastructure.compiled import CompiledInsert, CompiledRows, CompiledUpdate

VERDICTS: Final = Path("verdicts.jsonl")
MUTANTS: Final = os.environ.get("MUTANTS", "*").split()
COMPILED: Final = (CompiledInsert, CompiledRows, CompiledUpdate)
PACKAGES: Final = {"accounts", "brands", "conversations", "infrastructure", "oauth_client", "web"}
# Seconds of tests for one mutant. Try survivors again with more.
LONGEST: Final = float(os.environ.get("SECONDS_FOR_EACH", "3"))
_NUMBER: Final = re.compile(r"__mutmut_\d+$")
_failed: list[str] = []


class _SessionOnly:
    """Passed to pytest as the next item, so that it tears down everything except session fixtures."""

    def __init__(self, session: pytest.Session) -> None:
        self._session = session

    def listchain(self) -> list[pytest.Session]:
        return [self._session]


@dataclass
class Reached:
    """Each test's duration, and the tests that reach a function."""

    seconds: dict[str, float] = field(default_factory=dict)
    tests: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    killers: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def chosen(self, function: str) -> list[str]:
        """The tests to run: recent killers first, then one of each file in turn, the quickest first."""
        files: defaultdict[str, list[str]] = defaultdict(list)
        for test in sorted(self.tests[function], key=self.seconds.__getitem__):
            files[test.partition("::")[0]].append(test)
        in_turn = [test for test in chain.from_iterable(zip_longest(*files.values())) if test]
        known = [test for test in self.killers[function] + self.killers[_module(function)] if test in in_turn]
        return list(self._affordable(dict.fromkeys(known + in_turn)))

    def _affordable(self, tests: dict[str, None]) -> Iterator[str]:
        spent = 0.0
        for test in tests:
            spent += self.seconds[test]
            if spent > LONGEST:
                return
            yield test

    def note_killer(self, function: str, test: str) -> None:
        for name in (function, _module(function)):
            self.killers[name] = list(dict.fromkeys([test, *self.killers[name]]))[:6]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Record what failed."""
    if report.failed:
        _failed.append(report.nodeid)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool:
    """Run the tests once, and then the mutants."""
    items = {item.nodeid: item for item in session.items}
    reached = _run_once(session, items)
    connections.close_all()
    database = Path(connection.settings_dict["NAME"])
    if database.exists():  # unless no chosen test has one
        shutil.copy(database, f"{database}.before-mutants")
    tried = {json.loads(line)["mutant"] for line in VERDICTS.read_text().splitlines()} if VERDICTS.exists() else set()
    with VERDICTS.open("a") as verdicts:
        for mutant in _names():
            if mutant not in tried:
                verdict = _try(mutant, session, items, reached)
                verdicts.write(json.dumps({"mutant": mutant} | verdict) + "\n")
                verdicts.flush()
    return True


def _names() -> Iterator[str]:
    for path in sorted(Path().rglob("*.py.meta")):
        for name in json.loads(path.read_text())["exit_code_by_key"]:
            if any(fnmatch.fnmatch(name, pattern) for pattern in MUTANTS):
                yield name


def _module(function: str) -> str:
    return function.rpartition(".")[0]


def _passes(item: pytest.Item, session: pytest.Session) -> bool:
    _failed.clear()
    item.config.hook.pytest_runtest_protocol(item=item, nextitem=_SessionOnly(session))
    return not _failed


def _run_once(session: pytest.Session, items: dict[str, pytest.Item]) -> Reached:
    """Leave out tests that fail without a mutant: they would kill every one."""
    reached = Reached()
    set_mutant_under_test("stats")
    for nodeid, item in items.items():
        state()._stats.clear()
        _forget_what_is_cached()
        began = time.process_time()
        if not _passes(item, session):
            sys.stderr.write(f"\nfails without a mutant: {nodeid}\n")
            continue
        reached.seconds[nodeid] = time.process_time() - began
        for function in state()._stats:
            reached.tests[function].append(nodeid)
    return reached


def _try(mutant: str, session: pytest.Session, items: dict[str, pytest.Item], reached: Reached) -> dict[str, Any]:
    """The verdict on a mutant, the test that killed it, and the number of tests that were run."""
    function = _NUMBER.sub("", mutant)
    chosen = reached.chosen(function)
    if not chosen:
        return {"verdict": "no tests"}
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _be_a_mutant(mutant, [items[nodeid] for nodeid in chosen], session, writing)
    os.close(writing)
    killer = _killer(child, reading, time.monotonic() + 40 + 12 * LONGEST)
    if killer in items:
        reached.note_killer(function, str(killer))
    return {"verdict": "killed" if killer else "survived", "by": killer, "run": len(chosen)}


def _be_a_mutant(mutant: str, chosen: list[pytest.Item], session: pytest.Session, writing: int) -> None:
    """Run the tests in the child process, write which one failed, and exit."""
    _forget_what_is_cached()
    try:
        set_mutant_under_test(mutant)
        killer = next((item.nodeid for item in chosen if not _passes(item, session)), "-")
        connections.close_all()
        os.write(writing, killer.encode())
    except BaseException:  # noqa: BLE001  # the process exits here
        # The runner itself broke down, and no test has failed.
        traceback.print_exc()
    finally:
        os._exit(0)


@cache
def _caches() -> list[Callable[[], object]]:
    """What empties each `lru_cache` and each compiled query of our modules."""
    modules = [vars(module) for name, module in list(sys.modules.items()) if name.partition(".")[0] in PACKAGES]
    values = {id(value): value for names in modules for value in names.values()}.values()
    cached: list[Callable[[], object]] = [value.cache_clear for value in values if type(value) is type(_caches)]
    return cached + [partial(_forget, vars(value)) for value in values if issubclass(type(value), COMPILED)]


def _forget(attributes: dict[str, Any]) -> None:
    for name in ("_compiled", "_shape", "_statement", "_columns"):
        attributes.pop(name, None)


def _forget_what_is_cached() -> None:
    """Let everything be computed again, with the mutant: the text of a query, for example."""
    for forget in _caches():
        forget()


def _killer(child: int, reading: int, deadline: float) -> str | None:
    """Wait for the child. A child that hangs or crashes counts as killed; it may leave a changed database."""
    while time.monotonic() < deadline:
        if os.waitpid(child, os.WNOHANG)[0]:
            break
        time.sleep(0.004)
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    with os.fdopen(reading) as written:
        killer = written.read()
    if not killer:
        _restore_database()
        return "a process that hung or broke down"
    return None if killer == "-" else killer


def _restore_database() -> None:
    """Restore the database as it was before the first mutant."""
    database = Path(connection.settings_dict["NAME"])
    if not Path(f"{database}.before-mutants").exists():
        return
    for suffix in ("-wal", "-shm"):
        Path(f"{database}{suffix}").unlink(missing_ok=True)
    shutil.copy(f"{database}.before-mutants", database)
