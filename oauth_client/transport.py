"""HTTP client for calls to brands' servers. An admin typed the URL, so the server may be, or become, hostile.

Every call validates the URL again, resolves the name once, requires `may_be_called` of all addresses, and connects to
one of them (N2, N3, N14); the next one is tried only if connecting fails. No redirect, proxy, `.netrc` or environment
variable is used (N4, N5). Time (N6) and size (N7) are limited, and nothing is retried (E20). The adapters live as long
as the process, and keep connections for less than a minute.

The deadline does not cover name resolution: the resolver's settings bound it (`options timeout:1 attempts:2` in
resolv.conf). Plain http, which is for loopback only, checks neither the deadline nor the size during a read.
"""

import math
import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing, contextmanager
from contextvars import ContextVar
from functools import lru_cache
from io import BytesIO
from time import monotonic
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

import certifi
import requests
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured, ValidationError
from requests.adapters import BaseAdapter
from requests.structures import CaseInsensitiveDict
from requests.utils import get_encoding_from_headers
from requests_hardened.ip_filter import InvalidIPAddress  # type: ignore[import-untyped]
from requests_hardened.ip_filter_adapter import IPFilterAdapter  # type: ignore[import-untyped]
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, HTTPError
from urllib3.util import Timeout

from oauth_client.addresses import callable_addresses
from oauth_client.outbound_errors import (
    ADDRESS_NOT_ALLOWED,
    CertificateNotAccepted,
    EndpointBlocked,
    EndpointTimeout,
    EndpointUnreachable,
    OutboundError,
    ResponseTooLarge,
    failure_of,
)
from oauth_client.response_bodies import read_body
from oauth_client.validators import validate_endpoint

# The errors, which callers find here, too.
__all__ = [
    "CertificateNotAccepted",
    "EndpointBlocked",
    "EndpointTimeout",
    "EndpointUnreachable",
    "OutboundError",
    "ResponseTooLarge",
]

TOTAL_TIMEOUT: Final = 10.0
CONNECT_TIMEOUT: Final = 3.0
READ_TIMEOUT: Final = 5.0
# Servers and firewalls drop a connection after 60 idle seconds, some silently. A request that we send on a dropped
# connection, perhaps with a code, would be lost. So we close idle connections earlier.
MAX_IDLE: Final = 50.0
MAX_BODY_BYTES: Final = 65_536
# Of a body of the largest size, read with its headers and frames: a chunk of one byte has six.
_MOST_READ_PER_BYTE: Final = 12

# Pool sizes: how many endpoints, and how many connections to each. By default a process has fewer threads.
_KEPT_ENDPOINTS: Final = 64
_KEPT_CONNECTIONS: Final = 32

_HEADERS: Final = {"User-Agent": "consumer-delegation", "Accept-Encoding": "identity"}

# An address that requests would leave as it is: nothing in it can be encoded, decoded or normalised.
_PLAIN_URL: Final = re.compile(
    r"https://[a-z0-9][a-z0-9.-]*(?::[1-9][0-9]*)?(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+/?(?:\?[A-Za-z0-9._~=&-]+)?"
)

# The response type, for modules that may not import requests.
Response = requests.Response

_deadline: ContextVar[float] = ContextVar("deadline", default=math.inf)
# The resolved and checked addresses of the current call.
_addresses: ContextVar[tuple[str, ...]] = ContextVar("addresses", default=())
_max_body: ContextVar[int] = ContextVar("max_body", default=MAX_BODY_BYTES)
# How many bytes of the current call's answer may still be read.
_left_to_read: ContextVar[float] = ContextVar("left_to_read", default=math.inf)
# Whether a byte of the current call's request has been written.
_is_sent: ContextVar[bool] = ContextVar("is_sent", default=False)
# The deadline of all calls in a block, set by `within`.
_block_deadline: ContextVar[float] = ContextVar("block_deadline", default=math.inf)


def adapter_for(url: str) -> BaseAdapter:
    """Return the adapter that all guarded sessions of the process share."""
    secure = url.lower().startswith("https:")
    return _adapter(secure, settings.ALLOW_LOCAL_ENDPOINTS, settings.OUTBOUND_CA_FILE)


class GuardedSession(requests.Session):
    """A requests session that always uses the guarded adapter. Raises `OutboundError`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # REQUESTS_CA_BUNDLE would replace our certificates, a proxy our address check, .netrc our credentials (N5).
        self.trust_env = False
        # Closing a session closes its mounted adapters. Ours outlive sessions, so none is mounted.
        self.adapters.clear()
        self.headers.update(_HEADERS)

    def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
        """Prepare a request. A URL that requests cannot encode is blocked, because its error would quote the URL."""
        try:
            return super().prepare_request(request)
        except ValueError:
            raise EndpointBlocked(ADDRESS_NOT_ALLOWED) from None

    def get_adapter(self, url: str) -> BaseAdapter:
        return adapter_for(url)

    def get_redirect_target(self, resp: requests.Response) -> None:  # noqa: ARG002  the library's signature
        """Follow no redirect: 307 and 308 would post code, verifier and secret to another server (N4)."""
        return


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Limit the total time of all calls in the block. Each call still has its own `TOTAL_TIMEOUT`."""
    before = _block_deadline.set(min(monotonic() + seconds, _block_deadline.get()))
    try:
        yield
    finally:
        _block_deadline.reset(before)


def get(url: str, accept: str = "application/json") -> requests.Response:
    """Fetch a document. Raises `OutboundError`. The caller judges the status."""
    return send("GET", url, None, {"Accept": accept})


def post(url: str, body: bytes, headers: dict[str, str]) -> requests.Response:
    """Post bytes unchanged. Raises `OutboundError`. The caller judges the status."""
    return send("POST", url, body, headers)


def send(
    method: str, url: str, body: bytes | None, headers: dict[str, str], *, max_body_bytes: int = MAX_BODY_BYTES
) -> Response:
    """Send any request. Raises `OutboundError`. The caller judges the status.

    Without a session: its cookies and redirects must not be (N4, P6), and it takes time.
    """
    before = _max_body.set(max_body_bytes)
    try:
        prepared = _prepared(method, url, body, headers)  # before anything is chosen by a URL that may be none
        return adapter_for(url).send(prepared)
    finally:
        _max_body.reset(before)


def _prepared(method: str, url: str, body: bytes | None, headers: dict[str, str]) -> requests.PreparedRequest:
    # Of names that differ in case alone the library takes the last.
    prepared, merged = requests.PreparedRequest(), _HEADERS | headers
    try:
        if _PLAIN_URL.fullmatch(url):
            prepared.method, prepared.url = method.upper(), url
            prepared.prepare_headers(merged)
            prepared.prepare_body(body, None)
        else:
            prepared.prepare(method=method, url=url, headers=merged, data=body)
    except ValueError:  # its message quotes the URL
        raise EndpointBlocked(ADDRESS_NOT_ALLOWED) from None
    return prepared


class GuardedAdapter(IPFilterAdapter):  # type: ignore[misc]  # the package has no types
    """Connects only to checked addresses and limits time and size, whatever the session asks for.

    The library's own `send` is not used. urllib3 retries nothing here: the inherited `max_retries` is 0. A closed
    keep-alive connection is noticed before anything is sent. If it closes while we send, the call fails and is not
    repeated.
    """

    def __init__(self, *, secure: bool, allow_loopback: bool, ca_file: str) -> None:
        self._secure = secure
        self._tls = _tls_context(ca_file) if secure else None
        super().__init__(is_https_proto=secure, allow_loopback=allow_loopback)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **options: Any) -> None:
        """Keep more endpoints and connections than the default of ten each."""
        super().init_poolmanager(max(connections, _KEPT_ENDPOINTS), max(maxsize, _KEPT_CONNECTIONS), block, **options)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}

    def send(self, request: requests.PreparedRequest, *_arguments: Any, **_options: Any) -> requests.Response:
        """Send a request and return the complete response. The session's timeouts and `verify` are ignored."""
        deadline = _deadline.set(min(monotonic() + TOTAL_TIMEOUT, _block_deadline.get()))
        addresses, is_sent = _addresses.set(()), _is_sent.set(False)
        left = _left_to_read.set(_MOST_READ_PER_BYTE * _max_body.get())
        try:
            return self._send_and_read(request)
        except (InvalidIPAddress, ValidationError, requests.RequestException, HTTPError, OSError, ValueError) as error:
            failure = failure_of(error)
            failure.was_sent = _is_sent.get()
            raise failure from None
        finally:
            _deadline.reset(deadline)
            _addresses.reset(addresses)
            _is_sent.reset(is_sent)
            _left_to_read.reset(left)

    def _send_and_read(self, request: requests.PreparedRequest) -> requests.Response:
        validate_endpoint(str(request.url))
        target = urlsplit(str(request.url))
        has_length = request.body is None or "Content-Length" in request.headers
        # Names of headers are compared without case here, so there is one `Host`.
        request.headers["Host"] = target.netloc
        # As the library's `send` does, which copies more and keeps cookies.
        answered: Any = self._pool(target).urlopen(
            str(request.method),
            (target.path or "/") + (f"?{target.query}" if target.query else ""),
            body=request.body,
            headers=request.headers,
            redirect=False,
            assert_same_host=False,
            preload_content=False,
            decode_content=False,
            retries=self.max_retries,
            timeout=Timeout(connect=CONNECT_TIMEOUT, read=READ_TIMEOUT),
            chunked=not has_length,
        )
        with closing(answered) as raw:
            return _response(request, raw, read_body(raw, _max_body.get()))

    def _pool(self, target: SplitResult) -> HTTPConnectionPool:
        """Resolve the name once, check every address, connect to one of them (N2).

        Connections are pooled by the first address.
        """
        host, port = target.hostname or "", target.port or (443 if self._secure else 80)
        # Not `assert_hostname`: urllib3 would then disable OpenSSL's own hostname check in the shared context. Our TLS
        # context verifies.
        options = {"ssl_context": self._tls, "server_hostname": host} if self._tls else {}
        pool: HTTPConnectionPool = self.poolmanager.connection_from_host(
            self._checked_address(host, port), port, target.scheme, pool_kwargs=options
        )
        return pool

    def _checked_address(self, host: str, port: int) -> str:
        """Resolve the host. Return its first address. Raises `EndpointBlocked` if any of them may not be called."""
        answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        if monotonic() > _deadline.get():
            raise TimeoutError
        found = tuple(str(answer[4][0]) for answer in answers)
        checked = callable_addresses(found, port, allow_loopback=bool(self._allow_loopback))
        if not checked:
            raise EndpointBlocked(ADDRESS_NOT_ALLOWED)
        _addresses.set(checked)
        return checked[0]


def _response(request: requests.PreparedRequest, raw: Any, body: bytes) -> requests.Response:
    """Return a complete response. Its cookies are not read: nobody keeps any (P6)."""
    response = requests.Response()
    response.status_code, response.reason = raw.status, raw.reason
    response.headers = CaseInsensitiveDict(raw.headers)
    response.encoding = get_encoding_from_headers(response.headers)
    response.url, response.request = str(request.url), request
    response.raw = BytesIO(body)
    # As `Response.content` would, which reads it in pieces.
    response._content = body  # noqa: SLF001
    return response


class _DeadlineSocket(ssl.SSLSocket):
    """A TLS socket whose reads end at the call's deadline (N6), and after so many bytes (N7).

    The read timeout of requests restarts with every byte, so a server that sends its headers slowly could block a
    thread for hours. The frames of chunks can be much longer than the body, whose bytes alone are counted later.
    """

    def recv_into(self, *arguments: Any, **options: Any) -> int:
        self._limit(READ_TIMEOUT)
        read = super().recv_into(*arguments, **options)
        _left_to_read.set(_left_to_read.get() - read)
        if _left_to_read.get() < 0:
            raise ResponseTooLarge("the answer is too large")
        return read

    def do_handshake(self, block: bool = False) -> None:
        """Do the TLS handshake, at most until the deadline or this address's timeout."""
        self._limit(self.gettimeout() or CONNECT_TIMEOUT)
        super().do_handshake(block)

    def _limit(self, seconds: float) -> None:
        left = _deadline.get() - monotonic()
        if left <= 0:
            raise TimeoutError("the deadline has passed")
        self.settimeout(min(seconds, left))


class _CheckedConnection(HTTPConnection):
    """A connection to the first checked address that accepts one, reused while the server keeps it open.

    Other addresses are tried only while connecting, TLS included. The request is written after that, so a code is sent
    to one address, once (E20).
    """

    _idle_since = -math.inf

    def connect(self) -> None:
        """Connect. Raises urllib3's error, preferring a TLS error of any address."""
        # Stop connecting early enough to leave READ_TIMEOUT for the response: a code, once sent, cannot be sent again.
        until = min(_deadline.get(), monotonic() + TOTAL_TIMEOUT - READ_TIMEOUT)
        *others, last = _addresses.get()
        failures: list[Exception] = []
        for address in (*others, last):
            seconds = min(CONNECT_TIMEOUT if address == last else CONNECT_TIMEOUT / 2, until - monotonic())
            if seconds <= 0:
                failures.append(ConnectTimeoutError(self, "no time is left"))
                break
            self._dns_host, self.timeout = address, seconds
            try:
                super().connect()
            except (HTTPError, OSError) as error:
                self._drop_socket()
                failures.append(error)
            else:
                return
        raise next((error for error in failures if isinstance(error, ssl.SSLError)), failures[-1])

    def _drop_socket(self) -> None:
        """Close only the socket. `close` would also clear the state of the request that urllib3 has begun to send."""
        if self.sock is not None:
            self.sock.close()
            self.sock = None

    @property
    def is_connected(self) -> bool:
        """Whether a kept connection may be reused. urllib3 asks before anything is sent."""
        is_fresh = monotonic() - self._idle_since < MAX_IDLE
        is_checked = self._dns_host in _addresses.get()
        # What a server sent beyond its answer would be read as the answer to the next request.
        is_empty = not (isinstance(self.sock, ssl.SSLSocket) and self.sock.pending())
        return is_fresh and is_checked and is_empty and super().is_connected

    def send(self, data: Any) -> None:
        """Write a part of the request, and note that the server may have received it."""
        if self.sock is None:
            self.connect()
        _is_sent.set(True)
        super().send(data)

    def getresponse(self) -> Any:
        """Read the start of the response, and note the time from which the connection is idle."""
        response = super().getresponse()
        self._idle_since = monotonic()
        return response


class _SecureConnection(_CheckedConnection, HTTPSConnection):
    """A `_CheckedConnection` over TLS."""


class _Pool(HTTPConnectionPool):
    ConnectionCls = _CheckedConnection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


@lru_cache(maxsize=8)
def _adapter(secure: bool, allow_loopback: bool, ca_file: str) -> GuardedAdapter:
    return GuardedAdapter(secure=secure, allow_loopback=allow_loopback, ca_file=ca_file)


@lru_cache(maxsize=4)
def _tls_context(ca_file: str) -> ssl.SSLContext:
    """Share one TLS context, as it takes 22 ms. `create_default_context` would write keys to `SSLKEYLOGFILE` (N5)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslsocket_class = _DeadlineSocket
    context.load_verify_locations(certifi.where())
    if ca_file:
        try:
            context.load_verify_locations(ca_file)
        except OSError:
            raise ImproperlyConfigured("OUTBOUND_CA_FILE cannot be read, or holds no certificates") from None
    return context
