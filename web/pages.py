"""How a consumer's page or an error page is made: in the reader's language, in one request, under its own policy.

The stylesheet stands in the page itself, so that the first paint waits for nothing else. The Content-Security-Policy
allows it by its hash (CSP Level 3 section 2.3.1): a hash names the very text, so nothing else inline can ever run, and
the page stays the same for everybody, which a nonce would not let it (G9).
"""

import base64
import hashlib
import re
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any, Final

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import translation
from django.utils.cache import patch_vary_headers

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


_NOT_NEEDED: Final = re.compile(r"/\*.*?\*/|\s*\n\s*", re.DOTALL)


def render_page(
    request: HttpRequest,
    template: str,
    context: Mapping[str, Any],
    *,
    status: int = 200,
    locale: str = "",
    theme: str = "",
) -> HttpResponse:
    """Render a page in the language of `locale`, else in the browser's. `look` are rules of the brand's own."""
    style = _stylesheet() + theme
    with translation.override(language_of_page(request, locale)):
        response = render(request, template, {**context, "style": style}, status=status)
        response["Content-Language"] = translation.get_language() or settings.LANGUAGE_CODE
    patch_vary_headers(response, ["Accept-Language"])
    response._csp_replace = {"style-src": [f"'sha256-{_sha256(style)}'"]}  # type: ignore[attr-defined]  # csp_replace()
    return response


@cache
def _stylesheet() -> str:
    """Return `static/consumer.css` without its comments and line breaks."""
    return _NOT_NEEDED.sub("", (settings.BASE_DIR / "static" / "consumer.css").read_text())


@lru_cache(maxsize=512)
def _sha256(style: str) -> str:
    return base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
