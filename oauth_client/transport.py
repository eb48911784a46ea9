"""HTTP client for calls to brands' servers. An admin typed the URL, so the server may be, or become, hostile.

Every call validates the URL again, resolves the name once, requires `may_be_called` of all addresses, and connects to
one of them (N2, N3, N14); the next one is tried only if connecting fails. No redirect, proxy, `.netrc` or environment
variable is used (N4, N5). Time (N6) and size (N7) are limited, and nothing is retried (E20). The adapters live as long
as the process, and keep connections for less than a minute.

The deadline does not cover name resolution: the resolver's settings bound it (`options timeout:1 attempts:2` in
resolv.conf). Plain http, which is for loopback only, checks neither the deadline nor the size during a read.
"""

import math
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing, contextmanager
from contextvars import ContextVar
from functools import lru_cache
from io import BytesIO
from ipaddress import IPv4Address, IPv6Address, ip_address
from time import monotonic
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import certifi
import requests
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured, ValidationError
from requests.adapters import BaseAdapter, HTTPAdapter
from requests.structures import CaseInsensitiveDict
from requests_hardened.ip_filter import InvalidIPAddress  # type: ignore[import-untyped]
from requests_hardened.ip_filter_adapter import IPFilterAdapter  # type: ignore[import-untyped]
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, HTTPError
from urllib3.exceptions import TimeoutError as PoolTimeoutError

from oauth_client.addresses import alternating_families, is_private, may_be_called
from oauth_client.certificates import CertificateProblem, certificate_problem
from oauth_client.validators import validate_endpoint

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

_ADDRESS_NOT_ALLOWED: Final = "the address is not allowed"
_HEADERS: Final = {"User-Agent": "consumer-delegation", "Accept-Encoding": "identity"}

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


class OutboundError(Exception):
    """A call to a brand's server failed. The message contains no address and no text from the server (H5).

    `was_sent` is false only if no byte of the request was written, so that the server cannot have received it.
    """

    was_sent = True


class EndpointBlocked(OutboundError):
    """The URL or its address is not allowed."""

    was_sent = False


class EndpointTimeout(OutboundError):
    """The server did not respond in time. It may have received the request."""


class EndpointUnreachable(OutboundError):
    """No connection, no trusted certificate, or no HTTP response. The server may have received the request."""


class CertificateNotAccepted(EndpointUnreachable):
    """The TLS certificate is not valid for this name. Nothing was sent. The address itself is allowed."""

    def __init__(self, problem: CertificateProblem) -> None:
        super().__init__(f"the server's TLS certificate was not accepted: {problem}")
        self.problem = problem


class ResponseTooLarge(OutboundError):
    """The response is larger than the call allows: 65,536 bytes, or what `send` was given."""


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
            raise EndpointBlocked(_ADDRESS_NOT_ALLOWED) from None

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
        return adapter_for(url).send(_prepared(method, url, body, headers))
    finally:
        _max_body.reset(before)


def _prepared(method: str, url: str, body: bytes | None, headers: dict[str, str]) -> requests.PreparedRequest:
    prepared, merged = requests.PreparedRequest(), CaseInsensitiveDict(_HEADERS)
    merged.update(headers)
    try:
        prepared.prepare(method=method, url=url, headers=merged, data=body)
    except ValueError:  # its message quotes the URL
        raise EndpointBlocked(_ADDRESS_NOT_ALLOWED) from None
    return prepared


class GuardedAdapter(IPFilterAdapter):  # type: ignore[misc]  # the package has no types
    """Connects only to checked addresses and limits time and size, whatever the session asks for.

    urllib3 retries nothing here: the inherited `max_retries` is 0. A closed keep-alive connection is noticed before
    anything is sent. If it closes while we send, the call fails and is not repeated.
    """

    def __init__(self, *, secure: bool, allow_loopback: bool, ca_file: str) -> None:
        self._secure = secure
        self._ca_file = ca_file
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
            failure = _failure(error)
            failure.was_sent = _is_sent.get()
            raise failure from None
        finally:
            _deadline.reset(deadline)
            _addresses.reset(addresses)
            _is_sent.reset(is_sent)
            _left_to_read.reset(left)

    def _send_and_read(self, request: requests.PreparedRequest) -> requests.Response:
        validate_endpoint(str(request.url))
        response: requests.Response = super().send(request, stream=True, timeout=(CONNECT_TIMEOUT, READ_TIMEOUT))
        most = _max_body.get()
        with closing(response.raw) as raw:
            # An interim response: the final one may come later, and would be read as the answer to the next request.
            if response.status_code < requests.codes.ok:
                raise EndpointUnreachable("the server sent no final response")
            # Read one byte too many, counted after decompression: 50 KB of gzip can be 50 MB (N7).
            body = raw.read(most + 1, decode_content=True)
        if len(body) > most:
            raise ResponseTooLarge("the answer is too large")
        response.raw = BytesIO(body)
        return response

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: Any, cert: Any = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Resolve the name once, check every address, connect to one of them (N2).

        Connections are pooled by the first address.
        """
        target = urlsplit(str(request.url))
        pinned = request.copy()
        pinned.url = urlunsplit(target._replace(netloc=self._checked_authority(target.hostname or "", target.port)))
        # The library's own filter would refuse an allowed private address, too (N14).
        base: Any = HTTPAdapter if is_private(_addresses.get()[0]) else IPFilterAdapter
        host, options = base.build_connection_pool_key_attributes(self, pinned, verify, cert)
        request.headers["Host"] = target.netloc
        if not self._secure:
            return host, options
        # Not `assert_hostname`: urllib3 would then disable OpenSSL's own hostname check in the shared context.
        return host, {"ssl_context": _tls_context(self._ca_file), "server_hostname": target.hostname}

    def cert_verify(self, *_arguments: Any) -> None:
        """Do nothing: our TLS context verifies. requests would load all of certifi for each connection."""

    def _checked_authority(self, host: str, port: int | None) -> str:
        """Resolve and check the host. Raises `EndpointBlocked` if any address may not be called."""
        port = port or (443 if self._secure else 80)
        answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        if monotonic() > _deadline.get():
            raise TimeoutError
        addresses = [ip_address(answer[4][0]) for answer in answers]
        if not addresses or not all(self._is_allowed(address, port) for address in addresses):
            raise EndpointBlocked(_ADDRESS_NOT_ALLOWED)
        _addresses.set(alternating_families(addresses))
        return f"[{addresses[0]}]:{port}" if isinstance(addresses[0], IPv6Address) else f"{addresses[0]}:{port}"

    def _is_allowed(self, address: IPv4Address | IPv6Address, port: int) -> bool:
        return (bool(self._allow_loopback) and address.is_loopback) or may_be_called(address, port)


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


def _failure(error: Exception) -> OutboundError:
    if isinstance(error, InvalidIPAddress | ValidationError):
        return EndpointBlocked(_ADDRESS_NOT_ALLOWED)
    if isinstance(error, requests.Timeout | PoolTimeoutError | TimeoutError):
        return EndpointTimeout("the server did not answer in time")
    if isinstance(error, requests.exceptions.SSLError):
        problem = certificate_problem(error)
        return CertificateNotAccepted(problem) if problem else EndpointUnreachable("no TLS connection could be made")
    return EndpointUnreachable("the server could not be reached, or its answer is not HTTP")


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
