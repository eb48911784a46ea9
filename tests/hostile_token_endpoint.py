"""A token endpoint on loopback, over TLS, that sends any bytes at any speed."""

import contextlib
import json
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from tests.tls import ServerCertificate

ACCESS_TOKEN: Final = "access-token-4Zq8vW"
REFRESH_TOKEN: Final = "planted-refresh-token-9Xk2"

_JSON: Final = "application/json"

# Bytes to send. A number is a pause in seconds.
Script = Iterable[bytes | float]


def http_answer(body: bytes = b"", status: int = 200, **headers: str) -> bytes:
    """Write an HTTP response. Underscores in header names become hyphens."""
    named = {
        "Content-Type": _JSON,
        "Content-Length": str(len(body)),
        **{k.replace("_", "-"): v for k, v in headers.items()},
    }
    lines = [f"HTTP/1.1 {status} Whatever", *[f"{name}: {value}" for name, value in named.items()]]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def token_body(**changes: Any) -> bytes:
    """Write the body of a good token response with some members changed; `...` removes a member."""
    members = {
        "access_token": ACCESS_TOKEN,
        "token_type": "Bearer",
        "expires_in": 3600,
        "refresh_token": REFRESH_TOKEN,
        **changes,
    }
    return json.dumps({name: value for name, value in members.items() if value is not ...}).encode()


def token_answer(**changes: Any) -> bytes:
    """Write a good token response with some members changed."""
    return http_answer(token_body(**changes))


@dataclass
class HostileTokenEndpoint:
    """The server. `play` sets how it answers from then on.

    `requests` are the requests it got, `connections` counts all connections, `open_connections` the open ones.
    """

    certificate: ServerCertificate
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    open_connections: int = 0
    script: Callable[[], Script] = field(default=lambda: [token_answer()])

    def __post_init__(self) -> None:
        self._context = self.certificate.server_context()
        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), self._handler(), bind_and_activate=True)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        """The endpoint's URL, with a host name that the certificate contains."""
        return f"https://localhost:{self.port}/token"

    def play(self, *parts: bytes | float) -> None:
        """Answer each request with these parts."""
        self.requests.clear()
        self.connections = 0
        self.script = lambda: parts

    def play_forever(self, head: bytes, drop: bytes, pause: float) -> None:
        """Answer with `head`, and then with `drop` after each pause, until the client closes the connection."""

        def dripping() -> Iterator[bytes | float]:
            yield head
            while True:
                yield pause
                yield drop

        self.play()
        self.script = dripping

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[socketserver.BaseRequestHandler]:
        endpoint = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                endpoint.connections += 1
                endpoint.open_connections += 1
                with (
                    contextlib.suppress(OSError),
                    endpoint._context.wrap_socket(self.request, server_side=True) as peer,
                ):
                    while request := _read_request(peer):
                        endpoint.requests.append(request)
                        for part in endpoint.script():
                            time.sleep(part) if isinstance(part, float) else peer.sendall(part)

            def finish(self) -> None:
                endpoint.open_connections -= 1

        return Handler


@contextlib.contextmanager
def running(certificate: ServerCertificate) -> Iterator[HostileTokenEndpoint]:
    """Run the server for the duration of the block."""
    endpoint = HostileTokenEndpoint(certificate)
    try:
        yield endpoint
    finally:
        endpoint.close()


def _read_request(peer: ssl.SSLSocket | socket.socket) -> bytes:
    received = b""
    while b"\r\n\r\n" not in received:
        part = peer.recv(65536)
        if not part:
            return b""
        received += part
    head, _, body = received.partition(b"\r\n\r\n")
    lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    while lengths and len(body) < int(lengths[0]):
        body += peer.recv(65536)
    return head + b"\r\n\r\n" + body
