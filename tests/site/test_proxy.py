"""`deploy/nginx.conf`, as nginx itself reads it, before three groups of processes."""

import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

from tests.demo.machines import free_ports
from tests.machine import missing
from tests.nginx import BOTS, HTTP, HTTPS, PEOPLE, WAITING_BOTS, executable, write_configuration
from tests.served import wait_for
from tests.tls import Authority

HOST = "delegation.example"


@contextmanager
def group(ports: dict[int, int], name: int) -> Iterator[None]:
    """A group of processes that answers with its name and the client's address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = f"{name} {self.headers['X-Forwarded-For']}".encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", ports[name]), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
        server.shutdown()


@pytest.fixture
def ports() -> dict[int, int]:
    names = (BOTS, PEOPLE, WAITING_BOTS, HTTPS, HTTP)
    return dict(zip(names, free_ports(len(names)), strict=True))


@pytest.fixture
def proxy(tmp_path: Path, tls_authority: Authority, ports: dict[int, int]) -> Iterator[requests.Session]:
    """Run nginx with the shipped file; only its ports and folders differ. The client trusts it."""
    nginx = executable() or missing("nginx is not installed: deploy/nginx.conf was not read by it")
    certificate = tls_authority.issue(HOST, "localhost")
    main = write_configuration(tmp_path, ports, certificate.certificate_file, certificate.key_file)
    with subprocess.Popen([nginx, "-c", str(main)], stderr=subprocess.PIPE, text=True) as server, ExitStack() as ended:
        ended.callback(server.terminate)
        wait_for(f"127.0.0.1:{ports[HTTPS]}", server)
        with requests.Session() as client:
            client.trust_env = False
            client.headers["Host"] = HOST
            client.verify = str(tls_authority.ca_file)
            yield client


def test_long_polls_have_processes_of_their_own(proxy: requests.Session, ports: dict[int, int], tmp_path: Path) -> None:
    """The bug: nginx refused to start with our file. And G8: the client's address is the one that nginx sees."""
    chosen = {
        "/api/v1/x": BOTS,
        "/api/v1/x?wait=25": WAITING_BOTS,
        "/api/v1/x?a=1&wait=9": WAITING_BOTS,
        "/api/v1/x?wait=0": BOTS,
        "/api/v1/x?wait=": BOTS,
        "/c/planted-link-token?wait=25": PEOPLE,
    }
    with group(ports, BOTS), group(ports, PEOPLE), group(ports, WAITING_BOTS):
        answers = {
            path: proxy.get(f"https://localhost:{ports[HTTPS]}{path}", headers={"X-Forwarded-For": "198.51.100.7"}).text
            for path in chosen
        }
    assert answers == {path: f"{name} 127.0.0.1" for path, name in chosen.items()}
    assert "planted-link-token" not in (tmp_path / "delegation.log").read_text(encoding="utf8")


def test_without_their_processes_the_other_bots_processes_answer_long_polls(
    proxy: requests.Session, ports: dict[int, int]
) -> None:
    address = f"https://localhost:{ports[HTTPS]}/api/v1/x?wait=25"
    with group(ports, BOTS), group(ports, PEOPLE):
        statuses = [proxy.get(address).status_code for _ in range(3)]
    # The first one finds out.
    assert statuses == [502, 200, 200]
