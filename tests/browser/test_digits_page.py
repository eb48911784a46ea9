"""The page with the digits turns into the end by itself, says so once, and can be turned by hand without script."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from django.utils import translation
from playwright.sync_api import Browser, Page, Request, expect

from tests.browser.axe import Axe
from tests.browser.pictures import LOOKS
from tests.browser.profiles import Profile, code_on, heading, profile_of
from tests.browser.scene import Scene
from tests.browser.stage import Stage
from tests.catalogs import LANGUAGES, catalog

pytestmark = [pytest.mark.xdist_group("product_in_browser"), pytest.mark.timeout(180)]

LOCALES: Final = ("en", *(translation.to_language(name) for name in LANGUAGES))
PHONE: Final = {"width": 360, "height": 640}
# That it turns at all. How often the page asks is tested with a clock that stands still.
TURNS_WITHIN: Final = 60_000
# The page only subtracts moments.
NOON: Final = datetime(2026, 3, 2, 12, tzinfo=UTC)
_HEARD: Final = """() => {
    window.heard = []
    const region = document.querySelector('[data-heard]')
    const note = () => region.textContent && heard.push(region.textContent)
    new MutationObserver(note).observe(region, {childList: true})
}"""


def words(sentence: str, locale: str) -> str:
    """A sentence of the pages in a language."""
    if locale == "en":
        return sentence
    message = catalog(translation.to_locale(locale)).get(sentence)
    assert message is not None
    return str(message.string)


def looks_of(page: Page) -> list[str]:
    """The requests of the page that ask how things stand, from now on."""
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if request.url.endswith("/standing") else None)
    return asked


@pytest.fixture(params=[(locale, script) for locale in LOCALES for script in ("script", "no script")], ids="-".join)
def reader(
    request: pytest.FixtureRequest, stage: Stage, chromium: Browser, signed_in: dict[str, Any]
) -> Iterator[tuple[Profile, str, bool]]:
    """A consumer with a phone, the language of the chat, and whether scripts run."""
    locale, script = request.param
    options: dict[str, Any] = {"viewport": PHONE, "java_script_enabled": script == "script"}
    with profile_of(chromium, stage, signed_in["victor"], **options) as profile:
        yield profile, locale, script == "script"


def test_once_the_chat_has_the_code_the_page_is_the_end(
    stage: Stage, chromium: Browser, signed_in: dict[str, Any], reader: tuple[Profile, str, bool], requires_axe: Axe
) -> None:
    """B24: in every language, on a phone, in light and dark; without a reload, and by a link if no script runs."""
    profile, locale, has_script = reader
    bot = stage.bot("completion_code")
    page = profile.follow(bot.challenge(locale=locale)["url"])
    loads: list[str] = []
    page.on("framenavigated", lambda frame: loads.append(frame.url))
    by_hand = page.locator("[data-look]")
    assert by_hand.is_visible() is not has_script
    assert bot.complete(code=code_on(page)).status == 200
    if not has_script:
        by_hand.click()
    expect(page.locator("h1")).to_have_text(words("You're signed in", locale), timeout=TURNS_WITHIN)
    assert len(loads) == (0 if has_script else 1)
    assert page.title() == words("You're signed in", locale)
    if has_script:
        assert requires_axe.findings(page, LOOKS[:2]) == {look.name: [] for look in LOOKS[:2]}
    page.locator("a[href*='/r/']").click()
    heading(page, words("What %(brand)s's assistant may do for you", locale).replace("%(brand)s", "Acme"))


def test_the_end_is_said_once_and_its_buttons_work(stage: Stage, victor: Profile) -> None:
    """The live region stays the same element, else a screen reader would say nothing."""
    bot = stage.bot("completion_code")
    page = victor.follow(bot.challenge()["url"])
    page.evaluate(_HEARD)
    assert bot.complete(code=code_on(page)).status == 200
    heading_turned(page, "You're signed in")
    assert page.evaluate("heard") == ["You're signed in"]
    page.get_by_role("button", name="Undo").click()
    heading(page, "Undone")


def heading_turned(page: Page, said: str) -> None:
    expect(page.locator("h1")).to_have_text(said, timeout=TURNS_WITHIN)


def test_it_turns_into_whatever_has_happened(stage: Stage, victor: Profile) -> None:
    """Five wrong codes, a newer link, an undo in another tab."""
    bots = [stage.bot("completion_code") for _ in range(3)]
    pages = [victor.follow(bot.challenge()["url"]) for bot in bots]
    code = int(code_on(pages[0]))
    for step in range(1, 6):
        bots[0].complete(code=f"{(code + step) % 1_000_000:06}")
    bots[1].challenge(replace=True)
    other_tab = victor.open(pages[2].url)
    other_tab.get_by_role("button", name="Undo").click()
    heading(other_tab, "Undone")
    for page, said in zip(pages, ["Too many wrong codes", "There is a newer link in your chat", "Undone"], strict=True):
        page.bring_to_front()
        heading_turned(page, said)


@dataclass
class Waiting:
    """The page with the digits, whose script runs, and whose clock stands still until the test sets it forward.

    The bug: the page's clock went on by itself as well, so that on a busy machine it asked before the test expected it.
    """

    page: Page
    unanswered: set[Request] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.page.on("request", self._note)
        self.page.on("requestfinished", self._forget)
        self.page.on("requestfailed", self._forget)

    def wait(self, seconds: int) -> None:
        """Let time pass in the page, a second at a time. No second passes while a request of the page is unanswered."""
        for _ in range(seconds):
            self.page.clock.run_for(1_000)
            while self.unanswered:
                self.page.wait_for_timeout(5)

    # Playwright takes no methods of built-in types.
    def _note(self, request: Request) -> None:
        self.unanswered.add(request)

    def _forget(self, request: Request) -> None:
        self.unanswered.discard(request)


def waiting_page(stage: Stage, profile: Profile) -> Waiting:
    page = profile.context.new_page()
    page.clock.install(time=NOON)
    page.clock.pause_at(NOON + timedelta(hours=1))
    page.goto(stage.bot("completion_code").challenge()["url"])
    page.locator("main form button").first.click()
    expect(page.locator("[data-look]")).to_be_hidden()
    page.wait_for_load_state()
    return Waiting(page)


def test_it_asks_after_three_seconds_then_less_often_and_not_while_hidden(stage: Stage, victor: Profile) -> None:
    """B24."""
    waiting = waiting_page(stage, victor)
    page = waiting.page
    asked = looks_of(page)
    waiting.wait(2)
    assert asked == []
    with page.expect_response("**/standing"):
        waiting.wait(2)
    waiting.wait(240)
    assert 12 <= len(asked) <= 30
    page.evaluate("Object.defineProperty(document, 'hidden', {get: () => true, configurable: true})")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    before = len(asked)
    waiting.wait(30)
    assert len(asked) == before
    with page.expect_response("**/standing"):
        page.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
        waiting.wait(1)


def test_it_counts_down_and_without_an_answer_offers_the_link(
    stage: Stage, chromium: Browser, signed_in: dict[str, Any]
) -> None:
    """B24: what is left is said honestly, and nothing is asked after the code's life."""
    context = chromium.new_context(storage_state=signed_in["victor"])
    waiting = waiting_page(stage, Profile(context, stage))
    page = waiting.page
    expect(page.locator("[data-left]")).to_have_text("5 minutes")
    left = int(page.locator("main").get_attribute("data-seconds-left") or "")
    context.set_offline(True)
    waiting.wait(left - 235)
    expect(page.locator("[data-left]")).to_have_text("4 minutes")
    expect(page.locator("[data-look]")).to_be_visible()
    waiting.wait(205)
    expect(page.locator("[data-left]")).to_have_text("30 seconds")
    waiting.wait(45)
    asked = looks_of(page)
    waiting.wait(60)
    assert asked == []
    context.close()


@pytest.mark.full
def test_thirty_consumers_who_wait_hold_up_no_callback(stage: Stage, victor: Profile, stranger: Profile) -> None:
    """B25: all behind one address; the pages ask at once, and somebody else comes back meanwhile."""
    scene = Scene(stage, victor, stranger)
    challenges = [scene.challenge()[1] for _ in range(30)]
    pages = [victor.follow(challenge["url"]) for challenge in challenges[:4]]
    asking = """async () => {
        const asked = Array.from({length: 150}, () => fetch(document.querySelector('main').dataset.status))
        return [...new Set((await Promise.all(asked)).map(answer => answer.status))]
    }"""
    assert [page.evaluate(asking) for page in pages] == [[200]] * 4
    newcomer = victor.follow(challenges[-1]["url"])
    assert len(code_on(newcomer)) == 6
