"""What every test stands on: no network but loopback, named parts that may be missing, a certificate authority."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import databases, network_guard
from tests.machine import missing
from tests.tls import Authority

# Servers that others wrote. The named cast (Acme, Ada, acme-bot; Rival, Rita, rival-bot) is in tests/cast.py.
pytest_plugins = ["tests.cast", "tests.peers.fixtures"]


def pytest_configure() -> None:
    """Make the run's folder before the first worker process starts."""
    databases.make_run_folder()


@pytest.fixture(autouse=True)
def _loopback_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test that talks to another machine, also where the product caught the error and went on."""
    refused: list[str] = []
    network_guard.install(monkeypatch, refused)
    yield
    if refused:
        pytest.fail(f"this test reached for another machine: {', '.join(refused)}")


@pytest.fixture(scope="session")
def requires_chromium() -> Path:
    """Return the system's Chromium, for Playwright's `executable_path`."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    return Path(found) if found else missing("Chromium is not installed: tests in a real browser did not run")


@pytest.fixture(scope="session")
def requires_node() -> Path:
    """Return Node's executable; the packages of `tests/peers` are installed."""
    found = shutil.which("node")
    if not found:
        missing("Node is not installed: tests against oidc-provider did not run")
    if not (Path(__file__).parent / "peers" / "node_modules" / "oidc-provider").is_dir():
        missing("npm packages of tests/peers are not installed: tests against oidc-provider did not run")
    return Path(found)


@pytest.fixture(scope="session")
def tls_authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return a throw-away certificate authority; its `ca_file` is what clients have to trust."""
    return Authority(tmp_path_factory.mktemp("tls"))
