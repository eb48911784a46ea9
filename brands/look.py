"""A brand's colour on our pages: as it is where it fills a surface, shifted where it would be hard to read.

Contrast as WCAG 2.2 defines it: https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio
"""

import re
from functools import lru_cache
from typing import Final

DEFAULT_ACCENT: Final = "#1f4fbf"
# The grounds that text stands on in `static/consumer.css`, light and dark: the page's, the sheet's, the code's.
LIGHT_GROUNDS: Final = ("#f4f5f7", "#ffffff", "#eef0f4")
DARK_GROUNDS: Final = ("#101216", "#1a1d22", "#262a32")
# 4.5:1 is what WCAG asks of text (1.4.3). In the dark that looks like a button that is switched off: there 7:1 (1.4.6).
TEXT_CONTRAST: Final = 4.5
DARK_TEXT_CONTRAST: Final = 7.0

_LINEAR_BELOW: Final = 0.04045
_COLOUR: Final = re.compile(r"#[0-9a-f]{6}")
_Colour = tuple[float, float, float]


@lru_cache(maxsize=512)
def look_of(accent_colour: str) -> str:
    """Return the rules of a brand's own: the colour itself, what is written on it, and itself as text."""
    fill = accent_colour.lower()
    if not _COLOUR.fullmatch(fill):
        fill = DEFAULT_ACCENT
    light = as_text(fill, LIGHT_GROUNDS, "#000000", TEXT_CONTRAST)
    dark = as_text(fill, DARK_GROUNDS, "#ffffff", DARK_TEXT_CONTRAST)
    return (
        f":root{{--fill:{fill};--on-fill:{text_on(fill)};--accent:{light}}}"
        f"@media (prefers-color-scheme:dark){{:root{{--accent:{dark}}}}}"
    )


def text_on(fill: str) -> str:
    """Return black or white, whichever is easier to read on a colour: at least 4.58:1 on any."""
    return max("#ffffff", "#000000", key=lambda text: contrast(text, fill))


def as_text(colour: str, grounds: tuple[str, ...], towards: str, least: float) -> str:
    """Return the colour, moved towards black or white until it has at least that contrast on every ground."""
    start, end = _channels(colour), _channels(towards)
    for step in range(101):
        moved = _hex(tuple(a + (b - a) * step / 100 for a, b in zip(start, end, strict=True)))
        if all(contrast(moved, ground) >= least for ground in grounds):
            return moved
    return towards


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours, 1 to 21."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    red, green, blue = (_linear(channel / 255) for channel in _channels(colour))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _linear(channel: float) -> float:
    return channel / 12.92 if channel <= _LINEAR_BELOW else float(((channel + 0.055) / 1.055) ** 2.4)


def _channels(colour: str) -> _Colour:
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return float(red), float(green), float(blue)


def _hex(channels: tuple[float, ...]) -> str:
    return "#" + "".join(f"{round(channel):02x}" for channel in channels)
