"""Every page in the table of states, looked at: axe, reflow, targets, focus, language, direction.

On the run with SQLite alone (conftest.py). With `KEEP_PICTURES=1`, as in `make gallery`, pictures are taken, too.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest
from playwright.sync_api import Browser, Page

from tests.browser.axe import Axe
from tests.browser.pictures import LOOKS, ROOT, Look, keep_pictures, show_as
from tests.browser.profiles import profile_of
from tests.browser.scene import Scene, State
from tests.browser.stage import Stage
from tests.browser.states import STATES

pytestmark = [pytest.mark.xdist_group("product_in_browser"), pytest.mark.timeout(180)]

TEMPLATES: Final = ROOT / "templates"
# Pictures: in Hebrew on the phone alone.
LOOKS_IN: Final = {"en": LOOKS, "he": LOOKS[:2]}
RIGHT_TO_LEFT: Final = {"he"}
SMALLEST_TARGET: Final = 44
FADING: Final = """<!doctype html><html lang="en"><head><title>Acme</title><style>
body { background: white } a { color: black } a, b { transition: color 600s }
@media (prefers-color-scheme: dark) { body { background: black } a { color: white } }
</style></head><body><main><h1><a href="/">Acme <b>orders</b></a></h1></main></body></html>"""

_TOO_WIDE: Final = """() => [...document.querySelectorAll('body *')].filter(element => {
    const box = element.getBoundingClientRect()
    const isBlock = getComputedStyle(element).display !== 'inline' && !element.closest('.heard-only')
    const isCut = element.scrollWidth > element.clientWidth + 1
    return isBlock && (isCut || box.right > innerWidth + 0.5 || box.left < -0.5)
}).map(element => element.outerHTML.slice(0, 120))"""
_MOVING: Final = """() => [...document.querySelectorAll('*')].filter(element => {
    const style = getComputedStyle(element)
    return style.animationName !== 'none' || parseFloat(style.transitionDuration) > 0
}).map(element => element.tagName)"""
_FOCUSED: Final = """() => {
    const element = document.activeElement, style = getComputedStyle(element)
    return element === document.body ? null : [element.innerText, style.outlineStyle, parseFloat(style.outlineWidth)]
}"""


@dataclass(frozen=True)
class Shown:
    """A page in front of somebody."""

    state: State
    locale: str
    page: Page


@pytest.fixture(scope="module")
def headings() -> dict[str, str]:
    """Return the template behind each heading seen so far."""
    return {}


@pytest.fixture(
    scope="module",
    params=[(locale, name) for locale in LOOKS_IN for name in STATES],
    ids="-".join,
)
def shown(
    request: pytest.FixtureRequest, stage: Stage, chromium: Browser, signed_in: dict[str, Any]
) -> Iterator[Shown]:
    """Return each page, once in each language."""
    locale, name = request.param
    state = STATES[name]
    phone: dict[str, Any] = {"locale": locale, "device_scale_factor": 1.5}
    with (
        profile_of(chromium, stage, signed_in["victor"], **phone) as consumer,
        profile_of(chromium, stage, **phone) as stranger,
    ):
        consumer.expected = stranger.expected = set(state.statuses)
        page = state.shows(Scene(stage, consumer, stranger, locale))
        if "KEEP_PICTURES" in os.environ:
            keep_pictures(page, name, locale, LOOKS_IN[locale])
        yield Shown(state, locale, page)


def test_every_page_is_in_the_table() -> None:
    """A template without a row would be seen by no test of this module, and by nobody in the gallery."""
    files = [file for folder in ("consumer", "errors") for file in (TEMPLATES / folder).iterdir()]
    pages = {str(file.relative_to(TEMPLATES)) for file in files if "{% extends" in file.read_text()}
    assert pages == {state.template for state in STATES.values()}


def test_axe_finds_nothing(shown: Shown, requires_axe: Axe) -> None:
    """WCAG 2.2 AA, in the dark too: with headings, landmarks, names, contrast and sizes of targets."""
    assert requires_axe.findings(shown.page, LOOKS) == {look.name: [] for look in LOOKS}


@pytest.mark.parametrize("accent_colour", ["#ffff00", "#ffffff", "#000000", "#808080", "#ff0000"])
def test_axe_finds_nothing_whatever_the_brands_colour(
    stage: Stage, chromium: Browser, signed_in: dict[str, Any], requires_axe: Axe, accent_colour: str
) -> None:
    """WCAG 1.4.3 and 1.4.11: yellow cannot be read on white, nor black in the dark; grey is hard on both."""
    with profile_of(chromium, stage, signed_in["victor"]) as consumer, profile_of(chromium, stage) as stranger:
        scene = Scene(stage, consumer, stranger)
        with scene.brand_in(accent_colour):
            pages = [STATES[name].shows(scene) for name in ("link", "signed_in", "receipt")]
        found = [requires_axe.findings(page, LOOKS[:2]) for page in pages]
        assert pages[0].evaluate("getComputedStyle(document.querySelector('main form button')).backgroundColor") == (
            f"rgb({', '.join(str(channel) for channel in bytes.fromhex(accent_colour[1:]))})"
        )
    assert found == [{look.name: [] for look in LOOKS[:2]}] * 3


def test_saying_no_is_as_easy_as_going_on_and_never_louder(
    stage: Stage, chromium: Browser, signed_in: dict[str, Any]
) -> None:
    """A4: as wide and as high, in reach below it, without a fill. The bug: in the dark both had the same border."""
    read = """button => { const style = getComputedStyle(button), box = button.getBoundingClientRect()
        return [style.borderTopColor, style.backgroundColor, Math.round(box.width), box.height >= 44] }"""
    with profile_of(chromium, stage, signed_in["victor"]) as consumer, profile_of(chromium, stage) as stranger:
        page = STATES["link"].shows(Scene(stage, consumer, stranger))
        for look in LOOKS[:2]:
            show_as(page, look)
            go_on, refuse = (button.evaluate(read) for button in page.locator("main form button").all())
            assert go_on[0] != refuse[0]
            assert refuse[1] == "rgba(0, 0, 0, 0)"
            assert go_on[2:] == refuse[2:] == [go_on[2], True]


def test_nothing_jumps_when_it_is_said_that_the_code_is_copied(
    stage: Stage, chromium: Browser, signed_in: dict[str, Any]
) -> None:
    with profile_of(chromium, stage, signed_in["victor"], viewport={"width": 360, "height": 640}) as consumer:
        consumer.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page = consumer.follow(stage.bot("completion_code").challenge()["url"])
        undo = page.get_by_role("button", name="Undo")
        before = undo.bounding_box()
        page.get_by_role("button", name="Copy code").click()
        page.get_by_text("Copied. Now send it in your chat.").wait_for()
        assert undo.bounding_box() == before


def test_it_says_which_page_it_is(shown: Shown, headings: dict[str, str]) -> None:
    """The heading comes first in the text and is no other page's; the tab has a name; language and direction agree."""
    page = shown.page
    root = page.locator("html")
    assert root.get_attribute("lang") == shown.locale
    assert page.evaluate("getComputedStyle(document.body).direction") == (
        "rtl" if shown.locale in RIGHT_TO_LEFT else "ltr"
    )
    heading = page.get_by_role("heading").all_inner_texts()
    assert len(heading) == 1, heading
    assert page.title()
    assert headings.setdefault(heading[0], shown.state.template) == shown.state.template


@pytest.mark.parametrize(("width", "text_size"), [(320, "100%"), (360, "200%"), (1280, "200%"), (640, "100%")])
def test_nothing_has_to_be_scrolled_sideways(shown: Shown, width: int, text_size: str) -> None:
    """WCAG 1.4.10 and 1.4.4: at 320 pixels, with text of twice the size, and at 200 % on a desk (640 pixels)."""
    page = shown.page
    show_as(page, Look("phone", width, 740, "light"))
    page.evaluate("size => { document.documentElement.style.fontSize = size }", text_size)
    wide = (page.evaluate("document.documentElement.scrollWidth"), page.evaluate(_TOO_WIDE))
    page.evaluate("document.documentElement.style.fontSize = ''")
    assert wide == (width, [])


def test_a_brands_long_word_is_broken(stage: Stage, chromium: Browser, signed_in: dict[str, Any]) -> None:
    """WCAG 1.4.10. The bug: the footer was as wide as the longest word of the brand's name."""
    with profile_of(chromium, stage, signed_in["victor"]) as consumer, profile_of(chromium, stage) as stranger:
        scene = Scene(stage, consumer, stranger)
        with scene.brand_named("Donaudampfschifffahrtsgesellschaftskapitaenspatent"):
            pages = [STATES[name].shows(scene) for name in ("link", "signed_in", "receipt", "undone")]
        for page in pages:
            show_as(page, Look("phone", 320, 740, "light"))
        wide = [(page.evaluate("document.documentElement.scrollWidth"), page.evaluate(_TOO_WIDE)) for page in pages]
    assert wide == [(320, [])] * len(pages)


def test_whatever_can_be_pressed_is_big_and_shows_the_focus(shown: Shown) -> None:
    """WCAG 2.4.3, 2.4.7, 2.5.8: Tab reaches everything in the order of the page, and one sees where one is."""
    page = shown.page
    show_as(page, LOOKS[0])
    targets = page.locator("a, button, input:not([type=hidden]), summary").filter(visible=True).all()
    boxes = [target.bounding_box() for target in targets]
    assert [box["height"] >= SMALLEST_TARGET for box in boxes if box] == [True] * len(targets)
    page.evaluate("document.activeElement.blur()")
    reached = []
    for _ in targets:
        page.keyboard.press("Tab")
        reached.append(page.evaluate(_FOCUSED))
    assert [words for words, _, _ in reached] == [target.inner_text() for target in targets]
    assert [style != "none" and thick >= 2 for _, style, thick in reached] == [True] * len(targets)


def test_nothing_moves(shown: Shown) -> None:
    """Whether or not less motion was asked for."""
    assert shown.page.evaluate(_MOVING) == []


def test_a_page_is_judged_in_the_colours_in_which_it_ends(stage: Stage, chromium: Browser, requires_axe: Axe) -> None:
    """Half-way from dark to light, a fading link can be read by nobody. Its child fades after it."""
    with profile_of(chromium, stage) as anyone:
        page = anyone.context.new_page()
        page.set_content(FADING)
        assert requires_axe.findings(page, LOOKS) == {look.name: [] for look in LOOKS}
        assert page.locator("b").evaluate("element => getComputedStyle(element).color") == "rgb(255, 255, 255)"
