"""An authorization server over real TLS on loopback, with metadata and keys. It notes every request that it gets."""

import json
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from tests.tls import ServerCertificate

KEY = {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "1", "n": "sXchDaQ", "e": "AQAB"}


@dataclass
class HttpsAuthorizationServer:
    """The server. Tests change how it answers through the fields. `requests` are method and path of each request."""

    certificate: ServerCertificate
    port: int = 0
    keys: list[dict[str, str]] = field(default_factory=lambda: [KEY])
    status_of_keys: int = 200
    hangs_for: float = 0.0
    clock_ahead: float = 0.0
    further_headers: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._http: ThreadingHTTPServer | None = None
        self.start()

    @property
    def issuer(self) -> str:
        """Its address, which is its issuer."""
        return f"https://localhost:{self.port}"

    def start(self) -> None:
        """Listen, at the same port as before."""
        self._http = ThreadingHTTPServer(("127.0.0.1", self.port), self._handler())
        self._http.daemon_threads = True
        context: ssl.SSLContext = self.certificate.server_context()
        self._http.socket = context.wrap_socket(self._http.socket, server_side=True, do_handshake_on_connect=False)
        self.port = int(self._http.server_address[1])
        Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections from now on."""
        if self._http:
            self._http.shutdown()
            self._http.server_close()
            self._http = None

    def fields(self) -> dict[str, Any]:
        """The registration, with the field names of the model."""
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/jwks",
            "scope": "openid",
            "authorization_response_iss_parameter_supported": False,
        }

    def _metadata(self) -> dict[str, Any]:
        names = ("issuer", "authorization_endpoint", "token_endpoint", "jwks_uri")
        return {name: self.fields()[name] for name in names} | {"code_challenge_methods_supported": ["S256"]}

    def _answer(self, path: str) -> tuple[int, dict[str, Any]]:
        if path == "/.well-known/openid-configuration":
            return 200, self._metadata()
        return (self.status_of_keys, {"keys": self.keys}) if path == "/jwks" else (404, {})

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.requests.append((self.command, self.path))
                time.sleep(server.hangs_for)
                status, document = server._answer(self.path)
                body = b"" if self.command == "HEAD" else json.dumps(document).encode()
                self.send_response_only(status)
                self.send_header("Date", formatdate(time.time() + server.clock_ahead, usegmt=True))
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                for name, value in server.further_headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_HEAD = do_POST = do_GET

            def log_message(self, *_arguments: Any) -> None:
                """Print nothing."""

        return Handler


@contextmanager
def running(certificate: ServerCertificate) -> Iterator[HttpsAuthorizationServer]:
    """Run the server for the duration of the block."""
    server = HttpsAuthorizationServer(certificate)
    try:
        yield server
    finally:
        server.stop()
