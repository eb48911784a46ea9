"""The consumer's pages in a real browser: cookies, policies, repeats, scanners, and forms of other sites.

Each profile fails its test for any console error, violation of our Content-Security-Policy, or failed request.
"""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.elsewhere import Elsewhere, another_site
from tests.browser.profiles import Profile, code_on, heading
from tests.browser.stage import Stage

pytestmark = [pytest.mark.xdist_group("product_in_browser"), pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def elsewhere(stage: Stage) -> Iterator[Elsewhere]:
    with another_site(stage.certificate) as site:
        yield site


def cookies_of(profile: Profile) -> dict[str, dict[str, Any]]:
    """Return what our pages have set in a profile, by name."""
    cookies = profile.context.cookies(profile.stage.addresses.product)
    return {cookie["name"]: dict(cookie) for cookie in cookies}


def test_the_button_the_cookies_the_code_and_undo(stage: Stage, victor: Profile) -> None:
    """B18, B3, B4, A9: a whole sign-in under our own policies, and taken back by the person who gave it."""
    bot = stage.bot("completion_code")
    challenge = bot.challenge(purpose="to look up your order")
    page = victor.follow(challenge["url"])
    code = code_on(page)
    assert page.url == f"{challenge['url']}/done"
    assert "/callback/" not in page.evaluate("document.referrer")

    cookies = cookies_of(victor)
    assert [re.sub(r"[0-9a-f]{32}", "…", name) for name in sorted(cookies)] == ["__Host-attempt-…", "__Host-csrf"]
    for cookie in cookies.values():
        assert (cookie["domain"], cookie["path"]) == ("localhost", "/")
        assert (cookie["secure"], cookie["httpOnly"], cookie["sameSite"]) == (True, True, "Lax")

    assert bot.complete(code=code).status == 200
    assert stage.customer_of(bot.read_token().body["access_token"]) == "victor"
    page.reload()
    heading(page, "You're signed in")
    page.get_by_role("button", name="Undo").click()
    heading(page, "Undone")
    assert bot.refused_token() == "rechallenge_required"


def test_back_forward_and_reload_show_the_same_code(stage: Stage, victor: Profile) -> None:
    """B11, B15: and nothing in the history leads to our callback."""
    bot = stage.bot("completion_code")
    challenge = bot.challenge()
    page = victor.follow(challenge["url"])
    code = code_on(page)
    page.go_back()
    assert code_on(page) == code
    assert page.url == f"{challenge['url']}/done"
    page.go_forward()
    assert code_on(page) == code
    page.reload()
    assert code_on(page) == code
    page.goto(victor.callback_url())
    assert code_on(page) == code
    assert bot.complete(code=code).status == 200
    page.go_back()
    heading(page, "You're signed in")


def test_two_tabs_end_at_one_code(stage: Stage, stranger: Profile) -> None:
    """B12: start A, start B, finish A, finish B: no tab overwrites the other, and one exchange is made."""
    bot = stage.bot("completion_code")
    challenge = bot.challenge()
    first, second = stranger.follow(challenge["url"]), stranger.follow(challenge["url"])
    stranger.sign_in_at_the_brand("victor", first)
    code = code_on(first)
    second.reload()  # the brand sees that he is signed in by now, and sends this tab back as well
    second.wait_for_url(f"{challenge['url']}/done")
    assert code_on(second) == code
    callbacks = [address for address in stranger.addresses if "/callback/" in address]
    assert len(set(callbacks)) == 2
    assert bot.complete(code=code).status == 200
    assert stage.customer_of(bot.read_token().body["access_token"]) == "victor"


def test_a_scanner_that_runs_scripts_and_posts_forms_spends_nothing(
    stage: Stage, stranger: Profile, victor: Profile
) -> None:
    """B6, B7, B8: more posts than rows are kept; left alone, the page does nothing by itself for an hour."""
    bot = stage.bot("completion_code")
    challenge = bot.challenge()
    page = stranger.context.new_page()
    page.clock.install()
    page.goto(challenge["url"])
    page.clock.fast_forward("01:00:00")
    assert page.url == challenge["url"]
    assert bot.read_challenge(challenge)["status"] == "issued"
    for _ in range(11):
        post_the_first_form(page, challenge["url"])
    assert bot.read_challenge(challenge)["status"] == "started"
    assert bot.complete(code=code_on(victor.follow(challenge["url"]))).status == 200
    assert stage.customer_of(bot.read_token().body["access_token"]) == "victor"


def post_the_first_form(page: Page, url: str) -> None:
    """Do what a scanner does that tries forms out; wait until it has arrived at the brand."""
    page.goto(url)
    with page.expect_navigation(url="**/accounts/login/**"):
        page.evaluate("document.forms[0].submit()")


@pytest.mark.parametrize("action", ["", "/cancel", "/undo"])
@pytest.mark.parametrize("where", ["other_site", "other_origin"])
def test_a_form_of_another_origin_starts_cancels_and_undoes_nothing(
    stage: Stage, victor: Profile, elsewhere: Elsewhere, where: str, action: str
) -> None:
    """B22: on another port of our own host all cookies go along, and here even Victor's form token; not our origin."""
    bot = stage.bot("completion_code")
    challenge = bot.challenge()
    page = victor.follow(challenge["url"]) if action == "/undo" else victor.open(challenge["url"])
    token = page.locator("[name=csrfmiddlewaretoken]").first.input_value()
    before = bot.read_challenge(challenge)
    elsewhere.send_form_to(f"{challenge['url']}{action}", csrfmiddlewaretoken=token)

    victor.expected = {403}
    attacked = victor.context.new_page()
    with attacked.expect_response(f"{challenge['url']}{action}") as refused:
        attacked.goto(getattr(elsewhere, where))
    sent = refused.value.request.all_headers()
    assert (refused.value.status, refused.value.request.method) == (403, "POST")
    assert sent["origin"] == getattr(elsewhere, where).rstrip("/")
    assert ("__Host-csrf" in sent.get("cookie", "")) == (where == "other_origin")
    now = bot.read_challenge(challenge)
    assert {**now, "expires_in": 0} == {**before, "expires_in": 0}


def test_this_was_not_me_closes_the_link(stage: Stage, victor: Profile) -> None:
    """A4: as easy to press as the other button, and the bot is told."""
    bot = stage.bot("none")
    challenge = bot.challenge()
    page = victor.open(challenge["url"])
    boxes = [button.bounding_box() for button in page.get_by_role("button").all()]
    sizes = [(box["width"], box["height"]) for box in boxes if box]
    assert len(sizes) == 2
    assert sizes[0] == sizes[1]
    page.get_by_role("button", name="This wasn't me").click()
    heading(page, "Thank you: this link is now closed")
    assert bot.read_challenge(challenge)["status"] == "cancelled"
    victor.expected = {404}
    page.goto(challenge["url"])
    heading(page, "This link no longer works")


def test_without_script_a_phone_gets_through(stage: Stage, chromium: Any, signed_in: dict[str, Any]) -> None:
    """B7: nothing needs the one script that there is; at 320 pixels nothing has to be scrolled sideways."""
    context = chromium.new_context(
        storage_state=signed_in["victor"], java_script_enabled=False, viewport={"width": 320, "height": 640}
    )
    profile = Profile(context, stage)
    bot = stage.bot("completion_code")
    page = profile.follow(bot.challenge()["url"])
    code = code_on(page)
    expect(page.get_by_role("button", name="Copy code")).to_have_count(0)
    assert bot.complete(code=code).status == 200
    width = page.locator("body").bounding_box()
    assert width
    assert width["width"] <= 320
    context.close()
    assert profile.complaints == []
