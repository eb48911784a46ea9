"""Answer a bot, or the button, before Django's handler: what the middleware checks, and the headers that it adds.

The `fast_` modules answer here what is plainly all right. Whatever is not goes on to the handler, its middleware and
the view, which alone find the reason. So the checks here may refuse too much, and never too little.
"""

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from time import monotonic
from typing import Any, Final

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, connections
from django.http.request import split_domain_port, validate_host

from conversations import fast_begin
from conversations.api import fast_call, fast_challenge_read, fast_create, fast_token_read
from conversations.api.fast_bodies import Reply
from conversations.links import LinkToken
from infrastructure.logs import REQUEST_ID, REQUEST_ID_HEADER, begin_request
from web.answered_before import ANSWERED_BEFORE, FAILED_BEFORE
from web.errors import has_nul
from web.middleware import headers_of_bot_answers, headers_of_redirects

Environ = dict[str, Any]
Application = Callable[..., Iterable[bytes]]
Headers = list[tuple[str, str]]

_LINK: Final = LinkToken.url_name
# The last group is named as the URL that it is.
_PATH: Final = re.compile(
    r"/api/v1/(?:conversations/([^/]+)/(?:(?P<token>token)|(?P<challenges>challenges)|calls/(?P<call>[^/]+))"
    rf"|challenges/(?P<challenge>[^/]+))|/c/(?P<link>{LinkToken.regex})"
)
_PREPARED: Final[dict[str | None, Any]] = {
    "token": fast_token_read.prepared,
    "challenges": fast_create.prepared,
    "call": fast_call.prepared,
    "challenge": fast_challenge_read.prepared,
    _LINK: fast_begin.prepared,
}
# By these a server moves the beginning of the path, which the URLs and the middleware look at.
_MOVED: Final = ("SCRIPT_NAME", "SCRIPT_URL", "REDIRECT_URL")
_LENGTH: Final = "Content-Length"
_TYPE: Final = "Content-Type"
_NOT_MODIFIED: Final = 304


def before(application: Application) -> Application:
    """Wrap a WSGI application: answer what is plainly all right here, and pass everything else on."""

    def answer(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = _PATH.fullmatch(environ.get("PATH_INFO", ""))
        is_secure = path is not None and _is_secure(environ)
        found = _answer(environ, path, is_secure=is_secure) if path and _passes_middleware(environ, is_secure) else None
        if path is None or found is None:
            return application(environ, start_response)
        headers, reply = found
        status = int(reply.status[:3])
        environ[ANSWERED_BEFORE] = path.lastgroup, status
        if status == _NOT_MODIFIED:
            # The length is that of the 200 answer (RFC 9110 section 8.6).
            start_response(reply.status, [pair for pair in headers if pair[0] != _TYPE])
            return []
        start_response(reply.status, headers)
        return [reply.body]

    return answer


def _passes_middleware(environ: Environ, is_secure: bool) -> bool:
    """Whether this is a request that no middleware in front of the views would answer itself."""
    return (
        not any(environ.get(name) for name in _MOVED)
        and (is_secure or not settings.SECURE_SSL_REDIRECT)
        and not has_nul(environ)
        and _is_allowed(environ.get("HTTP_HOST", ""), tuple(settings.ALLOWED_HOSTS))
    )


def _is_secure(environ: Environ) -> bool:
    """Whether the request came by TLS, as `HttpRequest.scheme` decides it."""
    header = settings.SECURE_PROXY_SSL_HEADER
    if header:
        name, value = header
        if name in environ:
            return bool(environ[name].partition(",")[0].strip() == value)
    return environ.get("wsgi.url_scheme") == "https"


@lru_cache(maxsize=64)
def _is_allowed(host: str, allowed: tuple[str, ...]) -> bool:
    """Check `Host` as `HttpRequest.get_host` does (B16)."""
    domain, _ = split_domain_port(host)
    return bool(domain) and validate_host(domain, allowed)


def _answer(environ: Environ, path: re.Match[str], *, is_secure: bool) -> tuple[Headers, Reply] | None:
    """Return all headers of the answer, and the answer; None if the full way has to answer.

    What an error ends is not tried again: the full way raises the error where each call begins, and answers it.
    """
    answered = _PREPARED[path.lastgroup](environ, path)
    if answered is None:
        return None
    headers = _headers(environ, is_secure=is_secure, is_link=path.lastgroup == _LINK)
    request_id = environ[REQUEST_ID] = begin_request()
    try:
        reply = answered()
    except Exception as error:  # noqa: BLE001  # raised again by the full way, which answers it
        environ[FAILED_BEFORE] = error
        return None
    _release(connections[DEFAULT_DB_ALIAS])
    if reply is None:
        return None
    return [*headers, *reply.headers, (_LENGTH, str(len(reply.body))), (REQUEST_ID_HEADER, request_id)], reply


def _release(database: Any) -> None:
    """End a connection that is old or broken, as Django does after each request. A test's transaction keeps its own."""
    is_old = database.close_at is not None and monotonic() >= database.close_at
    if (is_old or database.errors_occurred) and not database.in_atomic_block:
        database.close_if_unusable_or_obsolete()


_kept_headers: dict[tuple[bool, bool], list[tuple[str, str]]] = {}


def _headers(environ: Environ, *, is_secure: bool, is_link: bool) -> list[tuple[str, str]]:
    """Return the headers of every answer to a bot, or of every redirect of a link; they are the same each time.

    The length and the request id are not among them.
    """
    kind = is_secure, is_link
    if kind not in _kept_headers:
        headers = (headers_of_redirects if is_link else headers_of_bot_answers)(environ)
        _kept_headers[kind] = [pair for pair in headers.items() if pair[0] not in {_LENGTH, REQUEST_ID_HEADER}]
    return _kept_headers[kind]
