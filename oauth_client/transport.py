"""Guarded HTTP to the servers of brands. An address comes from an admin, so it may be wrong, hostile, or hostile later.

Every call: the address is validated again; its name is resolved once, all answers have to be public, and we connect to
what was checked (N2, N3), to the next one where an address takes no connection; no redirect, proxy, `.netrc` or
environment (N4, N5); bounded in time (N6) and in size (N7); never repeated (E20). Sessions come and go; the adapters
keep connections, for less than a minute, and the TLS context for the whole process.

What the deadline does not hold: name resolution takes as long as the resolver's own settings allow (`options timeout:1
attempts:2` in resolv.conf bounds it). Plain http exists for loopback alone and has no deadline within one read.
Measured with TOTAL_TIMEOUT 10 against servers that send one byte a second: status line, headers, body and chunk sizes
each end after 10.0 s.
"""

import math
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing, contextmanager
from contextvars import ContextVar
from functools import lru_cache
from io import BytesIO
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from itertools import zip_longest
from time import monotonic
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import certifi
import requests
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured, ValidationError
from requests.adapters import BaseAdapter
from requests_hardened.ip_filter import InvalidIPAddress  # type: ignore[import-untyped]
from requests_hardened.ip_filter_adapter import IPFilterAdapter  # type: ignore[import-untyped]
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, HTTPError
from urllib3.exceptions import TimeoutError as PoolTimeoutError

from oauth_client.validators import validate_endpoint

TOTAL_TIMEOUT: Final = 10.0
CONNECT_TIMEOUT: Final = 3.0
READ_TIMEOUT: Final = 5.0
# Servers, and the firewalls before them, forget a connection that is idle for 60 seconds; some say nothing, and what is
# sent on it then is lost, a code with it. Earlier than they do, since a packet takes a moment.
MAX_IDLE: Final = 50.0
MAX_BODY_BYTES: Final = 65_536

# Endpoints whose connections are kept, and how many connections of each: above what one process has threads.
_KEPT_ENDPOINTS: Final = 64
_KEPT_CONNECTIONS: Final = 32

# An own list, since `is_global` calls several of these public (N3). Of IPv6 only 2000::/3 is handed out at all.
_IPV4_NOT_PUBLIC: Final = (
    ip_network("0.0.0.0/8"),
    ip_network("10.0.0.0/8"),
    ip_network("100.64.0.0/10"),  # carrier-grade NAT; clouds put their own services there
    ip_network("127.0.0.0/8"),
    ip_network("169.254.0.0/16"),  # link-local; 169.254.169.254 hands out a cloud machine's credentials
    ip_network("172.16.0.0/12"),
    ip_network("192.0.0.0/24"),
    ip_network("192.0.2.0/24"),
    ip_network("192.88.99.0/24"),  # 6to4 relays
    ip_network("192.168.0.0/16"),
    ip_network("198.18.0.0/15"),
    ip_network("198.51.100.0/24"),
    ip_network("203.0.113.0/24"),
    ip_network("224.0.0.0/4"),  # multicast
    ip_network("240.0.0.0/4"),
)
_IPV6_UNICAST: Final = ip_network("2000::/3")
_IPV6_NOT_PUBLIC: Final = (
    ip_network("2001::/23"),  # protocol assignments, Teredo and ORCHID among them
    ip_network("2001:db8::/32"),
    ip_network("2002::/16"),  # 6to4: 2002:7f00:1:: holds 127.0.0.1
    ip_network("3fff::/20"),
)

_NOT_CALLED: Final = "the address is not one that is called"

# What a call returns, for those who may not import the library.
Response = requests.Response

_deadline: ContextVar[float] = ContextVar("deadline", default=math.inf)
# What the name of the running call has resolved to, all of it checked.
_addresses: ContextVar[tuple[str, ...]] = ContextVar("addresses", default=())
_latest: ContextVar[float] = ContextVar("latest", default=math.inf)


class OutboundError(Exception):
    """A call to a brand's server failed. The message is one of ours: no address, no text of the server (H5)."""


class EndpointBlocked(OutboundError):
    """The address is not one that we call."""


class EndpointTimeout(OutboundError):
    """The server did not answer in time. It may have received the request."""


class EndpointUnreachable(OutboundError):
    """No connection, no trusted certificate, or no HTTP answer. The server may have received the request."""


class ResponseTooLarge(OutboundError):
    """The answer is larger than 65,536 bytes."""


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Tell whether an address belongs to the public internet, and to nothing that leads back inside (N3)."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _IPV4_NOT_PUBLIC)
    return address in _IPV6_UNICAST and not any(address in network for network in _IPV6_NOT_PUBLIC)


def adapter_for(url: str) -> BaseAdapter:
    """Return the process-wide adapter that carries a request to `url`. Every guarded session asks here."""
    secure = url.lower().startswith("https:")
    return _adapter(secure, settings.ALLOW_LOCAL_ENDPOINTS, settings.OUTBOUND_CA_FILE)


class GuardedSession(requests.Session):
    """A session all of whose requests go through `adapter_for`. Raises `OutboundError`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # REQUESTS_CA_BUNDLE would override our certificates, a proxy our address check, .netrc our credentials (N5).
        self.trust_env = False
        # Closing a session closes the adapters mounted on it; ours outlive sessions, so none is mounted.
        self.adapters.clear()
        self.headers.update({"User-Agent": "consumer-delegation", "Accept-Encoding": "identity"})

    def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
        """Prepare a request. What the library cannot write down is not called; its message would quote the address."""
        try:
            return super().prepare_request(request)
        except ValueError:
            raise EndpointBlocked(_NOT_CALLED) from None

    def get_adapter(self, url: str) -> BaseAdapter:
        """Return the process-wide adapter."""
        return adapter_for(url)

    def get_redirect_target(self, resp: requests.Response) -> None:  # noqa: ARG002  the library's signature
        """Know of no redirect: 307 and 308 would post code, verifier and secret to another place (N4)."""
        return


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Bound all calls of the block together; each of them still has its own `TOTAL_TIMEOUT`."""
    before = _latest.set(min(monotonic() + seconds, _latest.get()))
    try:
        yield
    finally:
        _latest.reset(before)


def get(url: str, accept: str = "application/json") -> requests.Response:
    """Fetch a document. Raises `OutboundError`; the status is the caller's to judge."""
    with GuardedSession() as session:
        return session.get(url, headers={"Accept": accept})


def post(url: str, body: bytes, headers: dict[str, str]) -> requests.Response:
    """Post bytes as they are. Raises `OutboundError`; the status is the caller's to judge."""
    with GuardedSession() as session:
        return session.post(url, data=body, headers=headers)


class GuardedAdapter(IPFilterAdapter):  # type: ignore[misc]  # the package has no types
    """Pins a request to a checked address and bounds it, whatever the session asks for.

    urllib3 retries nothing here: the inherited `max_retries` is 0. A kept connection that the server has closed is
    noticed before anything is sent on it; one that closes while we send is a failure, not a reason to send again.
    """

    def __init__(self, *, secure: bool, allow_loopback: bool, ca_file: str) -> None:
        self._secure = secure
        self._ca_file = ca_file
        super().__init__(is_https_proto=secure, allow_loopback=allow_loopback)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **options: Any) -> None:
        """Keep more than the library's ten endpoints and ten connections each."""
        super().init_poolmanager(max(connections, _KEPT_ENDPOINTS), max(maxsize, _KEPT_CONNECTIONS), block, **options)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}

    def send(self, request: requests.PreparedRequest, *_arguments: Any, **_options: Any) -> requests.Response:
        """Send a request and return its complete answer. A session's own time-outs and `verify` are not followed."""
        deadline = min(monotonic() + TOTAL_TIMEOUT, _latest.get())
        running, nowhere = _deadline.set(deadline), _addresses.set(())
        try:
            return self._exchange(request)
        except (InvalidIPAddress, ValidationError):
            raise EndpointBlocked(_NOT_CALLED) from None
        except (requests.Timeout, PoolTimeoutError, TimeoutError):
            raise EndpointTimeout("the server did not answer in time") from None
        except requests.exceptions.SSLError:
            raise EndpointUnreachable("the server's TLS certificate was not accepted") from None
        except (requests.RequestException, HTTPError, OSError, ValueError):
            raise EndpointUnreachable("the server could not be reached, or its answer is not HTTP") from None
        finally:
            _deadline.reset(running)
            _addresses.reset(nowhere)

    def _exchange(self, request: requests.PreparedRequest) -> requests.Response:
        validate_endpoint(str(request.url))
        response: requests.Response = super().send(request, stream=True, timeout=(CONNECT_TIMEOUT, READ_TIMEOUT))
        with closing(response.raw) as raw:
            # One byte more than allowed, counted after decompression: 50 KB of gzip can be 50 MB (N7).
            body = raw.read(MAX_BODY_BYTES + 1, decode_content=True)
        if len(body) > MAX_BODY_BYTES:
            raise ResponseTooLarge("the answer is too large")
        response.raw = BytesIO(body)
        return response

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: Any, cert: Any = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Resolve once, check every address, and connect to one of them, under the name that was asked for (N2).

        Connections are kept by the first address; `_CheckedConnection` tells which one it was that took ours.
        """
        target = urlsplit(str(request.url))
        pinned = request.copy()
        pinned.url = urlunsplit(target._replace(netloc=self._checked_authority(target.hostname or "", target.port)))
        host, options = super().build_connection_pool_key_attributes(pinned, verify, cert)
        request.headers["Host"] = target.netloc
        if not self._secure:
            return host, options
        # `assert_hostname` would make urllib3 switch OpenSSL's own check of the name off, in the shared context.
        return host, {"ssl_context": _tls_context(self._ca_file), "server_hostname": target.hostname}

    def cert_verify(self, *_arguments: Any) -> None:
        """Leave the pool alone: our context verifies; the library would load all of certifi for each connection."""

    def _checked_authority(self, host: str, port: int | None) -> str:
        """Return address and port to connect to. Raises `EndpointBlocked` where one of the addresses is not public."""
        port = port or (443 if self._secure else 80)
        answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        if monotonic() > _deadline.get():
            raise TimeoutError
        addresses = [ip_address(answer[4][0]) for answer in answers]
        if not addresses or not all(self._is_allowed(address) for address in addresses):
            raise EndpointBlocked(_NOT_CALLED)
        _addresses.set(_in_turn(addresses))
        return f"[{addresses[0]}]:{port}" if isinstance(addresses[0], IPv6Address) else f"{addresses[0]}:{port}"

    def _is_allowed(self, address: IPv4Address | IPv6Address) -> bool:
        return is_public(address) or (bool(self._allow_loopback) and address.is_loopback)


class _DeadlineSocket(ssl.SSLSocket):
    """A TLS socket none of whose reads outlasts the deadline of the call that it serves (N6).

    The library's read time-out starts anew with every byte that arrives, so a server that drips its headers could hold
    a thread for hours.
    """

    def recv_into(self, *arguments: Any, **options: Any) -> int:
        """Read, for at most as long as the call has left."""
        self._limit(READ_TIMEOUT)
        return super().recv_into(*arguments, **options)

    def do_handshake(self, block: bool = False) -> None:
        """Shake hands, for at most as long as this address and the call have left."""
        self._limit(self.gettimeout() or CONNECT_TIMEOUT)
        super().do_handshake(block)

    def _limit(self, seconds: float) -> None:
        left = _deadline.get() - monotonic()
        if left <= 0:
            raise TimeoutError("the deadline has passed")
        self.settimeout(min(seconds, left))


class _CheckedConnection(HTTPConnection):
    """A connection to whichever of the call's checked addresses takes one first, kept for as long as servers keep it.

    Addresses are tried while we connect, TLS included. Nothing of a request is written before one of them has taken the
    connection, so a code goes to one of them, once (E20).
    """

    _idle_since = -math.inf

    def connect(self) -> None:
        """Connect. Raises what the library does, of the address that says most."""
        # So that half of the call's time is left for the answer: a code that was sent has to be waited for.
        until = min(_deadline.get(), monotonic() + TOTAL_TIMEOUT - READ_TIMEOUT)
        *others, last = _addresses.get()
        failures: list[Exception] = []
        for address in (*others, last):
            patience = min(CONNECT_TIMEOUT if address == last else CONNECT_TIMEOUT / 2, until - monotonic())
            if patience <= 0:
                failures.append(ConnectTimeoutError(self, "no time is left"))
                break
            self._dns_host, self.timeout = address, patience
            try:
                super().connect()
            except (HTTPError, OSError) as error:
                self._drop_socket()
                failures.append(error)
            else:
                return
        raise next((error for error in failures if isinstance(error, ssl.SSLError)), failures[-1])

    def _drop_socket(self) -> None:
        """Close the socket alone: `close` would also drop a request of plain http, whose sending connects us."""
        if self.sock is not None:
            self.sock.close()
            self.sock = None

    @property
    def is_connected(self) -> bool:
        """Tell whether a kept connection may be used again, here where nothing was sent on it yet."""
        is_fresh = monotonic() - self._idle_since < MAX_IDLE
        return is_fresh and self._dns_host in _addresses.get() and super().is_connected

    def getresponse(self) -> Any:
        """Read the beginning of an answer; from now on the server may forget the connection."""
        response = super().getresponse()
        self._idle_since = monotonic()
        return response


class _SecureConnection(_CheckedConnection, HTTPSConnection):
    """The same over TLS."""


class _Pool(HTTPConnectionPool):
    ConnectionCls = _CheckedConnection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


def _in_turn(addresses: list[IPv4Address | IPv6Address]) -> tuple[str, ...]:
    """Return each address once, the two families by turns: where IPv6 leads nowhere, IPv4 comes second (RFC 8305)."""
    first = [address for address in addresses if address.version == addresses[0].version]
    second = [address for address in addresses if address.version != addresses[0].version]
    by_turns = [address for pair in zip_longest(first, second) for address in pair if address is not None]
    return tuple(dict.fromkeys(map(str, by_turns)))


@lru_cache(maxsize=8)
def _adapter(secure: bool, allow_loopback: bool, ca_file: str) -> GuardedAdapter:
    return GuardedAdapter(secure=secure, allow_loopback=allow_loopback, ca_file=ca_file)


@lru_cache(maxsize=4)
def _tls_context(ca_file: str) -> ssl.SSLContext:
    """Return the process-wide context: building one costs 22 ms.

    Not `create_default_context`, which writes session keys to the file that `SSLKEYLOGFILE` names (N5).
    """
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
