"""Rules of the house that no linter knows: sizes, layers inside Django, what a clean clone must not hold."""

import ast
import importlib.metadata
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from django.core.management import call_command

ROOT: Final = Path(__file__).parent.parent
PRODUCT: Final = ("delegation_site", "infrastructure", "web", "accounts", "oauth_client", "brands", "conversations")
MOST_LINES_OF_A_MODULE: Final = 400
MOST_LINES_OF_A_FUNCTION: Final = 50

# Paths that exist on one machine only, and addresses from which one machine gets its packages.
FOREIGN: Final = re.compile(r"(?<![\w.~-])/(?:home|root|Users|work|mnt)/|index-url|\bregistry *=|\"resolved\":")

PRODUCTION: Final = {
    "SECRET_KEY": "production-shaped-2xJ9vQm4WZr7sLtKpYdNbEcHfUgAoRiT5qMhVyXw",
    "ENCRYPTION_KEYS": "key-1:3hSxq0CkB7dT9rYwVbN2mZ5fJ8gLpQeRtUiOaXcKvMs=",
    "DATABASE_URL": "postgres://delegation:password@database.example/delegation",
    "PUBLIC_BASE_URL": "https://delegation.example",
    "ALLOWED_HOSTS": "delegation.example",
    "TRUSTED_PROXY_COUNT": "1",
}


def project_files(*patterns: str) -> list[Path]:
    """Return what a clone would hold, files that are not committed yet included."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    return sorted(ROOT / name for name in set(names) if (ROOT / name).is_file())


def modules(*folders: str) -> list[Path]:
    found = [path for path in project_files("*.py") if "migrations" not in path.parts]
    return [path for path in found if not folders or path.relative_to(ROOT).parts[0] in folders]


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_no_module_is_too_long() -> None:
    sizes = {named(path): path.read_text().count("\n") for path in modules()}
    assert {name: lines for name, lines in sizes.items() if lines > MOST_LINES_OF_A_MODULE} == {}


def test_no_function_is_too_long() -> None:
    sizes = {
        f"{named(path)}:{function.name}": (function.end_lineno or function.lineno) - function.lineno + 1
        for path in modules()
        for function in functions(path)
    }
    assert {name: lines for name, lines in sizes.items() if lines > MOST_LINES_OF_A_FUNCTION} == {}


def test_models_know_nothing_of_requests_and_pages() -> None:
    models = [path for path in modules(*PRODUCT) if path.stem == "models" or path.parent.name == "models"]
    assert models
    assert [named(path) for path in models if any(name.startswith("django.http") for name in imported(path))] == []


def test_logic_is_in_no_signal_and_no_save() -> None:
    signals = [named(path) for path in modules(*PRODUCT) if any("signals" in name for name in imported(path))]
    saves = [
        named(path)
        for path in modules(*PRODUCT)
        if path.stem == "models" or path.parent.name == "models"
        for function in functions(path)
        if function.name == "save"
    ]
    assert (signals, saves) == ([], [])


def test_every_module_has_a_subject() -> None:
    assert [named(path) for path in modules() if path.stem in {"utils", "helpers", "misc", "common"}] == []


def test_no_file_names_a_machine_or_where_it_gets_its_packages() -> None:
    found = []
    for path in project_files():
        text = path.read_bytes().decode(errors="ignore")
        found += [f"{named(path)}: {match.group()}" for match in FOREIGN.finditer(text) if path != Path(__file__)]
    assert found == []


def test_requirements_are_exact_versions() -> None:
    lines = [
        line.split("#")[0].strip()
        for path in [*ROOT.glob("requirements*.txt"), ROOT / "constraints.txt", *ROOT.glob("[!.]*/requirements.txt")]
        for line in path.read_text().splitlines()
    ]
    exact = re.compile(r"-r requirements(-demo|-kms|-pkcs11)?\.txt|[\w.\[\]-]+==[\w.]+")
    loose = [line for line in lines if line and not exact.fullmatch(line)]
    assert loose == []


def test_whatever_the_demo_imports_is_installed_for_it() -> None:
    """The bug: `make demo` ended in a traceback on a clean clone; the package came with the tools for tests alone."""
    named = {name for path in modules(*PRODUCT, "demo") for name in imported(path)}
    ours = {path.name.removesuffix(".py") for path in ROOT.iterdir()} | set(sys.stdlib_module_names)
    distributions = importlib.metadata.packages_distributions()
    needed = {distributions[name][0].lower() for name in {name.partition(".")[0] for name in named} - ours}
    files = ("requirements-demo.txt", "requirements-kms.txt", "requirements-pkcs11.txt")
    assert needed - set().union(*(_with_requirements(ROOT / name) for name in files)) == set()


def _with_requirements(path: Path) -> set[str]:
    """Return the names of the packages in a requirements file, and of those that they bring along."""
    lines = [line.split("#")[0].strip() for line in path.read_text().splitlines()]
    found: set[str] = set()
    new = {re.split(r"[\[=]", line)[0].lower() for line in lines if line and not line.startswith("-r ")}
    while new:
        found |= new
        brought = [requirement for name in new for requirement in importlib.metadata.requires(name) or ()]
        new = {re.split(r"[^\w.-]", line)[0].lower() for line in brought if "extra ==" not in line} - found
        new = {name for name in new if _is_installed(name)}
    included = [line.removeprefix("-r ") for line in lines if line.startswith("-r ")]
    return found.union(*(_with_requirements(path.parent / name) for name in included))


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def test_settings_are_in_the_operators_page_and_in_the_example() -> None:
    read = set(re.findall(r"env\.\w+\(\s*\"([A-Z_]+)\"", (ROOT / "delegation_site" / "settings.py").read_text()))
    page = set(re.findall(r"`([A-Z][A-Z_]+)`", (ROOT / "docs" / "operator.md").read_text()))
    example = set(re.findall(r"^#? ?([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert read
    assert (read - page, read ^ example) == (set(), set())


@pytest.mark.django_db
def test_migrations_are_complete() -> None:
    call_command("makemigrations", "--check", "--dry-run", verbosity=1)


def test_a_production_shaped_installation_passes_the_deployment_check() -> None:
    outside = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG"}}
    result = subprocess.run(
        [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"],
        cwd=ROOT,
        env=outside | PRODUCTION,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
