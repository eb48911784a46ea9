"""gunicorn on a PostgreSQL of its own that stops while a code is exchanged, or is told to stop: no token is lost.

The brand is a real server on loopback. It harms our side before it answers the token request, and counts revocations.
"""

import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Final
from urllib.parse import parse_qs

import pytest
import requests

from tests.installation import Installation
from tests.own_postgresql import OwnPostgreSQL, own_postgresql
from tests.served import KEY, installation_at_a_free_port, serving

pytestmark = pytest.mark.timeout(180)

# An authorization request that a browser has begun: what it brings back, and where.
BEGIN: Final = """
import json
from django.utils import timezone
from brands.models import Brand
from conversations.flow.authorization_requests import begin_authorization_request
from conversations.flow.challenges import WantedChallenge, issue_challenge
from tests.cast import make_server
brand = Brand.objects.get_or_create(name="Acme", slug="acme")[0]
urls = {{name: "{base}/" + name for name in ("token_endpoint", "revocation_endpoint", "authorization_endpoint")}}
server = brand.authorization_servers.first() or make_server(
    brand, issuer="", authorization_response_iss_parameter_supported=False, **urls)
wanted = WantedChallenge(server=server, same_person_check="completion_code")
challenge, _ = issue_challenge(brand, "web:1", wanted, actor="test", now=timezone.now())
begun = begin_authorization_request(challenge, timezone.now())
print(json.dumps([server.callback_id, begun.parameters["state"], begun.authorization_request.cookie_name,
begun.cookie.reveal()]))
"""
TOKENS: Final = "from conversations.models import AccessToken; print(AccessToken.objects.filter(ended_at=None).count())"


@dataclass
class Brand:
    """A token endpoint that does something before it answers, and a revocation endpoint."""

    before_answering: Callable[[], object] = lambda: None
    revoked: list[str] = field(default_factory=list)

    def answer(self, path: str, form: dict[str, list[str]]) -> bytes:
        """Answer a POST."""
        if path == "/revocation_endpoint":
            self.revoked += form["token"]
            return b""
        self.before_answering()
        token = {"access_token": "issued-meanwhile", "token_type": "Bearer", "expires_in": 3600}
        return json.dumps(token | {"scope": "orders.read"}).encode()


@dataclass
class Site:
    """The product as it is served, its database, and the brand."""

    database: OwnPostgreSQL
    installation: Installation
    brand: Brand
    brand_url: str

    def come_back(self) -> int:
        """Begin a sign-in, and bring a code to the callback, as the browser that began; return the status."""
        begun = self.installation.python(BEGIN.format(base=self.brand_url)).splitlines()[-1]
        callback_id, state, cookie, value = json.loads(begun)
        url = f"{self.installation.settings['PUBLIC_BASE_URL']}/callback/{callback_id}"
        answer = requests.get(
            url,
            params={"code": "a-code", "state": state},
            headers={"Cookie": f"{cookie}={value}"},
            timeout=60,
            allow_redirects=False,
        )
        return answer.status_code


@pytest.fixture
def brand() -> Iterator[tuple[Brand, str]]:
    brand = Brand()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            body = brand.answer(self.path, form)
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield brand, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnPostgreSQL]:
    """Prepare a server with empty tables, for each test to copy."""
    with own_postgresql() as database:
        installation = Installation(tmp_path_factory.mktemp("prepared"), KEY)
        installation.database_url = database.url
        installation.manage("migrate", "-v0")
        database.stop()
        yield database


@pytest.fixture
def site(tmp_path: Path, stopped: OwnPostgreSQL, brand: tuple[Brand, str]) -> Iterator[Site]:
    with own_postgresql(stopped) as database:
        installation = installation_at_a_free_port(tmp_path, ALLOW_LOCAL_ENDPOINTS="1")
        installation.database_url = database.url
        yield Site(database, installation, *brand)


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_token_is_revoked_by_its_request_where_the_database_stops_meanwhile(site: Site, mode: str) -> None:
    """A8. The bug: it lived on at the brand until it expired, and no row knew of it."""
    site.brand.before_answering = lambda: site.database.stop(mode)
    with serving(site.installation) as printed:
        status = site.come_back()
    assert (status, site.brand.revoked) == (503, ["issued-meanwhile"])
    assert "issued-meanwhile" not in printed[0]
    assert "a token that could not be stored was revoked" in printed[0]
    site.database.start()
    assert site.installation.python(TOKENS) == "0"


def test_a_token_is_stored_where_the_database_is_back_in_time_or_revoked(site: Site) -> None:
    """A8: after a restart during the exchange, either a row knows the token, or the brand was told."""

    def restart() -> None:
        site.database.stop()
        site.database.start()

    site.brand.before_answering = restart
    with serving(site.installation):
        assert site.come_back() == 303
    site.installation.manage("worker", "--once")
    assert (len(site.brand.revoked), site.installation.python(TOKENS)) == (1, "0")


def test_a_restart_of_the_server_gives_a_request_in_flight_its_time(site: Site) -> None:
    """A8: SIGTERM to gunicorn while the code is exchanged: the answer comes, and the token is stored."""
    with serving(site.installation):
        site.brand.before_answering = lambda: _terminate(site.installation.settings["BIND"])
        assert site.come_back() == 303
    assert (site.brand.revoked, site.installation.python(TOKENS)) == ([], "1")


def _terminate(address: str) -> None:
    """Tell the server to stop, and answer a moment after."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes()
            command = (folder / "cmdline").read_bytes()
            parent = int((folder / "stat").read_text().rsplit(") ", 1)[1].split()[1])
        except (OSError, IndexError):
            continue
        if f"BIND={address}".encode() in environment and b"gunicorn" in command and parent == os.getpid():
            os.kill(int(folder.name), signal.SIGTERM)
