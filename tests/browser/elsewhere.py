"""Another site: it serves one page, with a link to ours, or with a form that a script submits at once."""

import html
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from tests.tls import ServerCertificate


@dataclass
class Elsewhere:
    """The site. Of its two names one is cross-site to ours, the other only cross-origin."""

    port: int
    page: bytes = b""
    posted: dict[str, str] = field(default_factory=dict)

    @property
    def other_site(self) -> str:
        """A cross-site URL. Its requests carry none of our cookies, which are Lax."""
        return f"https://127.0.0.1:{self.port}/"

    @property
    def other_origin(self) -> str:
        """A URL on our own host. Cookies ignore ports, so its requests carry all of ours."""
        return f"https://localhost:{self.port}/"

    def link_to(self, url: str) -> None:
        """Serve a page with a plain link that opens a new tab, as mail programs and chats have."""
        link = f'<a target="_blank" rel="noopener" href="{html.escape(url)}">Sign in</a>'
        self.page = f"<!doctype html><link rel=icon href=data:,>{link}".encode()

    def send_form_to(self, action: str, **fields: str) -> None:
        """Serve a page that submits this form."""
        inputs = "".join(f'<input name="{name}" value="{html.escape(value)}">' for name, value in fields.items())
        form = f'<form method="post" action="{html.escape(action)}">{inputs}</form>'
        script = "<script>document.forms[0].submit()</script>"
        self.page = f"<!doctype html><link rel=icon href=data:,>{form}{script}".encode()


@contextmanager
def another_site(certificate: ServerCertificate) -> Iterator[Elsewhere]:
    """Serve the site on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            """Store the headers of a form."""
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            site.posted = dict(self.headers.items())
            self.do_GET()

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(site.page)))
            self.end_headers()
            self.wfile.write(site.page)

        def log_message(self, *_arguments: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = certificate.server_context().wrap_socket(server.socket, server_side=True)
    site = Elsewhere(server.server_port)
    Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
