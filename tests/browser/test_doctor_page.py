"""The doctor's page in a real browser: from the list to the findings, in each look, by keyboard, and without script."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.axe import Axe
from tests.browser.pictures import LOOKS, keep_looks, show_as
from tests.browser.profiles import Profile, profile_of
from tests.browser.stage import NAMED, STUBBORN, Stage

pytestmark = [pytest.mark.xdist_group("product_in_browser"), pytest.mark.timeout(180)]

# allauth looks at the redirect URI only after somebody has signed in.
AT_ALLAUTH = ["iss_not_asked_for", "keys_found", "client_accepted", "redirect_uri_not_proven"]

# The admin has no icon for the browser's tab.
NO_ICON = {404}


@pytest.fixture(params=[True, False], ids=["with script", "without script"])
def admin(stage: Stage, chromium: Browser, signed_in_admin: Any, request: pytest.FixtureRequest) -> Iterator[Profile]:
    with profile_of(chromium, stage, signed_in_admin, java_script_enabled=request.param) as profile:
        profile.expected = NO_ICON
        yield profile


def opened(profile: Profile, stage: Stage, server: str) -> Page:
    """Go from the list to the server's page, and from there to the doctor's."""
    page = profile.open(f"{stage.addresses.product}/admin/brands/authorizationserver/")
    page.get_by_role("link", name=server, exact=True).click()
    page.get_by_role("link", name="Check the set-up").click()
    return page


def examined(page: Page) -> list[str]:
    """Press the button; return the codes of the findings."""
    page.get_by_role("button", name="Check").press("Enter")
    expect(page.locator(".summary")).to_be_visible()
    return page.locator(".steps .step > p:first-child > code").all_inner_texts()


def test_an_admin_finds_out_what_is_wrong_and_gets_to_the_field(admin: Profile, stage: Stage) -> None:
    page = opened(admin, stage, "completion-code")
    assert examined(page) == AT_ALLAUTH
    page.get_by_role("link", name="Sends iss in responses (RFC 9207)").click()
    expect(page).to_have_url(f"{page.url.partition('#')[0]}#id_authorization_response_iss_parameter_supported")
    expect(page.locator("#id_authorization_response_iss_parameter_supported")).to_be_in_viewport()


@pytest.mark.parametrize("server", ["completion-code", STUBBORN, NAMED])
def test_nothing_on_the_page_is_a_barrier_in_any_look(
    server: str, stage: Stage, chromium: Browser, signed_in_admin: Any, requires_axe: Axe
) -> None:
    """Phone and desktop, light and dark: axe finds nothing, and nothing is wider than a phone."""
    with profile_of(chromium, stage, signed_in_admin) as profile:
        profile.expected = NO_ICON
        page = opened(profile, stage, server)
        assert barriers(page, requires_axe) == {}
        keep_looks(page, f"doctor-start-{server}")
        assert examined(page)
        keep_looks(page, f"doctor-{server}")
        assert barriers(page, requires_axe) == {}
        show_as(page, LOOKS[0])
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def barriers(page: Page, axe: Axe) -> dict[str, list[str]]:
    """Return what axe finds in each look. The list of models beside the page is Django's."""
    tall = [replace(look, height=4000) for look in LOOKS]  # axe cannot judge what is cut off at the edge
    found = axe.findings(page, tall, without="#nav-sidebar")
    return {look: findings for look, findings in found.items() if findings}
