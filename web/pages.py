"""Render consumer pages and error pages in the reader's language, in one response, with their own CSP.

The stylesheet is inline, so that the first paint needs no further request. The Content-Security-Policy allows it by its
hash (CSP Level 3 section 2.3.1), so no other inline content can run. Unlike a nonce, a hash keeps the page the same for
everybody (G9).
"""

import base64
import hashlib
import re
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any, Final

from csp.constants import SELF
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import translation
from django.utils.cache import patch_vary_headers
from django.views.decorators.http import require_safe

# Java, and so older Android, still uses the code of Hebrew from before 1989.
_FORMER_CODES: Final = {"iw": "he"}
_CSS_COMMENTS_AND_LINE_BREAKS: Final = re.compile(r"/\*.*?\*/|\s*\n\s*", re.DOTALL)


def language_of_locale(locale: str) -> str | None:
    """Our language for a locale such as `pt`, `de-AT` or `he-IL`; None if there is none."""
    code, hyphen, rest = locale.lower().partition("-")
    try:
        return translation.get_supported_language_variant(f"{_FORMER_CODES.get(code, code)}{hyphen}{rest}")
    except LookupError:
        return None


def language_of_chat(locale: str) -> str:
    """The language of `locale`, or English."""
    return language_of_locale(locale) or settings.LANGUAGE_CODE


def language_of_page(request: HttpRequest, locale: str = "") -> str:
    """The language of the chat, else of `Accept-Language` (RFC 9110 section 12.5.4)."""
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


def render_page(
    request: HttpRequest,
    template: str,
    context: Mapping[str, Any],
    *,
    status: int = 200,
    locale: str = "",
    theme: str = "",
    may_fetch: bool = False,
) -> HttpResponse:
    """Render a page in the language of `locale`, else in the browser's. `theme` holds the brand's CSS rules.

    `may_fetch`: the page's script may send requests to our own origin.
    """
    style = _stylesheet() + theme
    with translation.override(language_of_page(request, locale)):
        response = render(request, template, {**context, "style": style}, status=status)
        response["Content-Language"] = translation.get_language() or settings.LANGUAGE_CODE
    patch_vary_headers(response, ["Accept-Language"])
    policy = {"style-src": [f"'sha256-{_sha256(style)}'"]} | ({"connect-src": [SELF]} if may_fetch else {})
    response._csp_replace = policy  # type: ignore[attr-defined]  # csp_replace()
    return response


@require_safe
def front_page(request: HttpRequest) -> HttpResponse:
    """Serve `/`: what this service is. Somebody may see the address of a link and open what is before its path."""
    return render_page(request, "consumer/front_page.html", {})


@cache
def _stylesheet() -> str:
    """Read `static/consumer.css` without comments and line breaks."""
    return _CSS_COMMENTS_AND_LINE_BREAKS.sub("", (settings.BASE_DIR / "static" / "consumer.css").read_text())


@lru_cache(maxsize=512)
def _sha256(style: str) -> str:
    return base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
