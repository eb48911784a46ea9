"""Write `docs/consumer-pages.md` and the documents' pictures from those of the last browser tests: `make gallery`."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from PIL import Image, ImageChops

from tests.browser.pictures import KEPT, LOOKS, ROOT, picture_of
from tests.browser.states import STATES

PAGE: Final = ROOT / "docs" / "consumer-pages.md"
PICTURES: Final = ROOT / "docs" / "pictures"
ON_A_DESK: Final = ("link", "completion_code")
IN_HEBREW: Final = ("link", "completion_code", "receipt")
# Every page with which a sign-in can end, side by side.
LAST_PAGES: Final = "last-pages"
COLUMNS: Final = 5
LAST_PAGE_WIDTH: Final = 240
# The README's pictures, taken by `tests.demo.pictures`.
OF_THE_DEMO: Final = ("demo-chat", "demo-admin")
# The pictures of docs/brand-admin.md, with the looks in which each is shown; `test_first_setup.py` takes them.
OF_THE_SETUP: Final = {
    "setup-server": ("desktop-light",),
    "setup-doctor": ("phone-light", "phone-dark"),
    "setup-trial": ("desktop-light",),
    "setup-import": ("phone-light", "phone-dark"),
    "setup-operation": ("desktop-light",),
    "setup-key": ("desktop-light",),
}
MOST_BYTES: Final = 2_000_000
COLOURS: Final = 32
SIGNS: Final = ("success", "refusal", "trouble", "stopped")
GAP: Final = 24

INTRODUCTION: Final = """\
# The consumer's pages

Every page that a consumer can see: on a phone in light and dark mode, then a few on a desktop and in Hebrew, where
everything but the digits is mirrored. `make gallery` writes this document from pictures of the browser tests; do not
edit it by hand.

A brand sets one colour, a logo and a way to reach its support. Text stays readable in every colour. Each page needs one
request to paint, and no script and no cookies of other sites. Acme's logo is that of the demo.
"""


def side_by_side(files: list[Path]) -> Image.Image:
    """Place pictures side by side. Each is cut off below its content."""
    pictures = [_cut(Image.open(file).convert("RGB")) for file in files]
    height = max(picture.height for picture in pictures)
    width = sum(picture.width for picture in pictures) + GAP * (len(pictures) - 1)
    sheet = Image.new("RGB", (width, height), "#8a8f98")
    left = 0
    for picture in pictures:
        sheet.paste(Image.new("RGB", (picture.width, height), picture.getpixel((0, 0))), (left, 0))
        sheet.paste(picture, (left, 0))
        left += picture.width + GAP
    return sheet


def _cut(picture: Image.Image) -> Image.Image:
    ground = Image.new("RGB", picture.size, picture.getpixel((0, 0)))
    box = ImageChops.difference(picture, ground).getbbox()
    return picture.crop((0, 0, picture.width, min(picture.height, box[3] + 2 * GAP))) if box else picture


def write_picture(name: str, files: list[Path]) -> None:
    """Save pictures with few colours, rare ones included. Text and plain backgrounds need no more."""
    sheet = side_by_side(files).quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    sheet.save(PICTURES / f"{name}.png", optimize=True)


def last_pages() -> list[str]:
    """The pages with a sign: success, refusal, trouble, stopped."""
    templates = {name: (ROOT / "templates" / state.template).read_text() for name, state in STATES.items()}
    return [name for sign in SIGNS for name, text in templates.items() if f"consumer/mark_{sign}.html" in text]


def write_last_pages() -> None:
    """Save all of them in one picture, in rows."""
    pictures = [_cut(Image.open(picture_of(name, "en", LOOKS[0])).convert("RGB")) for name in last_pages()]
    small = [
        picture.resize((LAST_PAGE_WIDTH, picture.height * LAST_PAGE_WIDTH // picture.width)) for picture in pictures
    ]
    rows = [small[at : at + COLUMNS] for at in range(0, len(small), COLUMNS)]
    heights = [max(picture.height for picture in row) + GAP for row in rows]
    sheet = Image.new("RGB", ((LAST_PAGE_WIDTH + GAP) * COLUMNS - GAP, sum(heights) - GAP), "#8a8f98")
    for number, row in enumerate(rows):
        for column, picture in enumerate(row):
            sheet.paste(picture, (column * (LAST_PAGE_WIDTH + GAP), sum(heights[:number])))
    sheet = sheet.quantize(COLOURS // 2, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    sheet.save(PICTURES / f"{LAST_PAGES}.png", optimize=True)


def sections(headings: dict[str, str]) -> Iterator[str]:
    """Yield the page, paragraph by paragraph."""
    yield INTRODUCTION
    for part, folder in (("A sign-in, and how it ends", "consumer/"), ("Errors", "errors/")):
        yield f"## {part}\n"
        for name, state in STATES.items():
            if state.template.startswith(folder):
                yield f"### {headings[name]}\n\n{state.about}\n\n{_shown(name, headings[name], 560)}"
    yield "## The last pages in one picture\n"
    yield "Success, refusal, trouble, and stopped for safety: the signs differ in shape and in colour.\n"
    yield f'<img src="pictures/{LAST_PAGES}.png" alt="All last pages" width="900">\n'
    yield "## On a desktop\n"
    yield from (_shown(f"{name}-desktop", f"{headings[name]}, on a desktop", 800) for name in ON_A_DESK)
    yield "## From right to left\n"
    yield from (_shown(f"{name}-he", f"{headings[name]}, in Hebrew", 560) for name in IN_HEBREW)


def _shown(name: str, words: str, width: int) -> str:
    return f'<img src="pictures/{name}.png" alt="{words}" width="{width}">\n'


def main() -> int:
    """Write the page and every picture."""
    headings = {name: json.loads((KEPT / f"{name}-en.json").read_text())["heading"] for name in STATES}
    PICTURES.mkdir(parents=True, exist_ok=True)
    for old in PICTURES.glob("*.png"):
        if old.stem not in OF_THE_DEMO:
            old.unlink()
    phone, desk = [look for look in LOOKS if look.device == "phone"], [look for look in LOOKS if look.device != "phone"]
    for name in STATES:
        write_picture(name, [picture_of(name, "en", look) for look in phone])
    write_last_pages()
    for name in ON_A_DESK:
        write_picture(f"{name}-desktop", [picture_of(name, "en", desk[0])])
    for name in IN_HEBREW:
        write_picture(f"{name}-he", [picture_of(name, "he", look) for look in phone])
    for name, looks in OF_THE_SETUP.items():
        write_picture(name, [KEPT / f"{name}-{look}.png" for look in looks])
    PAGE.write_text("\n".join(sections(headings)))
    taken = sum(file.stat().st_size for file in PICTURES.glob("*.png"))
    sys.stdout.write(f"{PAGE.relative_to(ROOT)}: {len(STATES)} pages, {taken:,} bytes of pictures\n")
    return 0 if taken <= MOST_BYTES else 1


if __name__ == "__main__":
    sys.exit(main())
