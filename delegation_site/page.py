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

from delegation_site.languages import language_of_page

_NOT_NEEDED: Final = re.compile(r"/\*.*?\*/|\s*\n\s*", re.DOTALL)


def render_page(
    request: HttpRequest,
    template: str,
    context: Mapping[str, Any],
    *,
    status: int = 200,
    locale: str = "",
    look: str = "",
) -> HttpResponse:
    """Render a page in the language of `locale`, else in the browser's. `look` are rules of the brand's own."""
    style = _stylesheet() + look
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
