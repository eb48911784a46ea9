"""The one script of the consumer's pages: on a press it copies the code, or closes the window."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from playwright.sync_api import Browser, Error, Page, expect

from tests.browser.elsewhere import another_site
from tests.browser.profiles import Profile, code_on, heading
from tests.browser.stage import SUBJECTS, Stage

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


def opened_by_a_link(profile: Profile, url: str) -> Page:
    """Return the tab that a plain link of another site opens."""
    with another_site(profile.stage.certificate) as chat:
        chat.link_to(url)
        page = profile.open(chat.other_site)
        with page.expect_popup() as opened:
            page.get_by_role("link", name="Sign in").click()
        window = opened.value
        window.get_by_role("button", name="Continue to").click()
        return window


@pytest.mark.parametrize("opened", [opened_by_script, opened_by_a_link])
@pytest.mark.parametrize("check", ["none", "expected_subject"])
def test_a_sign_in_without_a_code_ends_on_a_page_that_stays(
    stage: Stage, victor: Profile, check: str, opened: Callable[[Profile, str], Page]
) -> None:
    """A9: the bug: the tab closed itself at once, so receipt and undo were never seen. It closes at a press."""
    bot = stage.bot(check)
    wishes = {"expected_subject": SUBJECTS["victor"]} if check == "expected_subject" else {}
    window = opened(victor, bot.challenge(**wishes)["url"])
    heading(window, "You're signed in")
    window.wait_for_load_state("networkidle")
    expect(window.get_by_role("link", name="Keep a receipt")).to_be_visible()
    expect(window.get_by_role("button", name="Undo")).to_be_visible()
    assert stage.customer_of(bot.read_token().body["access_token"]) == "victor"
    # The window may be gone before the click on it is answered.
    with window.expect_event("close"), suppress(Error):
        window.get_by_role("button", name="Close this window").click()


def test_where_the_browser_leaves_the_window_open_the_page_says_so(stage: Stage, victor: Profile) -> None:
    """Chromium closes no tab that a person has opened by hand, and in which other pages were before."""
    page = victor.follow(stage.bot("none").challenge()["url"])
    expect(page.get_by_role("status")).to_have_text("")
    page.get_by_role("button", name="Close this window").click()
    expect(page.get_by_role("status")).to_have_text(
        "Your browser leaves this window open. Close it as you close any other."
    )
    heading(page, "You're signed in")


def test_a_window_with_a_code_stays(stage: Stage, victor: Profile) -> None:
    window = opened_by_script(victor, stage.bot("completion_code").challenge()["url"])
    assert len(code_on(window)) == 6


def test_a_chat_cannot_see_whether_its_window_is_open(stage: Stage, victor: Profile) -> None:
    """B17: what docs/bot-developer.md says of `opened.closed`."""
    with another_site(stage.certificate) as chat:
        page = victor.open(chat.other_site)
        url = stage.bot("none").challenge()["url"]
        with page.expect_popup() as opened:
            page.evaluate("url => { window.opened = window.open(url) }", url)
        heading(opened.value, "Sign in to Acme to continue your chat")
        assert page.evaluate("window.opened.closed") is True
        assert opened.value.evaluate("window.opener") is None


def test_without_script_there_is_no_button_that_does_nothing(
    stage: Stage, chromium: Browser, signed_in: dict[str, Any]
) -> None:
    context = chromium.new_context(storage_state=signed_in["victor"], java_script_enabled=False)
    page = Profile(context, stage).follow(stage.bot("completion_code").challenge()["url"])
    expect(page.get_by_role("button", name="Copy code")).to_have_count(0)
    expect(page.get_by_role("button", name="Undo")).to_be_visible()
    context.close()
