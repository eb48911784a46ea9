"""A server's page in a real browser: found, copied, saved, by keyboard alone, with and without script."""

from collections.abc import Iterator
from typing import Any, Final

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.profiles import Profile, profile_of
from tests.browser.stage import Stage

pytestmark = [pytest.mark.xdist_group("product_in_browser"), pytest.mark.timeout(180)]

_FOCUSED: Final = """() => {
    const element = document.activeElement, style = getComputedStyle(element), box = element.getBoundingClientRect()
    const seen = box.width > 0 && box.height > 0 && style.outlineStyle !== 'none'
    return [element.name || element.innerText || element.tagName, seen]
}"""


@pytest.fixture(params=[True, False], ids=["with script", "without script"])
def form(stage: Stage, chromium: Browser, signed_in_admin: Any, request: pytest.FixtureRequest) -> Iterator[Page]:
    """Open the form of a new server."""
    with profile_of(chromium, stage, signed_in_admin, java_script_enabled=request.param) as profile:
        yield new_server(profile, stage)


@pytest.fixture
def scripted(stage: Stage, chromium: Browser, signed_in_admin: Any) -> Iterator[Page]:
    with profile_of(chromium, stage, signed_in_admin) as profile:
        profile.context.grant_permissions(["clipboard-read", "clipboard-write"])
        yield new_server(profile, stage)


def new_server(profile: Profile, stage: Stage) -> Page:
    return profile.open(f"{stage.addresses.product}/admin/brands/authorizationserver/add/")


def test_a_server_is_found_completed_and_saved(form: Page, stage: Stage, request: pytest.FixtureRequest) -> None:
    """H10, C6: the address of the metadata is pasted, and the secret that was typed first is the one that is stored."""
    key = f"found-{'without' in request.node.name}".lower()
    form.get_by_label("Short name").fill(key)
    form.get_by_label("Issuer (your").fill(f"{stage.addresses.brand}/.well-known/openid-configuration")
    form.get_by_label("Client secret").fill(stage.demo.client_secret)
    form.get_by_role("button", name="Discover").press("Enter")
    found = form.get_by_role("region", name="What your server publishes")
    expect(found).to_be_in_viewport()
    expect(found.get_by_role("row", name="Token address")).to_contain_text("Filled in now.")
    expect(form.get_by_label("Short name")).to_have_value(key)
    expect(form.get_by_label("Issuer (your")).to_have_value(stage.addresses.brand)
    form.get_by_label("Client ID:").fill("another-client")
    form.get_by_role("button", name="Save", exact=True).click()
    expect(form.get_by_text("Register this redirect URI")).to_be_visible()
    form.get_by_role("link", name=key, exact=True).click()
    expect(form.get_by_text("A secret is stored.")).to_be_visible()


def test_enter_in_a_field_saves(form: Page) -> None:
    """The bug: Enter presses the first button of a form, which would be Discover."""
    form.get_by_label("Short name").press("Enter")
    expect(form.get_by_text("Please correct the errors below.")).to_be_visible()
    expect(form.locator(".field-client_id .errorlist")).to_be_visible()


def test_the_redirect_uri_is_copied_by_keyboard_and_nothing_jumps(scripted: Page) -> None:
    """It is announced, and it is what the page shows."""
    text = scripted.locator(".field-redirect_uri code")
    button = scripted.get_by_role("button", name="Copy the redirect URI")
    before = [text.bounding_box(), button.bounding_box()]
    button.focus()
    scripted.keyboard.press("Enter")
    expect(scripted.get_by_role("status")).to_have_text("Copied.")
    assert scripted.evaluate("navigator.clipboard.readText()") == text.inner_text()
    assert [text.bounding_box(), button.bounding_box()] == before


def test_where_a_page_may_not_copy_the_text_is_selected(scripted: Page) -> None:
    scripted.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error()) }")
    scripted.get_by_role("button", name="Copy the redirect URI").click()
    expect(scripted.get_by_role("status")).to_contain_text("The text is selected")
    assert scripted.evaluate("getSelection().toString()") == scripted.locator(".field-redirect_uri code").inner_text()


def test_without_script_there_is_no_button_and_one_press_selects_the_text(
    stage: Stage, chromium: Browser, signed_in_admin: Any
) -> None:
    with profile_of(chromium, stage, signed_in_admin, java_script_enabled=False) as profile:
        page = new_server(profile, stage)
        expect(page.get_by_role("button", name="Copy the redirect URI")).to_be_hidden()
        assert (
            page.locator(".field-redirect_uri code").evaluate("element => getComputedStyle(element).userSelect")
            == "all"
        )


def test_the_four_steps_are_walked_by_keyboard_alone(scripted: Page) -> None:
    """WCAG 2.1.1, 2.1.2, 2.4.7: from the first field to Save, in order, each seen, with no trap."""
    scripted.get_by_label("Brand").first.focus()
    reached: list[str] = []
    while "_continue" not in reached and len(reached) < 80:
        name, seen = scripted.evaluate(_FOCUSED)
        assert seen, name
        reached.append(name)
        scripted.keyboard.press("Tab")
    steps = ["key", "issuer", "_discover", "client_id", "client_secret", "token_endpoint_auth_method", "scope", "_save"]
    assert [name for name in reached if name in steps] == steps
