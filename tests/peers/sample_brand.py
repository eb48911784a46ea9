"""The demo's sample brand, `allauth.idp.oidc`, as a server for tests: raw HTTP Basic, consent with tick boxes."""

import itertools
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from demo.addresses import Addresses
from demo.preparation import Demo, start_brand, write_signing_key
from demo.processes import Servers, run_command
from tests.peers.consumer import Consumer
from tests.peers.oidc_provider import RegisteredClient

TOKEN_LIFETIME = 600
MANAGE = ("-m", "demo.sample_brand.manage")


@dataclass(frozen=True)
class SampleBrand:
    """The running sample brand: its endpoints, and what a test can do with it."""

    demo: Demo
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1), repr=False)

    @property
    def issuer(self) -> str:
        return self.demo.addresses.brand

    @property
    def authorization_endpoint(self) -> str:
        return f"{self.issuer}/identity/o/authorize"

    @property
    def token_endpoint(self) -> str:
        return f"{self.issuer}/identity/o/api/token"

    @property
    def revocation_endpoint(self) -> str:
        return f"{self.issuer}/identity/o/api/revoke"

    @property
    def jwks_uri(self) -> str:
        return f"{self.issuer}/.well-known/jwks.json"

    @property
    def orders_url(self) -> str:
        """The brand's own API: answers 200 to a bearer token with the scope `orders.read`."""
        return f"{self.issuer}/api/orders"

    def register(self, redirect_uri: str) -> RegisteredClient:
        """Register a client for one redirect URI, with the sample brand's own command."""
        client = RegisteredClient(f"client-{next(self._numbers)}", secrets.token_urlsafe(32), redirect_uri)
        environment = self.demo.brand_environment(TOKEN_LIFETIME) | {"SAMPLE_BRAND_CLIENT_SECRET": client.client_secret}
        which = ["--client-id", client.client_id, "--redirect-uri", redirect_uri]
        run_command([*MANAGE, "prepare_sample_brand", *which], environment)
        return client

    def consumer(self, login: str = "ada") -> Consumer:
        """A new browser whose owner signs in as `login`: ada or rita."""
        return Consumer(login, password=self.demo.customers[login])

    def sign_in(self, authorization_url: str, login: str = "ada", *, untick: frozenset[str] = frozenset()) -> str:
        """Sign in as `login` with a new browser, without the scopes in `untick`. Returns the callback URL."""
        return self.consumer(login).sign_in(authorization_url, untick=untick)

    def refuse(self, authorization_url: str, login: str = "ada") -> str:
        """Refuse as `login`. Returns the callback URL with `error=access_denied`."""
        return self.consumer(login).refuse(authorization_url)


@contextmanager
def running(folder: Path) -> Iterator[SampleBrand]:
    """Prepare the sample brand in `folder`, start it on a free port, and stop it at the end."""
    demo = Demo(Addresses(brand_port=_free_port()), folder)
    write_signing_key(folder / "sample-brand-key.pem")
    run_command([*MANAGE, "migrate", "--verbosity", "0"], demo.brand_environment(TOKEN_LIFETIME))
    with Servers(folder) as servers:
        start_brand(demo, servers, TOKEN_LIFETIME)
        yield SampleBrand(demo)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
