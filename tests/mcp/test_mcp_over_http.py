"""The MCP server over Streamable HTTP: an access token decides whose conversation it is."""

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from time import monotonic, sleep, time
from typing import Any

import jwt
import pytest
import requests
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key

from tests.demo.machines import answers, free_ports
from tests.demo.stage import Stage
from tests.mcp.players import BOOTS, MODES, PYTHON, Client, link_in, needs_server, playing, settings_of
from tests.mcp.recorder import recording

pytestmark = pytest.mark.full


@dataclass
class Issuer:
    """An authorization server's half that an MCP server sees: its keys."""

    url: str
    key: EllipticCurvePrivateKey = field(default_factory=lambda: generate_private_key(SECP256R1()), repr=False)

    def token(self, resource: str, subject: str = "ada", **claims: Any) -> str:
        usual = {"iss": self.url, "aud": resource, "sub": subject, "client_id": "assistant", "exp": int(time()) + 300}
        return jwt.encode(usual | claims, self.key, "ES256", headers={"kid": "1", "typ": "at+jwt"})


@contextmanager
def issuing() -> Iterator[Issuer]:
    class Keys(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            public = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(issuer.key.public_key()))
            body = json.dumps({"keys": [public | {"kid": "1", "use": "sig"}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Keys) as server:
        issuer = Issuer(f"http://127.0.0.1:{server.server_port}")
        Thread(target=server.serve_forever, daemon=True).start()
        yield issuer
        server.shutdown()


@dataclass
class Site:
    """A running MCP server, the issuer that it trusts, and the file with all that was sent."""

    url: str
    issuer: Issuer
    frames: Path

    def client(self, mode: str, token: str, *, elicitation: bool = False) -> Any:
        headers = {"Authorization": f"Bearer {token}"}
        wanted = {"url": self.url, "headers": headers, "mode": mode, "elicitation": elicitation}
        return playing(wanted, self.frames)


@contextmanager
def serving(environment: dict[str, str], port: int) -> Iterator[None]:
    with (
        Path(environment["FRAMES"]).open("ab") as log,
        subprocess.Popen([PYTHON, "-m", "consumer_delegation_mcp"], env=environment, stderr=log) as process,
    ):
        try:
            until = monotonic() + 30
            while not answers(port):
                assert process.poll() is None, "the server has ended"
                assert monotonic() < until, "the server does not listen"
                sleep(0.1)
            yield
        finally:
            process.terminate()
            process.wait(20)


@pytest.fixture
def site(stage: Stage, tmp_path: Path) -> Iterator[Site]:
    needs_server()
    frames = tmp_path / "frames"
    (port,) = free_ports(1)
    with issuing() as issuer, recording(port, frames) as recorded:
        url = f"http://127.0.0.1:{recorded}/mcp"
        environment = settings_of(stage, "", frames) | {
            "CONSUMER_DELEGATION_LISTEN": f"127.0.0.1:{port}",
            "CONSUMER_DELEGATION_ISSUER": issuer.url,
            "CONSUMER_DELEGATION_RESOURCE": url,
            "CONSUMER_DELEGATION_JWKS_URL": f"{issuer.url}/jwks.json",
        }
        with serving(environment, port):
            yield Site(url, issuer, frames)


Join = Callable[..., Client]


@pytest.fixture
def join(site: Site) -> Iterator[Join]:
    with ExitStack() as stack:
        yield lambda mode, subject="ada", **claims: stack.enter_context(
            site.client(mode, site.issuer.token(site.url, subject, **claims))
        )


@pytest.mark.parametrize("mode", MODES)
def test_a_conversation_is_the_principals_and_outlives_a_connection(mode: str, join: Join, stage: Stage) -> None:
    ada = join(mode)
    ada.calls("confirm_sign_in", digits=stage.consumer().gets_code(link_in(ada.calls("orders_list"))))
    assert BOOTS in ada.calls("orders_list")
    assert BOOTS in join(mode).calls("orders_list")


def test_another_person_or_another_program_has_another_conversation(join: Join, stage: Stage) -> None:
    ada = join("auto")
    ada.calls("confirm_sign_in", digits=stage.consumer().gets_code(link_in(ada.calls("orders_list"))))
    link_in(join("auto", "rita").calls("orders_list"))
    link_in(join("auto", client_id="another").calls("orders_list"))


@pytest.mark.parametrize("mode", MODES)
def test_elicitation_over_http(mode: str, site: Site, stage: Stage) -> None:
    token = site.issuer.token(site.url)
    with site.client(mode, token, elicitation=True) as mcp:
        code = stage.consumer().gets_code(mcp.is_asked("orders_list")["url"])
        assert mcp.says(action="accept")["asked"]["mode"] == "form"
        assert BOOTS in mcp.says(action="accept", content={"digits": code})["text"]
    frames = site.frames.read_bytes()
    # In an event, the JSON of a tool's text is escaped; these words have nothing to escape.
    assert BOOTS.encode() in frames
    assert stage.bot_key.encode() not in frames


def refusal(site: Site, token: str | None, **headers: str) -> int:
    sent = {"Accept": "application/json, text/event-stream"} | headers
    if token is not None:
        sent["Authorization"] = f"Bearer {token}"
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    return requests.post(site.url, json=body, headers=sent, timeout=10).status_code


def test_tokens_that_are_not_for_this_server_are_refused(site: Site) -> None:
    issuer, url = site.issuer, site.url
    others = Issuer(issuer.url)
    refused = {
        "none": None,
        "nonsense": "nonsense",
        "another resource": issuer.token("https://another.example/mcp"),
        "another issuer": issuer.token(url, iss="https://another.example"),
        "another key": others.token(url),
        "expired": issuer.token(url, exp=int(time()) - 1),
        "no client": issuer.token(url, client_id=""),
        "no subject": issuer.token(url, ""),
        "unsigned": jwt.encode({"iss": issuer.url, "aud": url, "sub": "ada"}, "", "none", headers={"kid": "1"}),
    }
    assert {name: refusal(site, token) for name, token in refused.items()} == dict.fromkeys(refused, 401)


def test_a_page_in_a_browser_cannot_rebind_the_name(site: Site) -> None:
    token = site.issuer.token(site.url)
    assert refusal(site, token, Host="attacker.example") == 421
    assert refusal(site, token, Origin="https://attacker.example") == 403


def test_clients_learn_where_to_get_a_token(site: Site) -> None:
    """The bug: a slash was added to the issuer, which clients compare exactly (RFC 8414)."""
    answer = requests.post(site.url, json={}, timeout=10)
    assert "resource_metadata=" in answer.headers["WWW-Authenticate"]
    base = site.url.removesuffix("/mcp")
    metadata = requests.get(f"{base}/.well-known/oauth-protected-resource/mcp", timeout=10).json()
    assert (metadata["resource"], metadata["authorization_servers"]) == (site.url, [site.issuer.url])
