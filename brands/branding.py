"""What a brand shows to its consumers: its colour, its logo, whom to ask, and what a scope allows."""

import hashlib
import re
import struct
from collections.abc import Mapping
from functools import lru_cache
from io import BytesIO
from typing import Any, Final

from django.core.exceptions import ValidationError
from django.utils import translation
from PIL import Image, ImageOps, UnidentifiedImageError

from oauth_client.validators import validate_endpoint

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
def theme_of(accent_colour: str) -> str:
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


MAX_UPLOAD: Final = 1024 * 1024
MAX_PIXELS: Final = 4_000_000
SIZE: Final = (240, 80)
# A first visit is to stay below 20 KB in all.
MAX_BYTES: Final = 8 * 1024

# What Pillow is known to raise on a file that was made to break it, in its code for EXIF as well.
_BROKEN: Final = (
    UnidentifiedImageError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    struct.error,
)


def drawn_anew(upload: bytes) -> bytes:
    """Return an uploaded PNG or JPEG as a small PNG. Raises `ValidationError`."""
    if len(upload) > MAX_UPLOAD:
        raise ValidationError("The file is larger than 1 MB.", "logo_too_large")
    try:
        image = _read(upload)
    except _BROKEN:
        raise ValidationError("This is no PNG or JPEG that can be read.", "logo_unreadable") from None
    width, height = SIZE
    while len(png := _as_png(image, (width, height))) > MAX_BYTES:
        width, height = width * 3 // 4, height * 3 // 4
    return png


def logo_hash(png: bytes) -> str:
    """Return the part of its address that changes with the picture."""
    return hashlib.sha256(png).hexdigest()[:16]


def _read(upload: bytes) -> Image.Image:
    with Image.open(BytesIO(upload), formats=("PNG", "JPEG")) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValidationError("The picture has more than 4 million pixels.", "logo_too_large")
        image.load()
        # Phones write which side is up beside the pixels.
        return ImageOps.exif_transpose(image).convert("RGBA")


def _as_png(image: Image.Image, size: tuple[int, int]) -> bytes:
    small = image.copy()
    small.thumbnail(size)
    # Without `info`, where Pillow keeps what the file said beside its pixels.
    small.info = {}
    png = BytesIO()
    small.quantize(256, method=Image.Quantize.FASTOCTREE).save(png, "PNG", optimize=True)
    return png.getvalue()


MAX_DESCRIPTION_LENGTH: Final = 80
# A scope that asks for nobody's data: it has the brand say who signed in (OpenID Connect Core section 3.1.2.1).
_SAYS_WHO: Final = "openid"

_ADDRESS: Final = r"[A-Za-z0-9._+-]{1,64}@[A-Za-z0-9.-]{1,253}"
_MAIL: Final = re.compile(f"mailto:{_ADDRESS}")
_PHONE: Final = re.compile(r"tel:\+?[0-9-]{3,24}")
# As people write them: `Acme Help <help@acme.example>`, `+49 (0)30 / 12 34-56`, `www.acme.example/help`.
_WRITTEN_ADDRESS: Final = re.compile(rf"({_ADDRESS})|[^<>@\r\n]{{0,80}}<({_ADDRESS})>")
_WRITTEN_NUMBER: Final = re.compile(r"\+?[0-9 \u00a0\u2009\u202f().\-/\u2010-\u2015]{3,40}")
_WRITTEN_HOST: Final = re.compile(r"(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,63}(?:/[^\s]*)?")
_DIGITS: Final = range(3, 16)  # from 112 to the longest number (ITU-T E.164)
_TEXT: Final = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,80}")
_LANGUAGE: Final = re.compile(r"[a-z]{2,3}(?:-[a-z]{2,4})?")


def normalised_support_contact(value: str) -> str:
    """Return an e-mail address as `mailto:`, a telephone number as `tel:` and a host as https; all else as it is."""
    text = value.strip()
    scheme, colon, rest = text.partition(":")
    scheme, rest = (scheme.lower(), rest.strip()) if colon and scheme.lower() in {"mailto", "tel"} else ("", text)
    if scheme != "tel" and (address := _WRITTEN_ADDRESS.fullmatch(rest)):
        return f"mailto:{address[1] or address[2]}"
    if scheme != "mailto" and (number := _number(rest)):
        return f"tel:{number}"
    return f"https://{text}" if _WRITTEN_HOST.fullmatch(text) else text


def _number(written: str) -> str:
    """Return the digits of a telephone number, after a plus if it begins with one or with 00; empty if it is none."""
    if not _WRITTEN_NUMBER.fullmatch(written):
        return ""
    is_international = written.startswith(("+", "00"))
    if is_international:
        written = written.replace("(0)", "")  # only dialled inside the country
    digits = re.sub("[^0-9]", "", written)
    digits = digits.removeprefix("00") if written.startswith("00") else digits
    return f"{'+' * is_international}{digits}" if len(digits) in _DIGITS else ""


def validate_support_contact(value: str) -> None:
    """Refuse what is none of: an https address, `mailto:` with one address and nothing else, `tel:` with a number."""
    if value.startswith("https://"):
        validate_endpoint(value)
    elif not _MAIL.fullmatch(value) and not _PHONE.fullmatch(value):
        message = (
            "Write an e-mail address such as help@acme.example, a telephone number such as +49 30 123456, or an "
            "address that begins with https://."
        )
        raise ValidationError(message, "invalid_support_contact")


def validate_scope_descriptions(value: object) -> None:
    """Refuse what is not scopes with words, where the words may differ by language."""
    if not isinstance(value, dict):
        raise _refused()
    for words in value.values():
        by_language = words if isinstance(words, dict) else {"en": words}
        if not by_language or not all(_LANGUAGE.fullmatch(name) for name in by_language):
            raise _refused()
        if not all(isinstance(text, str) and _TEXT.fullmatch(text) for text in by_language.values()):
            raise _refused()


def described(scope: str, descriptions: Mapping[str, Any]) -> list[str]:
    """Return what a scope allows, in words of the reader's language.

    Returns nothing where a single one has no words: half of what somebody allows is not what they allow.
    """
    asked = [name for name in scope.split() if name != _SAYS_WHO]
    words = [_in_language(descriptions.get(name)) for name in asked]
    return words if all(words) else []


def _in_language(words: Any) -> str:
    if not isinstance(words, dict):
        return str(words or "")
    language = translation.get_language() or "en"
    found = (words.get(name) for name in (language, language.split("-")[0], "en", *words))
    return next((str(text) for text in found if text), "")


def _refused() -> ValidationError:
    message = (
        'Write {"orders.read": "see your orders"}, or {"orders.read": {"en": "see your orders", "de": "..."}}; '
        f"at most {MAX_DESCRIPTION_LENGTH} characters each."
    )
    return ValidationError(message, code="invalid_scope_descriptions")
