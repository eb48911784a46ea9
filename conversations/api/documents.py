"""What a bot's developer reads: the contract for machines and the same as a page. Neither asks who is there.

Both hold nothing but the contract and our own address, so caches may keep them, which nothing else of ours allows
(`delegation_site/headers.py`).
"""

import hashlib
from collections.abc import Callable
from functools import lru_cache

import msgspec
from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.template.loader import render_to_string
from django.utils.cache import get_conditional_response

from conversations.api.contract import contract
from conversations.api.reference import reference_of
from delegation_site.problems import Problem


def openapi_json(request: HttpRequest) -> HttpResponseBase:
    """`GET /api/v1/openapi.json`."""
    return _document(request, _contract_as_json, "application/json")


def docs(request: HttpRequest) -> HttpResponseBase:
    """`GET /api/docs`."""
    return _document(request, _contract_as_page, "text/html; charset=utf-8")


def _document(request: HttpRequest, render: Callable[[str], bytes], content_type: str) -> HttpResponseBase:
    if request.method not in {"GET", "HEAD"}:
        allowed = {"Allow": "GET, HEAD"}
        return Problem(405, "method_not_allowed", "This address answers GET, HEAD.", headers=allowed).response()
    content = render(settings.PUBLIC_BASE_URL)
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {"Cache-Control": "public, max-age=300", "ETag": etag}
    response = HttpResponse(content, content_type=content_type, headers=headers)
    return get_conditional_response(request, etag=etag, response=response) or response


@lru_cache(maxsize=1)
def _contract_as_json(public_base_url: str) -> bytes:
    return msgspec.json.encode(contract(public_base_url))


@lru_cache(maxsize=1)
def _contract_as_page(public_base_url: str) -> bytes:
    document = contract(public_base_url)
    return render_to_string("api/docs.html", {"reference": reference_of(document)}).encode()
