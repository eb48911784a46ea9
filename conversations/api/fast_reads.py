"""What the fast paths of reads share: the key and the query of a GET."""

from collections.abc import Collection
from typing import Any, Final, NamedTuple

from django.core.exceptions import SuspiciousOperation
from django.http import QueryDict

from brands.authentication import PresentedKey

# Of a GET without a body. Another one may name a charset, by which Django decodes the query.
_CONTENT_TYPES: Final = {None, "", "text/plain", "application/json"}


class PresentedRead(NamedTuple):
    """Who wants to read, and with which parameters."""

    presented: PresentedKey
    query: dict[str, str]


def presented_read(environ: dict[str, Any], parameters: Collection[str]) -> PresentedRead | None:
    """Return what a GET presents; None for another method, no well-formed key, or a query that is not allowed."""
    if environ.get("REQUEST_METHOD") != "GET" or environ.get("CONTENT_TYPE") not in _CONTENT_TYPES:
        return None
    presented = PresentedKey.read(environ.get("HTTP_AUTHORIZATION", ""))
    query = _query(environ.get("QUERY_STRING", ""), parameters)
    return None if presented is None or query is None else PresentedRead(presented, query)


def _query(text: str, parameters: Collection[str]) -> dict[str, str] | None:
    """Parse the query as Django does. Returns None for one that is not allowed."""
    if not text:
        return {}
    if not text.isascii():
        return None
    try:
        given = QueryDict(text)
    except SuspiciousOperation:
        return None
    return given.dict() if all(name in parameters and len(values) == 1 for name, values in given.lists()) else None
