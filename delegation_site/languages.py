"""The language of a consumer's page and of the sentence for the chat: no cookie and no session decide it."""

from typing import Final

from django.conf import settings
from django.http import HttpRequest
from django.utils import translation

# Java, and with it older Android, still writes Hebrew as it was before 1989.
_FORMER_CODES: Final = {"iw": "he"}


def language_of_locale(locale: str) -> str | None:
    """Return the language that we have for a locale such as `pt`, `de-AT` or `he-IL`; None where we have none."""
    code, hyphen, rest = locale.lower().partition("-")
    try:
        return translation.get_supported_language_variant(f"{_FORMER_CODES.get(code, code)}{hyphen}{rest}")
    except LookupError:
        return None


def language_of_chat(locale: str) -> str:
    """Return the language of what a bot sends on: its locale's, else English."""
    return language_of_locale(locale) or settings.LANGUAGE_CODE


def language_of_page(request: HttpRequest, locale: str = "") -> str:
    """Return the language of a page: the chat's, else what the browser asks for (RFC 9110 section 12.5.4)."""
    accepted = request.headers.get("Accept-Language", "")
    wanted = sorted((_quality(part) for part in accepted.split(",")[:20]), key=lambda part: -part[0])
    found = (language_of_locale(code) for code in [locale, *(code for quality, code in wanted if quality > 0)] if code)
    return next((language for language in found if language), settings.LANGUAGE_CODE)


def _quality(part: str) -> tuple[float, str]:
    code, _, weight = part.replace(" ", "").partition(";q=")
    try:
        return float(weight or "1"), code
    except ValueError:
        return 0.0, code
