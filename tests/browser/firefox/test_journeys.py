"""The main journey in Firefox: from the link to the token and the receipt, in a pop-up, with the back button."""

import pytest

from tests.browser.elsewhere import another_site
from tests.browser.firefox.marionette import Firefox, until
from tests.browser.firefox.test_bad_days import code_on, follow, until_heading
from tests.browser.stage import Stage

pytestmark = [pytest.mark.xdist_group("product_in_firefox"), pytest.mark.timeout(300)]

LINK = "Sign in to Acme to continue your chat"


def leave_the_brand(firefox: Firefox, stage: Stage) -> None:
    """Sign out at the brand, by forgetting its cookies and ours, which are of the same host."""
    firefox.open(f"{stage.addresses.brand}/accounts/login/")
    firefox.call("WebDriver:DeleteAllCookies")


def sign_in_at_the_brand(firefox: Firefox, stage: Stage) -> None:
    firefox.fill("[name=login]", "victor")
    firefox.fill("[name=password]", stage.demo.customers["victor"])
    firefox.press("Sign in")


def test_from_the_link_to_the_token_and_back(stage: Stage, victor: Firefox) -> None:
    """A9, B3, B15: sign in at the brand, send the code, take the access back by the receipt."""
    bot = stage.bot("completion_code")
    leave_the_brand(victor, stage)
    url = bot.challenge(purpose="to look up your order")["url"]
    follow(victor, url)
    sign_in_at_the_brand(victor, stage)
    code = code_on(victor)
    assert victor.address == f"{url}/done"
    assert "/callback/" not in victor.run("return document.referrer")
    assert bot.complete(code=code).status == 200
    assert stage.customer_of(bot.read_token().body["access_token"]) == "victor"
    until_heading(victor, "You're signed in")
    victor.press("Keep a receipt")
    until_heading(victor, "What Acme's assistant may do for you")
    assert "see your orders" in victor.text("main")
    victor.press("End it now")
    until_heading(victor, "This has ended")
    assert bot.refused_token() == "rechallenge_required"


def test_the_page_with_the_digits_turns_into_the_end(stage: Stage, victor: Firefox) -> None:
    """B24: without a reload, and it is said once to a screen reader."""
    bot = stage.bot("completion_code")
    follow(victor, bot.challenge()["url"])
    code = code_on(victor)
    assert "It works for 5 minutes." in victor.text("main")
    assert not victor.run("return document.querySelector('[data-look]').checkVisibility()")
    victor.run(
        "window.heard = []; const region = document.querySelector('[data-heard]');"
        "new MutationObserver(() => region.textContent && heard.push(region.textContent))"
        ".observe(region, {childList: true})"
    )
    assert bot.complete(code=code).status == 200
    until_heading(victor, "You're signed in")
    assert victor.run("return window.heard") == ["You're signed in"]
    victor.press("Undo")
    until_heading(victor, "Undone")
    assert bot.refused_token() == "rechallenge_required"


def test_the_code_is_copied_on_a_press(stage: Stage, victor: Firefox) -> None:
    follow(victor, stage.bot("completion_code").challenge()["url"])
    code_on(victor)
    victor.press("Copy code")
    until(lambda: victor.text("[role=status]") == "Copied. Now send it in your chat.", "the word that it is copied")


def test_back_from_the_brands_page_and_on_again(stage: Stage, victor: Firefox) -> None:
    """B11, B12: whoever hesitates sees the same link page again, and every way on from there works."""
    bot = stage.bot("completion_code")
    leave_the_brand(victor, stage)
    url = bot.challenge()["url"]
    follow(victor, url)
    until(lambda: victor.find("[name=login]"), "the sign-in page")
    victor.call("WebDriver:Back")
    until_heading(victor, LINK)
    assert victor.address == url
    victor.call("WebDriver:Forward")
    until(lambda: victor.find("[name=login]"), "the sign-in page")
    victor.call("WebDriver:Back")
    victor.press("Continue to")
    sign_in_at_the_brand(victor, stage)
    code = code_on(victor)
    assert bot.complete(code=code).status == 200
    assert stage.customer_of(bot.read_token().body["access_token"]) == "victor"


def test_back_forward_and_reload_show_the_same_code(stage: Stage, victor: Firefox) -> None:
    """B11, B15: the link leads whoever goes back to the same page."""
    bot = stage.bot("completion_code")
    url = bot.challenge()["url"]
    follow(victor, url)
    code = code_on(victor)
    for command in ("WebDriver:Back", "WebDriver:Forward", "WebDriver:Refresh"):
        victor.call(command)
        assert code_on(victor) == code
    assert bot.complete(code=code).status == 200
    until_heading(victor, "You're signed in")
    victor.call("WebDriver:Refresh")
    until_heading(victor, "You're signed in")


def test_a_pop_up_shows_the_code_turns_into_the_end_and_closes_on_a_press(stage: Stage, victor: Firefox) -> None:
    """A9, B17: the chat's own window opened it with a size, as chats on a website do."""
    bot = stage.bot("completion_code")
    with another_site(stage.certificate) as chat:
        chat.link_to("about:blank")
        victor.open(chat.other_site)
        before = set(victor.tabs())
        victor.run("window.open(arguments[0], '', 'width=420,height=640')", bot.challenge()["url"])
        (window,) = until(lambda: set(victor.tabs()) - before, "the window")
        here = victor.call("WebDriver:GetWindowHandle")
        victor.choose(window)
        victor.press("Continue to")
        code = code_on(victor)
        assert victor.run("return window.opener") is None
        assert bot.complete(code=code).status == 200
        until_heading(victor, "You're signed in")
        victor.press("Close this window")
        until(lambda: window not in victor.tabs(), "the end of the window")
        victor.choose(here)
