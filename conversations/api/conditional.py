"""Conditional reads (RFC 9110 section 13): entity tags, and 304 for what has not changed."""

import base64
from typing import Any, Final

import msgspec
from django.http import HttpRequest, HttpResponse, HttpResponseNotModified
from django.utils.http import parse_etags

from infrastructure.crypto import key_ring
from web.errors import json_response

_TAG_BYTES: Final = 18


def conditional_answer(
    request: HttpRequest, representation: dict[str, Any], headers: dict[str, str] | None = None
) -> HttpResponse:
    """Answer 200 with the representation and its entity tag, or 304 if `If-None-Match` names that tag."""
    tag = entity_tag(representation)
    answer = json_response(representation, headers=(headers or {}) | {"ETag": tag})
    if not matches_entity_tag(request.META.get("HTTP_IF_NONE_MATCH", ""), tag):
        return answer
    # Django's middleware would set 0, but it must be the length of the 200 answer (RFC 9110 section 8.6).
    length = {"Content-Length": str(len(answer.content))}
    unchanged = HttpResponseNotModified(headers=length)
    for name in ("ETag", *(headers or {})):
        unchanged[name] = answer[name]
    return unchanged


def entity_tag(representation: dict[str, Any]) -> str:
    """Make a weak entity tag. It leaves out `expires_in`, which changes every second.

    It is a keyed digest: tags are logged, and without a key a purpose or context could be guessed from one.
    """
    digest = key_ring().digest("entity-tag", msgspec.json.encode(_without_seconds(representation)))[-_TAG_BYTES:]
    return f'W/"{base64.urlsafe_b64encode(digest).decode()}"'


def matches_entity_tag(if_none_match: str, tag: str) -> bool:
    """Whether the header `If-None-Match` names this entity tag, by weak comparison (RFC 9110 section 13.1.2)."""
    tags = parse_etags(if_none_match)
    return "*" in tags or tag.removeprefix("W/") in {named.removeprefix("W/") for named in tags}


def _without_seconds(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_seconds(member) for name, member in value.items() if name != "expires_in"}
    if isinstance(value, list):
        return [_without_seconds(member) for member in value]
    return value
