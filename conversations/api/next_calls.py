"""The `next` member of a problem: the call that helps, with its address filled in. None where no call does."""

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

from django.http import HttpRequest

from delegation_site.problems import Problem

# As the contract has them; tests/test_contract.py compares.
OPERATIONS: Final = {
    "createChallenge": ("POST", "/api/v1/conversations/{conversation_id}/challenges"),
    "readChallenge": ("GET", "/api/v1/challenges/{challenge_id}"),
    "withdrawChallenge": ("DELETE", "/api/v1/challenges/{challenge_id}"),
    "complete": ("POST", "/api/v1/conversations/{conversation_id}/completion"),
    "authorize": ("POST", "/api/v1/conversations/{conversation_id}/authorize"),
    "readToken": ("GET", "/api/v1/conversations/{conversation_id}/token"),
    "endToken": ("DELETE", "/api/v1/conversations/{conversation_id}/token"),
    "readConversation": ("GET", "/api/v1/conversations/{conversation_id}"),
    "closeConversation": ("DELETE", "/api/v1/conversations/{conversation_id}"),
}
# What a segment of a path may hold as it stands, beside letters and digits (RFC 3986 section 3.3).
_AS_THEY_STAND: Final = "-._~!$()*+,;=:@"
_PLACE: Final = re.compile(r"\{(\w+)\}")


def next_call(problem: Problem, request: HttpRequest, path: Mapping[str, str]) -> dict[str, str] | None:
    """Return the call that a bot makes after this problem; `path` is what the refused call's address names.

    A call that came too soon is its own next one. Several authorization servers: the bot names the same one again.
    """
    operation = _own_operation(request, path) if problem.code == "rate_limited" else problem.next_operation
    if not operation:
        return None
    method, address = OPERATIONS[operation]
    values = {**path, **problem.members}
    return {
        "operation": operation,
        "method": method,
        "path": _PLACE.sub(lambda place: _quoted(values[place[1]]), address),
    }


def _own_operation(request: HttpRequest, path: Mapping[str, str]) -> str:
    called = (request.method, request.path)
    found = (
        operation
        for operation, (method, address) in OPERATIONS.items()
        if (method, _PLACE.sub(lambda place: path.get(place[1], ""), address)) == called
    )
    return next(found, "")


def _quoted(value: str) -> str:
    return quote(value, safe=_AS_THEY_STAND)
