"""Four more third-party authorization servers for tests: endpoints, registration, orders."""

import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen
from typing import Any, Final

import requests

from tests.machine import missing
from tests.peers.consumer import PASSWORD, Consumer
from tests.peers.oidc_provider import RegisteredClient
from tests.peers.processes import serving

FOLDER: Final = Path(__file__).parent
# `make peers-full` installs their packages here, in an environment separate from the product's.
ENVIRONMENT: Final = Path(os.environ.get("PEERS_VENV", FOLDER.parents[2] / ".venv-peers"))
# HTTP Basic breaks these unless they are percent-encoded. Some servers read a `+` for the space as a plus.
AWKWARD_SECRET: Final = "s3cret of+client%:/"


@dataclass(frozen=True)
class Server:
    """A running peer. `values` are the settings of an `AuthorizationServer` for it, as in docs/servers.md."""

    origin: str
    authorization_endpoint: str
    token_endpoint: str
    orders_url: str
    scope: str
    values: dict[str, Any] = field(default_factory=dict)

    def consumer(self, login: str = "ada") -> Consumer:
        """A new browser whose owner signs in as `login`."""
        return Consumer(login)

    def register(self, redirect_uri: str) -> RegisteredClient:
        """Register a client for one redirect URI."""
        raise NotImplementedError

    def ask_for_orders(self, access_token: str) -> requests.Response:
        """Call the brand's own API, as a bot does."""
        headers = {"Authorization": f"Bearer {access_token}"}
        return requests.get(self.orders_url, headers=headers, timeout=60)

    def token_responses(self) -> list[dict[str, Any]]:
        """Every token response so far, refresh tokens included."""
        answers: list[dict[str, Any]] = requests.get(f"{self.origin}/test/token-responses", timeout=60).json()
        return answers


class BetterAuth(Server):
    """npm better-auth with its oauth-provider: EdDSA for ID tokens, `iss` in the response, opaque tokens."""

    def register(self, redirect_uri: str) -> RegisteredClient:
        metadata = {
            "redirect_uris": [redirect_uri],
            "token_endpoint_auth_method": "client_secret_basic",
            "grant_types": ["authorization_code"],
            "response_types": ["code"],
            "client_name": "Consumer Delegation",
            "scope": self.scope,
        }
        client = _posted(f"{self.origin}/test/register", metadata)
        return RegisteredClient(client["client_id"], client["client_secret"], redirect_uri)


class MCP(Server):
    """The authorization server of MCP's Python SDK: needs `client_id` in the body, with HTTP Basic too."""

    def register(self, redirect_uri: str) -> RegisteredClient:
        metadata = {
            "redirect_uris": [redirect_uri],
            "token_endpoint_auth_method": self.values.get("token_endpoint_auth_method", "client_secret_basic"),
            "grant_types": ["authorization_code", "refresh_token"],
            "scope": self.scope,
        }
        client = _posted(f"{self.origin}/register", metadata)
        return RegisteredClient(client["client_id"], client["client_secret"], redirect_uri)


class Authlib(Server):
    """Authlib's Flask server: percent-decodes HTTP Basic and keeps a `+`."""

    def register(self, redirect_uri: str) -> RegisteredClient:
        client = RegisteredClient(f"client {secrets.token_hex(4)}", AWKWARD_SECRET, redirect_uri)
        metadata = {
            "client_id": client.client_id,
            "client_secret": client.client_secret,
            "redirect_uri": redirect_uri,
            "token_endpoint_auth_method": "client_secret_basic",
        }
        _posted(f"{self.origin}/test/register", metadata)
        return client


class JupyterHub(Server):
    """JupyterHub: accepts the secret in the body only, cannot refuse, grants more than was asked for."""

    REDIRECT_PATH: Final = "jupyterhub-for-tests"

    def register(self, redirect_uri: str) -> RegisteredClient:
        assert redirect_uri.endswith(self.REDIRECT_PATH), "its one client is configured before it starts"
        return RegisteredClient("service-acme", AWKWARD_SECRET, redirect_uri)

    def token_responses(self) -> list[dict[str, Any]]:
        return []  # it has no refresh tokens


@contextmanager
def better_auth(node: Path) -> Iterator[Server]:
    """Run better-auth. Its packages are in `package.json` beside this file."""
    if not (FOLDER / "node_modules" / "better-auth").is_dir():
        missing("npm packages of tests/peers/others are not installed: tests against better-auth did not run")
    with serving([str(node), str(FOLDER / "better_auth.mjs")], FOLDER) as origin:
        base = f"{origin}/api/auth"
        yield BetterAuth(
            origin,
            f"{base}/oauth2/authorize",
            f"{base}/oauth2/token",
            f"{origin}/orders",
            "openid orders.read",
            {
                "issuer": base,
                "jwks_uri": f"{base}/jwks",
                "revocation_endpoint": f"{base}/oauth2/revoke",
                "id_token_signing_alg_values": ["EdDSA"],
                "authorization_response_iss_parameter_supported": True,
            },
        )


@contextmanager
def mcp() -> Iterator[Server]:
    """Run the SDK's server."""
    with serving([str(python()), "mcp_server.py", str(free_port())], FOLDER) as origin:
        values = {"send_client_id_with_basic": True}
        yield MCP(origin, f"{origin}/authorize", f"{origin}/token", f"{origin}/orders", "orders.read", values)


@contextmanager
def authlib() -> Iterator[Server]:
    """Run Authlib's server. It refuses plain http unless its environment allows it."""
    command = [str(python()), "authlib_server.py", str(free_port())]
    with serving(command, FOLDER, {"AUTHLIB_INSECURE_TRANSPORT": "true"}) as origin:
        values = {"revocation_endpoint": f"{origin}/revoke"}
        yield Authlib(origin, f"{origin}/authorize", f"{origin}/token", f"{origin}/orders", "orders.read", values)


@contextmanager
def jupyterhub(folder: Path, redirect_uri: str) -> Iterator[Server]:
    """Run JupyterHub, which takes some seconds to start. Its only client has this redirect URI."""
    port = free_port()
    origin = f"http://127.0.0.1:{port}"
    environment = {
        "PEER_PORT": str(port),
        "PEER_FOLDER": str(folder),
        "PEER_PASSWORD": PASSWORD,
        "PEER_CLIENT_SECRET": AWKWARD_SECRET,
        "PEER_REDIRECT_URI": redirect_uri,
    }
    command = [str(python()), "-m", "jupyterhub", "-f", str(FOLDER / "jupyterhub_config.py")]
    with Popen(command, cwd=folder, env=os.environ | environment) as hub:
        try:
            _wait_for(f"{origin}/hub/api/", hub)
            api = f"{origin}/hub/api"
            values = {"token_endpoint_auth_method": "client_secret_post"}
            yield JupyterHub(
                origin, f"{api}/oauth2/authorize", f"{api}/oauth2/token", f"{api}/user", "read:users!user", values
            )
        finally:
            hub.terminate()


def python() -> Path:
    """The interpreter that has these servers."""
    found = ENVIRONMENT / "bin" / "python"
    return found if found.exists() else missing("make peers-full was not run: tests against these servers did not run")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def _wait_for(address: str, process: "Popen[bytes]") -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        assert process.poll() is None, "JupyterHub did not start; see its output above"
        try:
            requests.get(address, timeout=5)
        except requests.ConnectionError:
            time.sleep(0.2)
        else:
            return
    raise RuntimeError("JupyterHub did not answer in a minute")


def _posted(address: str, document: dict[str, Any]) -> dict[str, Any]:
    response = requests.post(address, json=document, timeout=60)
    assert response.ok, response.text
    answer: dict[str, Any] = response.json()
    return answer
