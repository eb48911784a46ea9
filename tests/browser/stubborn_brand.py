"""A token endpoint that hangs, fails, or grants less than was asked for.

The sample brand does none of this. Its sign-in page is used with this endpoint, so that a browser goes the whole way.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Semaphore, Thread

from tests.tls import ServerCertificate

LONGEST_WAIT = 20


@dataclass
class StubbornBrand:
    """The endpoint. `granted` is the scope of every token; None fails the exchange; while `open` is clear, all hang."""

    port: int
    granted: str | None = None
    open: Event = field(default_factory=Event)
    arrived: Semaphore = field(default_factory=lambda: Semaphore(0))

    @property
    def token_endpoint(self) -> str:
        return f"https://127.0.0.1:{self.port}/token"

    def answer(self) -> tuple[int, dict[str, str]]:
        self.arrived.release()
        self.open.wait(LONGEST_WAIT)
        if self.granted is None:
            return 503, {"error": "temporarily_unavailable"}
        return 200, {"access_token": "of-no-use-to-anybody", "token_type": "Bearer", "scope": self.granted}

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Answer no request inside the block."""
        self.arrived = Semaphore(0)
        self.open.clear()
        try:
            yield
        finally:
            self.open.set()

    def wait_for(self, exchanges: int) -> None:
        """Wait until this many requests hang."""
        for _ in range(exchanges):
            assert self.arrived.acquire(timeout=LONGEST_WAIT)

    @contextmanager
    def granting(self, scope: str) -> Iterator[None]:
        """Issue tokens with this scope inside the block."""
        self.granted = scope
        try:
            yield
        finally:
            self.granted = None


@contextmanager
def stubborn_brand(certificate: ServerCertificate) -> Iterator[StubbornBrand]:
    """Serve the endpoint on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            status, answer = brand.answer()
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = certificate.server_context().wrap_socket(server.socket, server_side=True)
    brand = StubbornBrand(server.server_port)
    brand.open.set()
    Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield brand
    finally:
        brand.open.set()
        server.shutdown()
        server.server_close()
