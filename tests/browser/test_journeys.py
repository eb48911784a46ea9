"""Whole journeys as people and their browsers make them: by keyboard, back and forth, restored, previewed, throttled.

Each profile fails its test for any console error, violation of our Content-Security-Policy, or failed request.
"""

from typing import Any, Final
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.profiles import Profile, code_on, heading, profile_of
from tests.browser.stage import Stage

pytestmark = [pytest.mark.xdist_group("product_in_browser"), pytest.mark.timeout(180)]

# What some chat platforms call themselves when they look at a link for its preview, before anybody has opened it.
PREVIEWS: Final = (
    "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)",
    "WhatsApp/2.24.1.78 A",
    "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
    "TelegramBot (like TwitterBot)",
)
_FOCUSED: Final = "() => { const at = document.activeElement; return at.name || at.innerText || at.tagName }"


def tab_to(page: Page, words: str) -> list[str]:
    """Press Tab until the focus is on what bears these words; return everything that had it."""
    passed: list[str] = []
    while words not in (passed or [""])[-1]:
        page.keyboard.press("Tab")
        passed.append(page.evaluate(_FOCUSED))
        assert len(passed) < 12, passed
    return passed


def previewed(profile: Profile, url: str) -> set[int]:
    """Ask for a link as each platform does; return the statuses that they saw."""
    fetch = profile.context.request.fetch
    calls = [(method, {"User-Agent": name}) for method in ("GET", "HEAD") for name in PREVIEWS]
    return {fetch(url, method=method, headers=headers).status for method, headers in calls}


@pytest.mark.parametrize("begun", [True, False])
def test_an_answer_in_the_fragment_does_not_stay_in_the_address_bar(
    stage: Stage, stranger: Profile, begun: bool
) -> None:
    """B13, B15: browsers take a fragment along to where they are redirected. No server can see it."""
    challenge = stage.bot("completion_code").challenge()
    stranger.follow(challenge["url"])
    callback = stranger.callback_with().partition("?")[0]
    if not begun:
        stranger.context.clear_cookies()
        stranger.expected = {404}
    page = stranger.open(f"{callback}#access_token=planted&state=planted")
    heading(page, "That sign-in did not work" if begun else "This link no longer works")
    assert "planted" not in page.url
    assert "planted" not in page.evaluate("location.href")


def test_with_the_keyboard_alone(stage: Stage, stranger: Profile) -> None:
    """WCAG 2.1.1, 2.4.3: link, password, code, and undo; no page takes the focus away or keeps it."""
    bot = stage.bot("completion_code")
    page = stranger.open(bot.challenge()["url"])
    assert len(tab_to(page, "Continue to")) == 1
    assert tab_to(page, "This wasn't me") == ["This wasn't me"]
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    page.get_by_label("Username").wait_for()
    if page.evaluate(_FOCUSED) != "login":
        tab_to(page, "login")
    page.keyboard.type("victor")
    tab_to(page, "password")
    page.keyboard.type(stage.demo.customers["victor"])
    page.keyboard.press("Enter")

    code = code_on(page)
    tab_to(page, "Undo")
    assert bot.complete(code=code).status == 200
    page.keyboard.press("Enter")
    expect(page.locator("form[action$='/undo']")).to_have_count(0)
    assert bot.refused_token() == "rechallenge_required"


def test_back_from_the_brands_page_and_on_again(stage: Stage, stranger: Profile) -> None:
    """B11, B12: whoever hesitates sees the same link page again, and every way on from there works."""
    bot = stage.bot("completion_code")
    challenge = bot.challenge()
    page = stranger.follow(challenge["url"])
    page.go_back()
    assert page.url == challenge["url"]
    page.go_forward()
    page.get_by_label("Username").wait_for()
    page.go_back()
    page.locator("main form button").first.click()
    stranger.sign_in_at_the_brand("victor", page)
    code = code_on(page)
    page.reload()
    assert code_on(page) == code
    assert bot.complete(code=code).status == 200
    assert stage.customer_of(bot.read_token().body["access_token"]) == "victor"


def test_a_tab_that_is_closed_and_restored(stage: Stage, victor: Profile) -> None:
    """The code is derived, not remembered: the same browser reads it again, by either address, in any tab."""
    bot = stage.bot("completion_code")
    challenge = bot.challenge()
    page = victor.follow(challenge["url"])
    code, restored = code_on(page), page.url
    page.close()
    assert code_on(victor.open(restored)) == code
    assert code_on(victor.open(challenge["url"])) == code
    assert bot.complete(code=code).status == 200


def test_a_browser_that_is_closed_and_opened_again(
    stage: Stage, chromium: Browser, signed_in: dict[str, Any], victor: Profile
) -> None:
    """B3: the authorization request's cookie is no session cookie, since phones end browsers in the background."""
    bot = stage.bot("completion_code")
    page = victor.follow(bot.challenge()["url"])
    code = code_on(page)
    cookies = victor.context.storage_state()
    assert all(cookie["expires"] > 0 for cookie in cookies["cookies"] if cookie["name"].startswith("__Host-attempt"))
    with profile_of(chromium, stage, cookies) as later:
        assert code_on(later.open(page.url)) == code


def test_previews_between_the_steps_change_nothing(stage: Stage, stranger: Profile, victor: Profile) -> None:
    """B6, B8: a chat looks at its links again whenever somebody scrolls by; that costs nothing and changes nothing."""
    bot = stage.bot("completion_code")
    challenge = bot.challenge()
    assert previewed(stranger, challenge["url"]) == {200}
    assert bot.read_challenge(challenge)["status"] == "issued"
    page = victor.open(challenge["url"])
    assert previewed(stranger, challenge["url"]) == {200}
    page.locator("main form button").first.click()
    code = code_on(page)
    assert previewed(stranger, challenge["url"]) == {404}
    page.reload()
    assert bot.complete(code=code_on(page)).status == 200
    assert previewed(stranger, challenge["url"]) == {404}
    assert code not in page.reload().text()  # type: ignore[union-attr]  # a reload has an answer
    assert stage.customer_of(bot.read_token().body["access_token"]) == "victor"


def test_without_script_from_the_link_to_the_undo(stage: Stage, chromium: Browser, signed_in: dict[str, Any]) -> None:
    """B7: in-app browsers, readers and the careful; without cookies of third parties too, since we set none."""
    bot = stage.bot("completion_code")
    with profile_of(chromium, stage, signed_in["victor"], java_script_enabled=False) as profile:
        page = profile.follow(bot.challenge()["url"])
        assert bot.complete(code=code_on(page)).status == 200
        page.reload()
        page.locator("a[href*='/r/']").click()
        page.locator("main form button").click()
        page.wait_for_load_state()
        assert bot.refused_token() == "rechallenge_required"
        hosts = {urlsplit(address).netloc for address in profile.addresses}
        ours = {urlsplit(address).netloc for address in (stage.addresses.product, stage.addresses.brand)}
        assert hosts == ours


def test_a_form_leads_on_to_the_brand_though_the_policy_is_strict(stage: Stage, victor: Profile) -> None:
    """B18: Chromium applies `form-action` to the redirects of a submission; with one, the button would do nothing."""
    page = victor.open(stage.bot("completion_code").challenge()["url"])
    with page.expect_response(lambda answer: answer.request.method == "POST") as begun:
        page.locator("main form button").first.click()
    assert begun.value.status == 303
    policy = begun.value.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "form-action" not in policy
    assert code_on(page)


def test_a_screen_reader_hears_the_page_in_order_and_the_code_digit_by_digit(stage: Stage, victor: Profile) -> None:
    """WCAG 1.3.2, 4.1.3: whose page, what it is about, the digits one by one, what can be done; then changes."""
    page = victor.follow(stage.bot("completion_code").challenge()["url"])
    code = code_on(page)
    heard = page.locator("main").aria_snapshot()
    said = [" ".join(code[:3]) + ", " + " ".join(code[3:]), "heading", "button"]
    assert code not in heard
    assert f"{code[:3]} {code[3:]}" not in heard
    assert heard.index("Acme") < heard.index(said[1]) < heard.index(said[0]) < heard.index(said[2])
    expect(page.get_by_role("status")).to_have_count(1)
