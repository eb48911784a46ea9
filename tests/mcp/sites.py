"""MCP servers over HTTP, an issuer of access tokens for them, and requests that no client would send."""

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from time import monotonic, sleep, time
from typing import Any
from urllib.parse import urlsplit

import jwt
import requests
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key

from tests.demo.machines import answers, free_ports
from tests.demo.stage import Stage
from tests.mcp.players import BOTH, MODES, PYTHON, needs_server, playing, settings_of
from tests.mcp.recorder import recording

NEWEST = MODES["auto"]


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


@dataclass(frozen=True)
class Site:
    """A running MCP server, the issuer that it trusts, and the file with all that was sent and logged.

    `resource` is what its tokens are for. Without an issuer it asks for no tokens.
    """

    url: str
    frames: Path
    issuer: Issuer | None
    resource: str

    def token(self, subject: str = "ada", **claims: Any) -> str:
        assert self.issuer
        return self.issuer.token(self.resource, subject, **claims)

    def client(self, mode: str, token: str = "", *, elicitation: Sequence[str] = ()) -> Any:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        wanted = {"url": self.url, "headers": headers, "mode": mode, "elicitation": elicitation}
        return playing(wanted, self.frames)

    def posts(self, body: Any, token: str | None, **headers: str) -> requests.Response:
        """Send a body as it is, with the headers of a client."""
        sent = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
        if self.resource:  # a load balancer hands it on
            sent["Host"] = urlsplit(self.resource).netloc
        sent |= headers
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return requests.post(self.url, data=data, headers=sent, timeout=60)

    def round(self, token: str | None, tool: str = "orders_list", *, ways: Sequence[str] = BOTH, **params: Any) -> Any:
        """Call a tool on revision 2026-07-28. Return the result, or the error."""
        called = {"name": tool, "arguments": {}, "_meta": meta(ways)} | params
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": called}
        headers = {"MCP-Protocol-Version": NEWEST, "Mcp-Method": "tools/call", "Mcp-Name": tool}
        answer = message_in(self.posts(body, token, **headers))
        return answer.get("result") or answer["error"]

    def go_on(self, token: str | None, asked: Any, content: Any = None, **params: Any) -> Any:
        """Answer what a result asks for, and send its state back."""
        (name,) = asked["inputRequests"]
        response = {"action": "accept"} | ({"content": content} if content is not None else {})
        given = {"requestState": asked["requestState"], "inputResponses": {name: response}}
        return self.round(token, **(given | params))


def meta(ways: Sequence[str]) -> dict[str, Any]:
    capabilities: dict[str, Any] = {"elicitation": {way: {} for way in ways}} if ways else {}
    return {
        "io.modelcontextprotocol/protocolVersion": NEWEST,
        "io.modelcontextprotocol/clientInfo": {"name": "raw", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": capabilities,
    }


def message_in(response: requests.Response) -> dict[str, Any]:
    """Return the JSON of an answer, also of one that came as an event."""
    text = response.text
    if "event-stream" in response.headers.get("Content-Type", ""):
        text = [line[6:] for line in text.splitlines() if line.startswith("data: ")][-1]
    message: dict[str, Any] = json.loads(text)
    return message


def text_of(result: Any) -> str:
    return "\n".join(part["text"] for part in result["content"])


@contextmanager
def serving(environment: dict[str, str], port: int) -> Iterator[None]:
    with (
        Path(environment["FRAMES"]).open("ab") as log,
        subprocess.Popen([PYTHON, "-m", "consumer_delegation_mcp"], env=environment, stderr=log) as process,
    ):
        try:
            until = monotonic() + 90
            while not answers(port):
                assert process.poll() is None, "the server has ended"
                assert monotonic() < until, "the server does not listen"
                sleep(0.1)
            yield
        finally:
            process.terminate()
            process.wait(60)


@contextmanager
def serving_people(stage: Stage, key: str, frames: Path, **settings: str) -> Iterator[Site]:
    """Run a server for all who have a token of an issuer of their own."""
    needs_server()
    (port,) = free_ports(1)
    with issuing() as issuer, recording(port, frames) as recorded:
        url = f"http://127.0.0.1:{recorded}/mcp"
        with serving(environment_of(stage, key, frames, port, issuer, url) | settings, port):
            yield Site(url, frames, issuer, url)


@contextmanager
def beside(site: Site, stage: Stage, key: str, **settings: str) -> Iterator[Site]:
    """Run another instance of a site, at the same public address."""
    assert site.issuer
    (port,) = free_ports(1)
    with serving(environment_of(stage, key, site.frames, port, site.issuer, site.resource) | settings, port):
        yield replace(site, url=f"http://127.0.0.1:{port}/mcp")


@contextmanager
def serving_one_person(stage: Stage, key: str, frames: Path) -> Iterator[Site]:
    """Run a server without authorization."""
    needs_server()
    (port,) = free_ports(1)
    environment = settings_of(stage, key, "", frames) | {"CONSUMER_DELEGATION_LISTEN": f"127.0.0.1:{port}"}
    with serving(environment, port):
        yield Site(f"http://127.0.0.1:{port}/mcp", frames, None, "")


def environment_of(stage: Stage, key: str, frames: Path, port: int, issuer: Issuer, resource: str) -> dict[str, str]:
    return settings_of(stage, key, "", frames) | {
        "CONSUMER_DELEGATION_LISTEN": f"127.0.0.1:{port}",
        "CONSUMER_DELEGATION_ISSUER": issuer.url,
        "CONSUMER_DELEGATION_RESOURCE": resource,
        "CONSUMER_DELEGATION_JWKS_URL": f"{issuer.url}/jwks.json",
    }
