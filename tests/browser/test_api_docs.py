"""`/api/docs` in a real browser: on a phone and a desk, in the light and in the dark, with and without script."""

from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.profiles import Profile
from tests.browser.stage import Stage

pytestmark = [pytest.mark.xdist_group("product_in_browser"), pytest.mark.timeout(180)]


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_nothing_is_wider_than_the_screen_and_the_browser_complains_of_nothing(
    stranger: Profile, width: int, colours: Any
) -> None:
    page = stranger.context.new_page()
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme=colours)
    page.goto(f"{stranger.stage.addresses.product}/api/docs")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    expect(page.get_by_role("heading", level=1)).to_have_text("Consumer Delegation")


def test_a_command_is_copied_as_it_stands(stranger: Profile) -> None:
    stranger.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = stranger.open(f"{stranger.stage.addresses.product}/api/docs")
    command = page.locator("#readToken pre.curl")
    page.locator("#readToken").get_by_role("button", name="Copy").click()
    expect(page.locator("#readToken").get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == command.text_content()


def test_the_page_is_whole_without_script(stage: Stage, chromium: Browser) -> None:
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{stage.addresses.product}/api/docs")
    expect(page.get_by_role("button")).to_have_count(0)
    expect(page.locator("pre.curl").first).to_be_visible()
    page.locator("#readToken .refusals summary").click()
    page.locator("#readToken").get_by_role("link", name="missing_scope").click()
    assert page.url.endswith("#problem-missing_scope")
    context.close()
