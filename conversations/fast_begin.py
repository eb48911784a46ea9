"""The button (`POST /c/{link_token}`) before Django's handler: the view of the URL, with its limits and its checks.

Only the middleware and the search for the view are left out. A redirect is answered with the headers that they add to
every redirect. Any other response of the view goes through them, on the full way. tests/fuzz/test_fast_begin.py holds
both together.
"""

import re
from collections.abc import Callable
from typing import Any, Final

from django.core.handlers.wsgi import WSGIRequest

from conversations.api.fast_bodies import Reply
from conversations.views import button
from web.answered_before import RESPONSE_BEFORE

# As browsers write it. A form with files, or in another encoding, has to be closed or decoded by Django's handler.
_CONTENT_TYPE: Final = "application/x-www-form-urlencoded"
_SEE_OTHER: Final = 303
_OF_EVERY_REDIRECT: Final = {"Content-Type", "Content-Length"}


def prepared(environ: dict[str, Any], path: re.Match[str]) -> Callable[[], Reply | None] | None:
    """Return what answers this request; None if it is no button."""
    if (
        environ.get("REQUEST_METHOD") != "POST"
        or environ.get("CONTENT_TYPE") != _CONTENT_TYPE
        or environ.get("HTTP_TRANSFER_ENCODING")
    ):
        return None
    return lambda: _answer(environ, path["link"])


def _answer(environ: dict[str, Any], link_token: str) -> Reply | None:
    """Return the redirect; None for another response, which is kept for the full way.

    Raises what the view raises.
    """
    response = button(WSGIRequest(environ), link_token=link_token)
    if response.status_code != _SEE_OTHER:
        environ[RESPONSE_BEFORE] = response
        return None
    headers = [pair for pair in response.items() if pair[0] not in _OF_EVERY_REDIRECT]
    cookies = [("Set-Cookie", cookie.OutputString()) for cookie in response.cookies.values()]
    return Reply(b"", "303 See Other", (*headers, *cookies))
