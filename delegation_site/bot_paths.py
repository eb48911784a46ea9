"""The short way to the bot API: no session, user, form, message or account of a person is looked at on it (G7).

A middleware and not a second handler: production, `runserver` and the test client all go the same way. What stands
before it in `MIDDLEWARE` (request id, caching, framing, TLS) holds for bots too; what stands after it is for people.
"""

from collections.abc import Callable
from typing import Any, Final

from csp.utils import build_policy
from django.core.handlers.exception import convert_exception_to_response
from django.http import HttpRequest, HttpResponse
from django.urls import resolve

from delegation_site.errors import refuse_nul_middleware

PREFIX: Final = "/api/"


def bot_paths_middleware(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Answer bots here, people behind."""
    answer: Any = convert_exception_to_response(refuse_nul_middleware(_answer))
    policy = build_policy()

    def middleware(request: HttpRequest) -> HttpResponse:
        if not request.path_info.startswith(PREFIX):
            return get_response(request)
        response: HttpResponse = answer(request)
        response.headers.setdefault("Content-Security-Policy", policy)
        response.headers.setdefault("Content-Length", str(len(response.content)))  # a 304 has named that of its 200
        return response

    return middleware


def _answer(request: HttpRequest) -> HttpResponse:
    """Find the view and call it. Raises what Django makes error pages of: `Http404`, `DisallowedHost`."""
    request.get_host()  # asked by nobody else here: a `Host` that is not ours is a 400 (B16)
    match = request.resolver_match = resolve(request.path_info)
    response: HttpResponse = match.func(request, *match.args, **match.kwargs)
    return response
