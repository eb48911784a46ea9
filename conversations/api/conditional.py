"""Conditional reads (RFC 9110 section 13): a weak entity tag, and 304 where the bot has seen this already.

Answers are `no-store` all the same: the tag is for a bot that remembers what it read, and not for caches (H6).
"""

import base64
from typing import Any, Final

import msgspec
from django.http import HttpRequest, HttpResponse, HttpResponseNotModified
from django.utils.http import parse_etags

from delegation_site.crypto import key_ring
from delegation_site.problems import json_response

_TAG_BYTES: Final = 18


def conditional_answer(
    request: HttpRequest, facts: dict[str, Any], headers: dict[str, str] | None = None
) -> HttpResponse:
    """Return the facts with their entity tag, or 304 without a body where `If-None-Match` names it."""
    tag = entity_tag(facts)
    answer = json_response(facts, headers=(headers or {}) | {"ETag": tag})
    if not has_seen(request, tag):
        return answer
    # Django's middleware would say 0, which is not the length that a 200 would have (RFC 9110 section 8.6).
    length = {"Content-Length": str(len(answer.content))}
    unchanged = HttpResponseNotModified(headers=length)
    for name in ("ETag", *(headers or {})):
        unchanged[name] = answer[name]
    return unchanged


def entity_tag(facts: dict[str, Any]) -> str:
    """Return the tag of what a bot reads, weak because the seconds left are not part of it.

    Keyed: tags are written into logs, and nobody is to guess a purpose or context from one.
    """
    digest = key_ring().digest("entity-tag", msgspec.json.encode(_without_seconds(facts)))[-_TAG_BYTES:]
    return f'W/"{base64.urlsafe_b64encode(digest).decode()}"'


def has_seen(request: HttpRequest, tag: str) -> bool:
    """Tell whether `If-None-Match` names what has this entity tag, compared weakly (RFC 9110 section 13.1.2)."""
    tags = parse_etags(request.headers.get("If-None-Match", ""))
    return "*" in tags or tag.removeprefix("W/") in {named.removeprefix("W/") for named in tags}


def _without_seconds(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_seconds(member) for name, member in value.items() if name != "expires_in"}
    if isinstance(value, list):
        return [_without_seconds(member) for member in value]
    return value
