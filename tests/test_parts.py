"""Which run has a test is told from what it uses: here from tests that are made up for it."""

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest

from tests import parts


@dataclass
class Item:
    """As much of a collected test as decides."""

    path: Any
    module: ModuleType
    fixturenames: list[str] = field(default_factory=list)
    marks: list[str] = field(default_factory=list)
    group: str = ""

    @property
    def function(self) -> FunctionType | None:
        return vars(self.module).get("test_it")

    def get_closest_marker(self, name: str) -> Any:
        if name == "xdist_group" and self.group:
            return pytest.mark.xdist_group(self.group).mark
        return getattr(pytest.mark, name).mark if name in self.marks else None


def made(monkeypatch: pytest.MonkeyPatch, name: str, source: str = "", **more: Any) -> Any:
    """Return a test of a made-up module."""
    module = ModuleType(f"tests.{name.removesuffix('.py').replace('/', '.')}")
    exec(compile(source, name, "exec"), vars(module))  # noqa: S102  # the tests' own few lines
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return Item(parts.TESTS / name, module, **more)


@pytest.mark.parametrize(
    ("name", "source", "more", "part"),
    [
        ("site/test_a1.py", "import json", {}, "test"),
        ("demo/test_a2.py", "", {}, "served"),
        ("site/test_a3.py", "", {"fixturenames": ["sample_brand"]}, "served"),
        ("site/test_a4.py", "from tests.served import serving", {}, "served"),
        ("site/test_a5.py", "from tests.demo.stage import Stage", {}, "served"),
        ("site/test_a6.py", "from tests.installation import Installation", {}, "test"),
        ("site/test_a7.py", "from tests.installation import Installation\ndef test_it(): Installation", {}, "served"),
        ("peers/test_oidc_provider.py", "", {}, "served"),
        ("peers/test_a8.py", "", {}, "full"),
        ("peers/jupyterhub/test_a9.py", "", {}, "full"),
        ("browser/test_looks.py", "", {"fixturenames": ["requires_chromium"]}, "full"),
        ("browser/firefox/test_a10.py", "", {"fixturenames": ["requires_chromium"]}, "full"),
        ("site/test_a11.py", "", {"marks": ["full"]}, "full"),
    ],
)
def test_each_test_is_in_one_run(
    monkeypatch: pytest.MonkeyPatch, name: str, source: str, more: dict[str, Any], part: str
) -> None:
    assert parts.part_of(made(monkeypatch, name, source, **more)) == part


@pytest.mark.parametrize(
    ("name", "source", "more", "touches"),
    [
        ("site/test_b1.py", "import json", {}, False),
        ("site/test_b2.py", "", {"marks": ["django_db"]}, True),
        ("site/test_b3.py", "", {"fixturenames": ["db"]}, True),
        ("site/test_b4.py", "from django.db import connection", {}, True),
        ("site/test_b5.py", "from tests import databases", {}, True),
        ("site/test_b6.py", "from tests.served import serving", {}, True),
    ],
)
def test_what_touches_no_database_is_known(
    monkeypatch: pytest.MonkeyPatch, name: str, source: str, more: dict[str, Any], touches: bool
) -> None:
    assert parts.touches_a_database(made(monkeypatch, name, source, **more)) is touches


def test_groups_that_wait_are_spread_among_those_that_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest first, or two processes would be left with nothing but servers at the end."""
    small, large = (made(monkeypatch, f"site/test_c{name}.py") for name in "12")
    server = made(monkeypatch, "demo/test_c3.py")
    shared, also_shared = (made(monkeypatch, f"docs/test_c{name}.py", group="demo") for name in "45")
    mixed = parts.spread([small, *[large] * 3, server, shared, also_shared])
    assert mixed == [shared, also_shared, *[large] * 3, server, small]


def test_the_tests_of_a_group_share_a_process(tmp_path: Path) -> None:
    """The bug: pytest 9.2 reads node ids elsewhere than pytest-xdist 3.8 writes the group. Tests shared no server.

    Nothing said so: most tests passed, more slowly.
    """
    (tmp_path / "test_group.py").write_text(
        "import os, pytest\n"
        "@pytest.mark.xdist_group('servers')\n"
        "@pytest.mark.parametrize('number', range(6))\n"
        f"def test_it(number): open({str(tmp_path)!r} + '/' + os.environ['PYTEST_XDIST_WORKER'], 'a').write('.')\n"
    )
    run = [sys.executable, "-m", "pytest", "-q", "-c/dev/null", "-pno:django", "-n2", "--dist=loadgroup", str(tmp_path)]
    subprocess.run(run, cwd=tmp_path, check=True, capture_output=True)
    assert [path.read_text() for path in tmp_path.glob("gw*")] == ["......"]
