"""What went wrong for people in their own browsers, in Firefox: many cookies, hidden origins, tabs, damaged links."""

import sqlite3

import pytest

from tests.browser.elsewhere import Elsewhere, another_site
from tests.browser.firefox.marionette import Firefox, until
from tests.browser.stage import STUBBORN, SUBJECTS, Bot, Stage
from tests.installation import database_file

pytestmark = [pytest.mark.xdist_group("product_in_firefox"), pytest.mark.timeout(300)]

MANY = 25
# Firefox's own switches: neither header, at any address.
SAYS_NOTHING = {"network.http.sendOriginHeader": 0, "network.http.sendRefererHeader": 0}
HIDE = "document.head.insertAdjacentHTML('beforeend', '<meta name=referrer content=no-referrer>')"


def follow(firefox: Firefox, url: str) -> None:
    """Open a link and press its button; what follows is at the end of all redirects."""
    firefox.open(url)
    firefox.press("Continue to")


def code_on(firefox: Firefox) -> str:
    return firefox.text(".digits").replace(" ", "")


def authorization_requests(firefox: Firefox) -> set[str]:
    return {name for name in firefox.cookies() if name.startswith("__Host-attempt-")}


def until_heading(firefox: Firefox, words: str) -> None:
    until(lambda: firefox.find("h1") and firefox.heading() == words, words)


def sign_in(stage: Stage, firefox: Firefox) -> tuple[Bot, str]:
    """Go the whole way of a chat of its own; return its bot, whose token lives on, and the link."""
    bot = stage.bot("completion_code")
    url = str(bot.challenge()["url"])
    follow(firefox, url)
    assert bot.complete(code=code_on(firefox)).status == 200
    return bot, url


def test_a_regular_customer_sees_each_code_and_can_undo_the_first(stage: Stage, victor: Firefox) -> None:
    """B3: the bug: the 21st came back to "this link no longer works"."""
    signed_in = [sign_in(stage, victor) for _ in range(MANY)]
    assert len(authorization_requests(victor)) == MANY
    first, url = signed_in[0]
    victor.open(f"{url}/done")
    victor.press("Undo")
    until_heading(victor, "Undone")
    assert first.refused_token() == "rechallenge_required"
    assert signed_in[1][0].read_token().status == 200


def test_after_tries_in_an_outage_the_sign_in_works_and_their_cookies_are_gone(stage: Stage, victor: Firefox) -> None:
    """B3: on three links, since one may be opened 60 times a minute."""
    victor.open(f"{stage.addresses.product}/c/")
    kept = authorization_requests(victor)
    for _ in range(3):
        url = stage.bot(STUBBORN).challenge()["url"]
        for _ in range(8):
            follow(victor, url)
            until_heading(victor, "Acme is not answering right now")
    sign_in(stage, victor)
    assert len(authorization_requests(victor) - kept) == 1


def test_a_firefox_that_says_nothing_of_its_origin_can_press_every_button(stage: Stage, victor: Firefox) -> None:
    """B22: the bug: 403, and "allow cookies". What it really sends is seen at another server."""
    with victor.preferring(SAYS_NOTHING), another_site(stage.certificate) as echo:
        sent = sent_by_a_form(victor, echo)
        assert ("Origin" in sent, "Referer" in sent, sent["Sec-Fetch-Site"]) == (False, False, "same-origin")
        press_every_button(stage, victor, hide=False)


def test_under_no_referrer_every_button_works(stage: Stage, victor: Firefox) -> None:
    """B22: as an add-on or a proxy puts it on every page; the form is sent with `Origin: null`."""
    with another_site(stage.certificate) as echo:
        sent = sent_by_a_form(victor, echo, HIDE)
    assert (sent["Origin"], "Referer" in sent, sent["Sec-Fetch-Site"]) == ("null", False, "same-origin")
    press_every_button(stage, victor, hide=True)


def sent_by_a_form(firefox: Firefox, echo: Elsewhere, script: str = "") -> dict[str, str]:
    """Return the headers of a form that is sent to its own server."""
    echo.page = b"<!doctype html><head><link rel=icon href=data:,></head><form method=post><button>Send</button></form>"
    firefox.open(echo.other_site)
    firefox.run(script)
    firefox.press("Send")
    return dict(until(lambda: echo.posted, "the form"))


def press_every_button(stage: Stage, firefox: Firefox, *, hide: bool) -> None:
    def press(words: str) -> None:
        if hide:
            firefox.run(HIDE)
        firefox.press(words)

    def signed_in() -> Bot:
        bot = stage.bot("none")
        firefox.open(bot.challenge()["url"])
        press("Continue to")
        until_heading(firefox, "You're signed in")
        return bot

    bot = signed_in()
    press("Undo")
    until_heading(firefox, "Undone")
    assert bot.refused_token() == "rechallenge_required"
    bot = signed_in()
    firefox.press("Keep a receipt")
    until_heading(firefox, "What Acme's assistant may do for you")
    press("End it now")
    until_heading(firefox, "This has ended")
    assert bot.refused_token() == "rechallenge_required"
    firefox.open(stage.bot("none").challenge()["url"])
    press("This wasn't me")
    until_heading(firefox, "Thank you: this link is now closed")


def test_where_cookies_are_off_the_page_says_so(stage: Stage, victor: Firefox) -> None:
    victor.open(stage.bot("none").challenge()["url"])
    victor.call("WebDriver:DeleteAllCookies")
    victor.press("Continue to")
    until_heading(victor, "This was not sent from our own page")
    assert "allow cookies for it" in victor.text("main")


@pytest.mark.parametrize("check", ["none", "expected_subject"])
def test_a_tab_that_a_link_opened_stays_until_its_button_is_pressed(stage: Stage, victor: Firefox, check: str) -> None:
    """A9: the bug: it closed itself, and nobody saw receipt or undo."""
    wishes = {"expected_subject": SUBJECTS["victor"]} if check == "expected_subject" else {}
    with another_site(stage.certificate) as chat:
        chat.link_to(stage.bot(check).challenge(**wishes)["url"])
        victor.open(chat.other_site)
        before = set(victor.tabs())
        victor.press("Sign in")
        (tab,) = until(lambda: set(victor.tabs()) - before, "the tab")
        victor.choose(tab)
        victor.press("Continue to")
        until_heading(victor, "You're signed in")
        assert "Keep a receipt" in victor.text("main")
        assert tab in victor.tabs()
        victor.press("Close this window")
        until(lambda: tab not in victor.tabs(), "the end of the tab")
        victor.choose(next(iter(before)))


def test_a_chat_cannot_see_whether_its_window_is_open(stage: Stage, victor: Firefox) -> None:
    """B17: what docs/bot-developer.md says of `opened.closed`."""
    with another_site(stage.certificate) as chat:
        chat.link_to("about:blank")
        victor.open(chat.other_site)
        victor.run("window.opened = window.open(arguments[0])", stage.bot("none").challenge()["url"])
        assert until(lambda: victor.run("return window.opened.closed"), "the cut")


@pytest.mark.parametrize(
    "after", [".", ")", ">", "\u201d", "\u3002", "%20", "\u00a0", "\u200b", "/", "&utm=1", "_", "\\"]
)
def test_a_damaged_link_leads_on(stage: Stage, victor: Firefox, after: str) -> None:
    """G9: the bug: 404 about a live link."""
    url = stage.bot("none").challenge()["url"]
    victor.open(url + after)
    assert (victor.heading(), victor.address) == ("Sign in to Acme to continue your chat", url)


@pytest.mark.parametrize("before", ["/en", "/de-DE/x", "/%20", "/\u200b", "/<", "/https:/delegation.test"])
def test_a_link_behind_a_prefix_leads_on(stage: Stage, victor: Firefox, before: str) -> None:
    """G9: the bug: 404, "There is nothing here"."""
    url = stage.bot("none").challenge()["url"]
    victor.open(url.replace("/c/", f"{before}/c/"))
    assert (victor.heading(), victor.address) == ("Sign in to Acme to continue your chat", url)


def test_after_an_answer_by_form_post_the_cookie_comes_along(stage: Stage, victor: Firefox) -> None:
    """B4, B13: with the GET that follows; so whoever began is known. The bug: 403, "allow cookies"."""
    bot = stage.bot("completion_code")
    follow(victor, bot.challenge()["url"])
    code = code_on(victor)
    database = sqlite3.connect(database_file(stage.demo.folder), timeout=20)
    statement = "SELECT callback_id FROM brands_authorizationserver WHERE key = ?"
    (callback_id,) = database.execute(statement, [bot.server]).fetchone()
    database.close()
    with another_site(stage.certificate) as brand:
        brand.send_form_to(f"{stage.addresses.product}/callback/{callback_id}", code="planted", state="planted")
        victor.open(brand.other_site)
        until(lambda: victor.find(".digits"), "the code's page")
    assert code_on(victor) == code


def test_a_doubled_slash_leads_on_too(stage: Stage, victor: Firefox) -> None:
    url = stage.bot("none").challenge()["url"]
    for damaged in (url.replace("/c/", "//c/"), url.replace("/c/", "/c//"), url.replace("/c/", "/C/")):
        victor.open(damaged)
        assert (victor.heading(), victor.address) == ("Sign in to Acme to continue your chat", url)
