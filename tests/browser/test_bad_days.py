"""What went wrong for people in their own browsers, in Chromium; tests/browser/firefox has the same in Firefox."""

from typing import Any

import pytest
from playwright.sync_api import Page

from tests.browser.elsewhere import another_site
from tests.browser.profiles import Profile, code_on, heading
from tests.browser.stage import STUBBORN, Bot, Stage

pytestmark = [pytest.mark.xdist_group("product_in_browser"), pytest.mark.timeout(300)]

MANY = 25
HIDE = "document.head.insertAdjacentHTML('beforeend', '<meta name=referrer content=no-referrer>')"


def authorization_requests(profile: Profile) -> set[str]:
    names: list[Any] = [cookie.get("name") for cookie in profile.context.cookies()]
    return {name for name in names if name.startswith("__Host-attempt-")}


def sign_in(stage: Stage, profile: Profile) -> tuple[Bot, str]:
    """Go the whole way of a chat of its own; return its bot, whose token lives on, and the link."""
    bot = stage.bot("completion_code")
    url = str(bot.challenge()["url"])
    page = profile.follow(url)
    assert bot.complete(code=code_on(page)).status == 200
    page.close()
    return bot, url


def test_a_regular_customer_sees_each_code_and_can_undo_the_first(stage: Stage, victor: Profile) -> None:
    """B3: the bug: the 21st came back to "this link no longer works"."""
    signed_in = [sign_in(stage, victor) for _ in range(MANY)]
    assert len(authorization_requests(victor)) == MANY
    first, url = signed_in[0]
    page = victor.open(f"{url}/done")
    page.get_by_role("button", name="Undo").click()
    heading(page, "Undone")
    assert first.refused_token() == "rechallenge_required"
    assert signed_in[1][0].read_token().status == 200


def test_after_tries_in_an_outage_the_sign_in_works_and_their_cookies_are_gone(stage: Stage, victor: Profile) -> None:
    """B3: on three links, since one may be opened 60 times a minute."""
    for _ in range(3):
        url = stage.bot(STUBBORN).challenge()["url"]
        for _ in range(8):
            page = victor.follow(url)
            heading(page, "Acme is not answering right now")
            page.close()
    sign_in(stage, victor)
    assert len(authorization_requests(victor)) == 1


def test_under_no_referrer_every_button_works(stage: Stage, victor: Profile) -> None:
    """B22: as an add-on or a proxy puts it on every page. The bug: `Origin: null` was 403, "allow cookies"."""
    sent: list[dict[str, str]] = []

    def press(page: Page, words: str) -> None:
        page.evaluate(HIDE)
        with page.expect_request(lambda request: request.method == "POST") as pressed:
            page.get_by_role("button", name=words).click()
        page.wait_for_load_state()
        sent.append(pressed.value.all_headers())

    bot = stage.bot("none")
    page = victor.open(bot.challenge()["url"])
    press(page, "Continue to")
    heading(page, "You're signed in")
    press(page, "Undo")
    heading(page, "Undone")
    assert bot.refused_token() == "rechallenge_required"
    page.goto(stage.bot("none").challenge()["url"])
    press(page, "This wasn't me")
    heading(page, "Thank you: this link is now closed")
    seen = {(headers["origin"], headers["sec-fetch-site"], headers.get("referer")) for headers in sent}
    assert seen == {("null", "same-origin", None)}


@pytest.mark.parametrize(
    "after", [".", ")", ">", "\u201d", "\u3002", "%20", "\u00a0", "\u200b", "/", "&utm=1", "_", "\\"]
)
def test_a_damaged_link_leads_on(stage: Stage, stranger: Profile, after: str) -> None:
    """G9: the bug: 404 about a live link."""
    url = stage.bot("none").challenge()["url"]
    page = stranger.open(url + after)
    heading(page, "Sign in to Acme to continue your chat")
    assert page.url == url


@pytest.mark.parametrize("before", ["/en", "/de-DE/x", "/%20", "/\u200b", "/<", "/https:/delegation.test"])
def test_a_link_behind_a_prefix_leads_on(stage: Stage, stranger: Profile, before: str) -> None:
    """G9: the bug: 404, "There is nothing here"."""
    url = stage.bot("none").challenge()["url"]
    page = stranger.open(url.replace("/c/", f"{before}/c/"))
    heading(page, "Sign in to Acme to continue your chat")
    assert page.url == url


def test_an_answer_by_form_post_offers_another_try(stage: Stage, stranger: Profile) -> None:
    """B4, B13: the cookie comes along with the GET that follows. The bug: 403, "allow cookies"."""
    challenge = stage.bot("completion_code").challenge()
    stranger.follow(challenge["url"])
    with another_site(stage.certificate) as brand:
        brand.send_form_to(stranger.callback_with().partition("?")[0], code="planted", state="planted")
        page = stranger.open(brand.other_site)
        page.wait_for_url(f"{challenge['url']}/not-completed*")
        heading(page, "That sign-in did not work")
        page.get_by_role("button", name="Try again").click()
        stranger.sign_in_at_the_brand("victor", page)
    assert code_on(page)


def test_a_doubled_slash_leads_on_too(stage: Stage, stranger: Profile) -> None:
    url = stage.bot("none").challenge()["url"]
    for damaged in (url.replace("/c/", "//c/"), url.replace("/c/", "/c//"), url.replace("/c/", "/C/")):
        page = stranger.open(damaged)
        heading(page, "Sign in to Acme to continue your chat")
        assert page.url == url
