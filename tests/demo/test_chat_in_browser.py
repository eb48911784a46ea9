"""A person at the sample chat, in a real browser: the cookies, the policies and the pages have to get along in it."""

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Browser, ConsoleMessage, Error, Page, Route, expect, sync_playwright

from demo.preparation import Demo
from demo.sample_chat.bot import ORDERS_WERE_REFUSED

pytestmark = [pytest.mark.xdist_group("demo_in_browser"), pytest.mark.timeout(180)]

# In milliseconds. Playwright's own 5 seconds are too few for a busy machine.
expect.set_options(timeout=30_000)


@pytest.fixture(scope="module")
def browser(requires_chromium: Path) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(requires_chromium), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(params=[(360, 740), (1280, 800)], ids=["phone", "desktop"])
def chat(browser: Browser, demo: Demo, request: pytest.FixtureRequest) -> Iterator[Page]:
    width, height = request.param
    context = browser.new_context(viewport={"width": width, "height": height})
    complaints: list[str] = []
    context.on("console", lambda message: complain(message, complaints))
    page = context.new_page()
    page.goto(demo.addresses.chat)
    yield page
    context.close()
    assert complaints == []


def complain(message: ConsoleMessage, complaints: list[str]) -> None:
    """Note what the browser complains of; that a page has no icon is no mistake."""
    if message.type == "error" and not message.location["url"].endswith("/favicon.ico"):
        complaints.append(message.text)


def ask(chat: Page, words: str) -> None:
    chat.get_by_label("Your message").fill(words)
    chat.keyboard.press("Enter")


def last_message(chat: Page, words: str | re.Pattern[str]) -> None:
    expect(chat.locator("#messages > li").last).to_contain_text(words)


def follow_the_link(chat: Page) -> Page:
    with chat.expect_popup() as opened:
        chat.get_by_role("link", name="Open the sign-in page").last.click()
    opened.value.get_by_role("button", name="Continue").click()
    return opened.value


def sign_in(page: Page, demo: Demo, name: str) -> None:
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password").fill(demo.customers[name])
    page.get_by_role("button", name="Sign in").click()


def completion_code(page: Page) -> str:
    return page.locator("[data-completion-code]").get_attribute("data-completion-code") or ""


def is_within_the_window(page: Page) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


def test_a_person_comes_back_to_the_chat_without_typing_anything(chat: Page, demo: Demo) -> None:
    ask(chat, "Where is my order?")
    last_message(chat, "Open the sign-in page")
    page = follow_the_link(chat)
    sign_in(page, demo, "ada")
    page.get_by_role("button", name="Allow", exact=True).click()
    last_message(chat, "Walking boots")
    expect(page.get_by_role("status")).to_contain_text("You are signed in")
    # The window may be gone before the click on it is answered.
    with page.expect_event("close"), suppress(Error):
        page.get_by_role("button", name="Close this window").click()
    expect(chat.get_by_text("six digits")).to_have_count(0)
    ask(chat, "Tell me a joke")
    last_message(chat, "I only know a few things")


def test_a_link_that_was_followed_in_another_browser_hands_nothing_over(
    chat: Page, browser: Browser, demo: Demo
) -> None:
    """A11: Rita follows a link out of Ada's chat; her browser has no chat of its own to pass the handle to."""
    ask(chat, "Where is my order?")
    link = chat.get_by_role("link", name="Open the sign-in page")
    context = browser.new_context()
    ritas = context.new_page()
    ritas.goto(link.get_attribute("href") or "")
    ritas.get_by_role("button", name="Continue").click()
    sign_in(ritas, demo, "rita")
    ritas.get_by_role("button", name="Allow", exact=True).click()
    expect(ritas.get_by_role("status")).to_contain_text("No chat of this browser")
    assert ritas.url == f"{demo.addresses.chat}/back"
    context.close()


def test_a_link_of_another_chat_ends_that_sign_in(chat: Page, browser: Browser, demo: Demo) -> None:
    """A11: Rita has a chat herself, so her browser hands the handle to it; it belongs to Ada's conversation."""
    ask(chat, "Where is my order?")
    link = chat.get_by_role("link", name="Open the sign-in page").get_attribute("href")
    context = browser.new_context()
    ritas = context.new_page()
    ritas.goto(demo.addresses.chat)
    ask(ritas, "Where is my order?")
    last_message(ritas, "Open the sign-in page")
    page = follow_the_link(ritas)
    page.goto(link or "")
    page.get_by_role("button", name="Continue").click()
    sign_in(page, demo, "rita")
    page.get_by_role("button", name="Allow", exact=True).click()
    last_message(ritas, "a link of another chat")
    last_message(chat, "could not be tied to this chat")
    context.close()


def test_a_person_gets_their_orders_by_a_code_and_says_goodbye(chat: Page, demo: Demo) -> None:
    chat.get_by_role("link", name="with a code").click()
    chat.get_by_role("button", name="Where is my order?").click()
    page = follow_the_link(chat)
    expect(page.get_by_label("Username")).to_be_visible()
    assert is_within_the_window(page)
    sign_in(page, demo, "ada")
    expect(page.get_by_role("button", name="Allow", exact=True)).to_be_visible()
    assert is_within_the_window(page)
    page.get_by_role("button", name="Allow", exact=True).click()
    last_message(chat, "please type them here")
    ask(chat, completion_code(page))
    last_message(chat, "Walking boots")
    assert is_within_the_window(chat)

    page.goto(demo.addresses.brand)
    page.get_by_role("button", name="Take that back").click()
    ask(chat, "Where is my order?")
    last_message(chat, "Open the sign-in page")
    expect(chat.get_by_text(ORDERS_WERE_REFUSED)).to_be_visible()

    ask(chat, "bye")
    last_message(chat, "Your receipt")
    expect(chat.get_by_label("Your message")).to_be_disabled()


def test_a_person_who_does_not_allow_it_is_told_so_in_the_chat(chat: Page, demo: Demo) -> None:
    ask(chat, "Where is my order?")
    last_message(chat, "Open the sign-in page")
    page = follow_the_link(chat)
    sign_in(page, demo, "rita")
    page.get_by_role("button", name="Don't allow").click()
    last_message(chat, "You are not signed in")


def test_a_reload_keeps_the_chat_and_another_tab_has_its_own(chat: Page, demo: Demo) -> None:
    ask(chat, "Tell me a joke")
    last_message(chat, "I only know a few things")
    chat.reload()
    last_message(chat, "I only know a few things")
    other = chat.context.new_page()
    other.goto(demo.addresses.chat)
    last_message(other, "Hello")


def test_a_chat_that_was_forgotten_begins_anew_and_its_open_page_learns_that_it_is_gone(demo: Demo) -> None:
    page, news = (requests.get(f"{demo.addresses.chat}/chat/forgotten{rest}", timeout=60) for rest in ("", "/news"))
    assert [answer.status_code for answer in page.history] == [302, 302]
    assert (page.status_code, "Hello, I am Acme" in page.text) == (200, True)
    assert (news.status_code, news.text) == (410, "")


def test_without_script_the_chat_works_by_forms(browser: Browser, demo: Demo) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(demo.addresses.chat)
    page.get_by_role("button", name="Where is my order?").click()
    expect(page.get_by_role("link", name="Open the sign-in page")).to_be_visible()
    context.close()


def test_a_message_that_was_not_sent_stays_with_the_reason(browser: Browser, demo: Demo) -> None:
    """The bug: WebKit keeps no Secure cookie over http; it said "No connection" for two seconds, of a 403."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(demo.addresses.chat)
    context.clear_cookies()
    ask(page, "Where is my order?")
    expect(page.get_by_role("alert")).to_contain_text("your browser did not keep this page's cookie")
    with page.expect_response(re.compile("/news")) as news:
        pass
    assert news.value.ok
    expect(page.get_by_role("alert")).to_contain_text("make demo ARGS=--tls")
    expect(page.get_by_label("Your message")).to_have_value("Where is my order?")
    expect(page.locator("#connection")).to_have_text("")
    page.get_by_role("button", name="Sign me out").click()
    expect(page.get_by_label("Your message")).to_have_value("Sign me out")
    context.close()


def test_without_script_a_message_that_was_not_sent_is_shown_with_the_reason(browser: Browser, demo: Demo) -> None:
    """The bug: "CSRF verification failed. Request aborted", and the message was gone."""
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(demo.addresses.chat)
    chat = page.url
    context.clear_cookies()
    ask(page, "Where is <my> order?")
    expect(page.get_by_role("alert")).to_contain_text("make demo ARGS=--tls")
    expect(page.locator("blockquote")).to_have_text("Where is <my> order?")
    page.get_by_role("link", name="Back to the chat").click()
    assert page.url == chat
    context.close()


@pytest.mark.parametrize(
    ("trouble", "said"), [("abort", "the chat cannot be reached"), ("503", "the chat answered with an error (503)")]
)
def test_a_message_that_met_trouble_can_be_sent_again(browser: Browser, demo: Demo, trouble: str, said: str) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(demo.addresses.chat)

    def fail(route: Route) -> None:
        if route.request.method != "POST":
            route.continue_()
        elif trouble == "abort":
            route.abort()
        else:
            route.fulfill(status=int(trouble))

    page.route("**/chat/*", fail)
    ask(page, "Tell me a joke")
    expect(page.get_by_role("alert")).to_contain_text(said)
    page.unroute("**/chat/*")
    page.get_by_role("button", name="Send").click()
    last_message(page, "I only know a few things")
    expect(page.locator("#unsent")).to_have_text("")
    expect(page.get_by_label("Your message")).to_have_value("")
    context.close()
