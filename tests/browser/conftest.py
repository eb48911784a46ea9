"""Servers and browser, once for all tests of this folder. Each test gets new profiles."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from demo.preparation import create_admin
from tests.browser.axe import Axe
from tests.browser.profiles import Profile, profile_of, running_chromium
from tests.browser.stage import SUBJECTS, Stage, running_stage
from tests.machine import missing
from tests.tls import Authority


@pytest.fixture(scope="session")
def stage(tls_authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The running product, sample brand and sample chat."""
    with running_stage(tmp_path_factory.mktemp("stage") / "folder", tls_authority) as stage:
        yield stage


@pytest.fixture(scope="session")
def admin_password(stage: Stage) -> str:
    """Create the operator's account `admin`, once for all modules; its password."""
    create_admin(stage.demo.admin_password, stage.demo.product_environment())
    return stage.demo.admin_password


# For one module at a time: while Playwright runs, its process has an event loop, and Django then refuses to use a
# database. A second Playwright cannot start either.
@pytest.fixture(scope="module")
def chromium(requires_chromium: Path, stage: Stage) -> Iterator[Browser]:
    """The system's Chromium. It trusts the stage's certificate, as if its authority were installed."""
    with running_chromium(requires_chromium, stage) as browser:
        yield browser


@pytest.fixture(scope="module")
def signed_in(stage: Stage, chromium: Browser) -> dict[str, Any]:
    """The browser state of the brand's two customers, who are signed in there."""
    remembered: dict[str, Any] = {}
    for name in SUBJECTS:
        with profile_of(chromium, stage) as profile:
            profile.sign_in_at_the_brand(name)
            remembered[name] = profile.context.storage_state()
    return remembered


@pytest.fixture(scope="module")
def signed_in_admin(stage: Stage, chromium: Browser, admin_password: str) -> Any:
    """Return what the browser of the admin remembers."""
    with profile_of(chromium, stage) as profile:
        page = profile.open(f"{stage.addresses.product}/admin/login/")
        page.get_by_label("Username").fill("admin")
        page.get_by_label("Password").fill(admin_password)
        page.get_by_role("button", name="Sign in", exact=True).click()
        page.wait_for_url("**/admin/")
        return profile.context.storage_state()


@pytest.fixture
def mallory(stage: Stage, chromium: Browser, signed_in: dict[str, Any]) -> Iterator[Profile]:
    """Mallory's browser. She is in the chat, asks for the link, and forwards it."""
    with profile_of(chromium, stage, signed_in["mallory"]) as profile:
        yield profile


@pytest.fixture
def victor(stage: Stage, chromium: Browser, signed_in: dict[str, Any]) -> Iterator[Profile]:
    """Victor's browser. He is signed in at the brand, which remembers his consent."""
    with profile_of(chromium, stage, signed_in["victor"]) as profile:
        yield profile


@pytest.fixture
def stranger(stage: Stage, chromium: Browser) -> Iterator[Profile]:
    """A new browser without cookies."""
    with profile_of(chromium, stage) as profile:
        yield profile


@pytest.fixture(scope="session")
def requires_axe() -> Axe:
    """axe-core, one of the npm packages of `tests/peers`."""
    axe = Axe.installed_in(Path(__file__).parent.parent / "peers" / "node_modules")
    return axe or missing("axe-core is not installed: nothing looked for barriers in the pages")
