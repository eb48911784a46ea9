"""The devices and colour schemes in which pages are tested and photographed, and where the pictures are stored."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from playwright.sync_api import Page

ROOT: Final = Path(__file__).parent.parent.parent
KEPT: Final = ROOT / "test-output" / "pages"


@dataclass(frozen=True)
class Look:
    """A device, and light or dark mode."""

    device: str
    width: int
    height: int
    scheme: Literal["light", "dark"]

    @property
    def name(self) -> str:
        return f"{self.device}-{self.scheme}"


LOOKS: Final = (
    Look("phone", 360, 640, "light"),
    Look("phone", 360, 640, "dark"),
    Look("desktop", 1280, 800, "light"),
    Look("desktop", 1280, 800, "dark"),
)


# A transition that ends can start another one: a child that inherits the colour fades after its parent.
_END_TRANSITIONS: Final = """() => {
    for (let round = 0; round < 20; round++) {
        const running = document.getAnimations().filter(animation => animation instanceof CSSTransition)
        if (running.length === 0) return
        running.forEach(transition => transition.finish())
    }
    throw new Error("transitions follow each other without an end")
}"""


def show_as(page: Page, look: Look) -> None:
    """Show an open page on this device, without reloading it, in the colours that it has once they stop changing."""
    page.set_viewport_size({"width": look.width, "height": look.height})
    page.emulate_media(color_scheme=look.scheme)
    # Not a wait: a busy machine draws so few frames that a fade of 0.15 s is still on its way after half a second.
    page.evaluate(_END_TRANSITIONS)


def picture_of(state: str, locale: str, look: Look) -> Path:
    """The path of a state's picture."""
    return KEPT / f"{state}-{locale}-{look.name}.png"


def keep_looks(page: Page, name: str) -> None:
    """Keep pictures of a page in each look, for whoever looks at them, with `KEEP_PICTURES=1`. The last look stays."""
    if "KEEP_PICTURES" not in os.environ:
        return
    KEPT.mkdir(parents=True, exist_ok=True)
    for look in LOOKS:
        show_as(page, look)
        page.evaluate("scrollTo(0, 0)")  # what stays in view while one scrolls would be in the middle
        page.screenshot(path=KEPT / f"{name}-{look.name}.png", full_page=True, animations="disabled")


def keep_pictures(page: Page, state: str, locale: str, looks: tuple[Look, ...]) -> None:
    """Take pictures of the whole page, and store its heading for the gallery."""
    for look in looks:
        show_as(page, look)
        scale: Literal["css", "device"] = "device" if look.device == "phone" else "css"
        page.screenshot(path=picture_of(state, locale, look), full_page=True, animations="disabled", scale=scale)
    heading = page.get_by_role("heading", level=1).first.inner_text()
    (KEPT / f"{state}-{locale}.json").write_text(json.dumps({"heading": heading}))
