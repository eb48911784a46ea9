"""The one script of the consumer's pages: it copies the code on a press, and closes a window that the chat opened."""

from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.elsewhere import another_site
from tests.browser.profiles import Profile, code_on, heading
from tests.browser.stage import Stage

pytestmark = [pytest.mark.xdist_group("product_in_browser"), pytest.mark.timeout(180)]


def opened_by_script(profile: Profile, url: str) -> Page:
    """Return the window that a page of another site opens, as a chat does."""
    with another_site(profile.stage.certificate) as chat:
        page = profile.open(chat.other_site)
        with page.expect_popup() as opened:
            page.evaluate("url => { window.open(url, 'sign-in', 'width=400,height=640') }", url)
        window = opened.value
        window.get_by_role("button", name="Continue to").click()
        return window


def test_the_code_is_copied_on_a_press_and_it_is_said_once(stage: Stage, victor: Profile) -> None:
    victor.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = victor.follow(stage.bot("completion_code").challenge()["url"])
    code = code_on(page)
    expect(page.get_by_role("status")).to_have_text("")
    page.get_by_role("button", name="Copy code").click()
    expect(page.get_by_role("status")).to_have_text("Copied. Now send it in your chat.")
    assert page.evaluate("navigator.clipboard.readText()") == code


def test_where_it_cannot_be_copied_the_page_says_what_to_do(stage: Stage, victor: Profile) -> None:
    page = victor.follow(stage.bot("completion_code").challenge()["url"])
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('not allowed')) }")
    page.get_by_role("button", name="Copy code").click()
    expect(page.get_by_role("status")).to_have_text("That did not work. Select the digits and copy them.")
    page.locator(".digits").click()
    assert page.evaluate("getSelection().toString()").replace(" ", "") == code_on(page)


def test_a_window_of_the_chats_closes_itself_when_there_is_nothing_left_to_read(stage: Stage, victor: Profile) -> None:
    """Our Cross-Origin-Opener-Policy cuts the tie to the opener; the browser still knows that a script opened it."""
    bot = stage.bot("none")
    window = opened_by_script(victor, bot.challenge()["url"])
    if not window.is_closed():
        window.wait_for_event("close")
    assert stage.customer_of(bot.read_token().body["access_token"]) == "victor"


def test_a_window_with_a_code_stays(stage: Stage, victor: Profile) -> None:
    window = opened_by_script(victor, stage.bot("completion_code").challenge()["url"])
    assert len(code_on(window)) == 6


def test_a_tab_that_is_opened_for_the_undo_stays(stage: Stage, victor: Profile) -> None:
    """A browser would let a script close a tab of a single page, and that is what a restored one is."""
    bot = stage.bot("none")
    challenge = bot.challenge()
    opened_by_script(victor, challenge["url"])
    page = victor.open(f"{challenge['url']}/done")
    heading(page, "You're signed in")
    page.get_by_role("link", name="Keep a receipt").click()
    heading(page, "What Acme's assistant may do for you")
    page.get_by_role("button", name="End it now").click()
    heading(page, "This has ended")
    assert bot.refused_token() == "rechallenge_required"


def test_without_script_there_is_no_button_that_does_nothing(
    stage: Stage, chromium: Browser, signed_in: dict[str, Any]
) -> None:
    context = chromium.new_context(storage_state=signed_in["victor"], java_script_enabled=False)
    page = Profile(context, stage).follow(stage.bot("completion_code").challenge()["url"])
    expect(page.get_by_role("button", name="Copy code")).to_have_count(0)
    expect(page.get_by_role("button", name="Undo")).to_be_visible()
    context.close()
