"""`GET .../token` before Django's handler: from the request's fields and one row to body, headers and log line.

Whatever is not plainly the token goes on to the handler, to its middleware and to `token_read`, which alone find the
reason. So the checks here may refuse too much, and never too little. tests/fuzz/test_fast_token_read.py holds both ways
together.
"""

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from time import monotonic
from typing import Any, Final

import msgspec
from django.conf import settings
from django.core.exceptions import SuspiciousOperation
from django.db import DEFAULT_DB_ALIAS, connections
from django.http import QueryDict
from django.http.request import split_domain_port, validate_host
from django.utils import timezone

from brands.authentication import PresentedKey
from brands.models import BotKey
from conversations.api.calls import FAILED_BEFORE, count_token_read, seconds
from conversations.api.lookups import is_conversation_id
from conversations.api.token_read import (
    MAX_MIN_TTL,
    PARAMETER,
    PARAMETERS,
    SCOPE,
    WSGI_NAME,
    Read,
    document,
    note_read,
    read_purpose,
)
from conversations.flow.authorization_status import token_representation
from conversations.flow.readable_tokens import token_by_one_query
from infrastructure.logs import REQUEST_ID_HEADER, begin_request
from web.errors import Problem, has_nul
from web.middleware import headers_of_bot_answers

Environ = dict[str, Any]
Application = Callable[..., Iterable[bytes]]

_PATH: Final = re.compile(r"/api/v1/conversations/([^/]+)/token")
# Of a GET without a body. Another one may name a charset, by which Django decodes the query.
_CONTENT_TYPES: Final = {None, "", "text/plain", "application/json"}
# By these a server moves the beginning of the path, which the URLs and the middleware look at.
_MOVED: Final = ("SCRIPT_NAME", "SCRIPT_URL", "REDIRECT_URL")
_LENGTH: Final = "Content-Length"


def before(application: Application) -> Application:
    """Wrap a WSGI application: answer token reads here, and pass everything else on."""

    def answer(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = _PATH.fullmatch(environ.get("PATH_INFO", ""))
        found = _answer(environ, path[1]) if path and _passes_middleware(environ) else None
        if found is None:
            return application(environ, start_response)
        headers, body = found
        start_response("200 OK", headers)
        return [body]

    return answer


def _passes_middleware(environ: Environ) -> bool:
    """Whether this is a request that no middleware in front of the bot API would answer itself."""
    return (
        environ.get("REQUEST_METHOD") == "GET"
        and environ.get("CONTENT_TYPE") in _CONTENT_TYPES
        and not any(environ.get(name) for name in _MOVED)
        and (_is_secure(environ) or not settings.SECURE_SSL_REDIRECT)
        and not has_nul(environ)
        and _is_allowed(environ.get("HTTP_HOST", ""), tuple(settings.ALLOWED_HOSTS))
    )


def _is_secure(environ: Environ) -> bool:
    """Whether the request came by TLS, as `HttpRequest.scheme` decides it."""
    if settings.SECURE_PROXY_SSL_HEADER:
        name, value = settings.SECURE_PROXY_SSL_HEADER
        if name in environ:
            return bool(environ[name].partition(",")[0].strip() == value)
    return environ.get("wsgi.url_scheme") == "https"


@lru_cache(maxsize=64)
def _is_allowed(host: str, allowed: tuple[str, ...]) -> bool:
    """Check `Host` as `HttpRequest.get_host` does (B16)."""
    domain, _ = split_domain_port(host)
    return bool(domain) and validate_host(domain, allowed)


def _answer(environ: Environ, conversation_id: str) -> tuple[list[tuple[str, str]], bytes] | None:
    presented = PresentedKey.read(environ.get("HTTP_AUTHORIZATION", ""))
    query = _query(environ.get("QUERY_STRING", ""))
    if presented is None or query is None or not is_conversation_id(conversation_id):
        return None
    headers = _headers(environ)
    request_id = begin_request()
    try:
        body = _body(presented, conversation_id, query, environ.get(WSGI_NAME))
    except Exception as error:  # noqa: BLE001  # raised again by the full way, which answers it
        environ[FAILED_BEFORE] = error
        return None
    _release(connections[DEFAULT_DB_ALIAS])
    return ([*headers, (_LENGTH, str(len(body))), (REQUEST_ID_HEADER, request_id)], body) if body else None


def _release(database: Any) -> None:
    """End a connection that is old or broken, as Django does after each request. A test's transaction keeps its own."""
    is_old = database.close_at is not None and monotonic() >= database.close_at
    if (is_old or database.errors_occurred) and not database.in_atomic_block:
        database.close_if_unusable_or_obsolete()


def _query(text: str) -> dict[str, str] | None:
    """Parse the query as Django does. Returns None for one that is not allowed."""
    if not text:
        return {}
    if not text.isascii():
        return None
    try:
        given = QueryDict(text)
    except SuspiciousOperation:
        return None
    return given.dict() if all(name in PARAMETERS and len(values) == 1 for name, values in given.lists()) else None


def _body(presented: PresentedKey, conversation_id: str, query: dict[str, str], header: str | None) -> bytes | None:
    """Return the body with the token; None if the full way has to find the reason. Then nothing is counted or logged.

    Raises what counting, decryption and the database raise.
    """
    min_ttl, needed = seconds(query.get("min_ttl", "0"), MAX_MIN_TTL), query.get("scope", "")
    if min_ttl is None or not SCOPE.fullmatch(needed):
        return None
    now = timezone.now()
    found = token_by_one_query(presented, conversation_id, query.get("authorization_server", ""), min_ttl, now)
    if found is None or not _may_read(found.row.key_scopes):
        return None
    row = found.row
    # Another session, or one that is written otherwise (S3).
    if "session" in query and query["session"] != str(row.session):
        return None
    if not set(needed.split()) <= set(row.scope.split()):
        return None
    try:
        purpose = read_purpose(header, query.get(PARAMETER), is_required=row.is_purpose_required)
    except Problem:
        return None
    presented.note_use(found.key, now)
    count_token_read(presented.public_id)
    value = found.reveal("ciphertext")
    members = None if found.response_members_ciphertext is None else found.reveal("response_members_ciphertext")
    representation = token_representation(row, row.requested_scope, now)
    body = msgspec.json.encode(document(value, members, row.session, representation))
    read = Read(row.key_pk, presented.public_id, row.brand_uuid, row.conversation_uuid, row.uuid, row.purpose)
    note_read(read, purpose, now)
    return body


def _may_read(scopes: str) -> bool:
    try:
        return BotKey.Scope.TOKEN_READ in msgspec.json.decode(scopes, type=list[str])
    except msgspec.ValidationError:  # no list of scopes: what that means is decided elsewhere
        return False


_kept_headers: dict[bool, list[tuple[str, str]]] = {}


def _headers(environ: Environ) -> list[tuple[str, str]]:
    """Return the headers of every answer to a bot, but for its length and request id. They are the same each time."""
    is_secure = _is_secure(environ)
    if is_secure not in _kept_headers:
        headers = headers_of_bot_answers(environ)
        _kept_headers[is_secure] = [pair for pair in headers.items() if pair[0] not in {_LENGTH, REQUEST_ID_HEADER}]
    return _kept_headers[is_secure]
