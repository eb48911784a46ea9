"""Firefox with the stage's servers. Victor is signed in at the brand, which remembers his consent."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.firefox.marionette import Firefox, running_firefox, until
from tests.browser.stage import Stage
from tests.machine import missing


@pytest.fixture(scope="session")
def requires_firefox() -> Path:
    """The path of the system's Firefox, Debian's firefox-esr."""
    found = shutil.which("firefox-esr") or shutil.which("firefox")
    return Path(found) if found else missing("Firefox is not installed: journeys in it did not run")


@pytest.fixture(scope="module")
def victor(requires_firefox: Path, stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Firefox]:
    """Victor's Firefox. Each test begins in a new tab."""
    with running_firefox(requires_firefox, tmp_path_factory.mktemp("firefox")) as firefox:
        firefox.open(f"{stage.addresses.brand}/accounts/login/")
        firefox.fill("[name=login]", "victor")
        firefox.fill("[name=password]", stage.demo.customers["victor"])
        firefox.press("Sign in")
        until(lambda: "/login/" not in firefox.address, "the sign-in at the brand")
        yield firefox


@pytest.fixture(autouse=True)
def _a_tab_of_its_own(victor: Firefox) -> None:
    victor.new_tab()
