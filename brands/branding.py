"""What a brand shows to its consumers: theme colours, logo, support contact, and descriptions of scopes."""

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
# Background colours behind text in `static/consumer.css`: those of the page, the sheet and the code.
LIGHT_BACKGROUNDS: Final = ("#f4f5f7", "#ffffff", "#eef0f4")
DARK_BACKGROUNDS: Final = ("#101216", "#1a1d22", "#262a32")
# WCAG 1.4.3 asks for 4.5:1. In dark mode a button with 4.5:1 looks disabled, so 7:1 (WCAG 1.4.6) is used there.
TEXT_CONTRAST: Final = 4.5
DARK_TEXT_CONTRAST: Final = 7.0

_LINEAR_BELOW: Final = 0.04045
_COLOUR: Final = re.compile(r"#[0-9a-f]{6}")
_Colour = tuple[float, float, float]

MAX_LOGO_UPLOAD: Final = 1024 * 1024
MAX_LOGO_PIXELS: Final = 4_000_000
LOGO_SIZE: Final = (240, 80)
# A consumer's first visit should load less than 20 KB in all.
MAX_LOGO_BYTES: Final = 8 * 1024
# Errors that Pillow raises for files made to break it; some come from its EXIF code.
_PILLOW_ERRORS: Final = (
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

MAX_DESCRIPTION_LENGTH: Final = 80
# Needs no description: it requests an ID token, no access to data (OpenID Connect Core section 3.1.2.1).
_OPENID: Final = "openid"
_ADDRESS: Final = r"[A-Za-z0-9._+-]{1,64}@[A-Za-z0-9.-]{1,253}"
_MAILTO: Final = re.compile(f"mailto:{_ADDRESS}")
_TEL: Final = re.compile(r"tel:\+?[0-9-]{3,24}")
# As people write them: `Acme Help <help@acme.example>`, `+49 (0)30 / 12 34-56`, `www.acme.example/help`.
_WRITTEN_ADDRESS: Final = re.compile(rf"({_ADDRESS})|[^<>@\r\n]{{0,80}}<({_ADDRESS})>")
_WRITTEN_NUMBER: Final = re.compile(r"\+?[0-9 \u00a0\u2009\u202f().\-/\u2010-\u2015]{3,40}")
_WRITTEN_HOST: Final = re.compile(r"(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,63}(?:/[^\s]*)?")
_DIGITS: Final = range(3, 16)  # from 112 to the longest number (ITU-T E.164)
_DESCRIPTION: Final = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,80}")
_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")
_LANGUAGE: Final = re.compile(r"[a-z]{2,3}(?:-[a-z]{2,4})?")


@lru_cache(maxsize=512)
def theme_of(accent_colour: str) -> str:
    """Return CSS that sets `--fill` (the colour), `--on-fill` (text on it) and `--accent` (the colour as text).

    A value that is not a colour becomes `DEFAULT_ACCENT`, so that nobody can inject CSS.
    """
    fill = accent_colour.lower()
    if not _COLOUR.fullmatch(fill):
        fill = DEFAULT_ACCENT
    light = readable_shade(fill, LIGHT_BACKGROUNDS, "#000000", TEXT_CONTRAST)
    dark = readable_shade(fill, DARK_BACKGROUNDS, "#ffffff", DARK_TEXT_CONTRAST)
    return (
        f":root{{--fill:{fill};--on-fill:{text_colour_on(fill)};--accent:{light}}}"
        f"@media (prefers-color-scheme:dark){{:root{{--accent:{dark}}}}}"
    )


def text_colour_on(fill: str) -> str:
    """Return black or white, whichever has more contrast with `fill`: always at least 4.58:1."""
    return max("#ffffff", "#000000", key=lambda text: contrast(text, fill))


def readable_shade(colour: str, backgrounds: tuple[str, ...], towards: str, min_contrast: float) -> str:
    """Mix `colour` with `towards`, only as far as needed for `min_contrast` on every background."""
    start, end = _channels(colour), _channels(towards)
    for step in range(101):
        mixed = _hex(tuple(a + (b - a) * step / 100 for a, b in zip(start, end, strict=True)))
        if all(contrast(mixed, background) >= min_contrast for background in backgrounds):
            return mixed
    return towards


def contrast(one: str, other: str) -> float:
    """Return WCAG's contrast ratio of two colours, 1 to 21."""
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


def reencode_logo(upload: bytes) -> bytes:
    """Decode an uploaded PNG or JPEG and encode it as a small PNG, without metadata. Raises `ValidationError`."""
    if len(upload) > MAX_LOGO_UPLOAD:
        raise ValidationError("The file is larger than 1 MB.", "logo_too_large")
    try:
        image = _decode(upload)
    except _PILLOW_ERRORS:
        raise ValidationError("This file cannot be read as a PNG or JPEG.", "logo_unreadable") from None
    width, height = LOGO_SIZE
    while len(png := _encode(image, (width, height))) > MAX_LOGO_BYTES:
        width, height = width * 3 // 4, height * 3 // 4
    return png


def logo_hash(png: bytes) -> str:
    """Hash a logo for its URL: a new picture gets a new URL, so browsers may cache it for ever."""
    return hashlib.sha256(png).hexdigest()[:16]


def _decode(upload: bytes) -> Image.Image:
    with Image.open(BytesIO(upload), formats=("PNG", "JPEG")) as image:
        if image.width * image.height > MAX_LOGO_PIXELS:
            raise ValidationError("The picture has more than 4 million pixels.", "logo_too_large")
        image.load()
        # Phones store the rotation as EXIF metadata, which is dropped.
        return ImageOps.exif_transpose(image).convert("RGBA")


def _encode(image: Image.Image, size: tuple[int, int]) -> bytes:
    small = image.copy()
    small.thumbnail(size)
    # Pillow keeps the file's metadata in `info` and would write it again.
    small.info = {}
    png = BytesIO()
    small.quantize(256, method=Image.Quantize.FASTOCTREE).save(png, "PNG", optimize=True)
    return png.getvalue()


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
    """Allow an https URL, `mailto:` with one address and no parameters, or `tel:` with a number."""
    if value.startswith("https://"):
        validate_endpoint(value)
    elif not _MAILTO.fullmatch(value) and not _TEL.fullmatch(value):
        message = (
            "Write an e-mail address such as help@acme.example, a telephone number such as +49 30 123456, or an "
            "address that begins with https://."
        )
        raise ValidationError(message, "invalid_support_contact")


def validate_scope_descriptions(value: object) -> None:
    """Allow an object from scopes to descriptions. A description is a text, or an object from languages to texts."""
    # JSON can write characters that PostgreSQL cannot store. A scope has only visible ASCII (RFC 6749 section 3.3).
    if not isinstance(value, dict) or not all(isinstance(name, str) and _SCOPE.fullmatch(name) for name in value):
        raise _invalid_descriptions()
    for description in value.values():
        if not is_description(description):
            raise _invalid_descriptions()


def is_description(value: object) -> bool:
    """Whether this is a text for consumers, or an object from languages to texts."""
    by_language = value if isinstance(value, dict) else {"en": value}
    if not by_language or not all(isinstance(name, str) and _LANGUAGE.fullmatch(name) for name in by_language):
        return False
    return all(isinstance(text, str) and _DESCRIPTION.fullmatch(text) for text in by_language.values())


def described(scope: str, descriptions: Mapping[str, Any]) -> list[str]:
    """Describe each scope in the active language.

    Returns an empty list if any scope lacks a description: showing only some would hide what the consumer allows.
    """
    names = [name for name in scope.split() if name != _OPENID]
    found = [_in_active_language(descriptions.get(name)) for name in names]
    return found if all(found) else []


def _in_active_language(description: Any) -> str:
    if not isinstance(description, dict):
        return str(description or "")
    language = translation.get_language() or "en"
    texts = (description.get(name) for name in (language, language.split("-")[0], "en", *description))
    return next((str(text) for text in texts if text), "")


def _invalid_descriptions() -> ValidationError:
    message = (
        'Write {"orders.read": "see your orders"}, or {"orders.read": {"en": "see your orders", "de": "..."}}; '
        f"at most {MAX_DESCRIPTION_LENGTH} characters each."
    )
    return ValidationError(message, code="invalid_scope_descriptions")
