"""npm `oidc-provider`, certified and strict, as a server for tests. The fixture of the same name starts it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import requests

from tests.peers.consumer import Consumer
from tests.peers.processes import serving
from tests.tls import Authority

SCRIPT: Final = Path(__file__).with_name("oidc_provider.mjs")
SCOPE: Final = "openid orders.read offline_access"


@dataclass(frozen=True)
class RegisteredClient:
    """Our registration at the peer. Id and secret contain characters that break without form encoding."""

    client_id: str
    client_secret: str
    redirect_uri: str


@dataclass(frozen=True)
class OidcProvider:
    """The running peer: its endpoints, and what a test can do with it."""

    issuer: str
    ca_file: str

    @property
    def authorization_endpoint(self) -> str:
        return f"{self.issuer}/auth"

    @property
    def token_endpoint(self) -> str:
        return f"{self.issuer}/token"

    @property
    def revocation_endpoint(self) -> str:
        return f"{self.issuer}/token/revocation"

    @property
    def introspection_endpoint(self) -> str:
        return f"{self.issuer}/token/introspection"

    @property
    def pushed_authorization_request_endpoint(self) -> str:
        return f"{self.issuer}/request"

    @property
    def userinfo_endpoint(self) -> str:
        return f"{self.issuer}/me"

    @property
    def jwks_uri(self) -> str:
        return f"{self.issuer}/jwks"

    @property
    def orders_url(self) -> str:
        """The brand's own API: answers 200 to a bearer token with the scope `orders.read`."""
        return f"{self.issuer}/orders"

    def register(
        self,
        redirect_uri: str,
        *,
        token_endpoint_auth_method: str = "client_secret_basic",
        access_token_lifetime: int = 3600,
        **metadata: Any,
    ) -> RegisteredClient:
        """Register a client for one redirect URI (RFC 7591)."""
        document = {
            "redirect_uris": [redirect_uri],
            "response_types": ["code"],
            "grant_types": ["authorization_code", "refresh_token"],
            "token_endpoint_auth_method": token_endpoint_auth_method,
            "scope": SCOPE,
            "access_token_lifetime": access_token_lifetime,
            **metadata,
        }
        response = requests.post(f"{self.issuer}/reg", json=document, verify=self.ca_file, timeout=60)
        answer = response.json()
        assert response.status_code == 201, answer
        return RegisteredClient(answer["client_id"], answer.get("client_secret", ""), redirect_uri)

    def consumer(self, login: str = "ada") -> Consumer:
        """A new browser whose owner signs in as `login`. The ID token's `sub` is the login."""
        return Consumer(login, ca_file=self.ca_file)

    def sign_in(self, authorization_url: str, login: str = "ada") -> str:
        """Sign in as `login` with a new browser. Returns the callback URL with code, state and iss."""
        return self.consumer(login).sign_in(authorization_url)

    def refuse(self, authorization_url: str, login: str = "ada") -> str:
        """Refuse as `login`. Returns the callback URL with `error=access_denied`."""
        return self.consumer(login).refuse(authorization_url)

    def token_responses(self) -> list[dict[str, Any]]:
        """Every token response so far, refresh tokens included."""
        response = requests.get(f"{self.issuer}/test/token-responses", verify=self.ca_file, timeout=60)
        answers: list[dict[str, Any]] = response.json()
        return answers


@contextmanager
def running(
    node: Path, authority: Authority, *, resource: str = "", demands_dpop: bool = False
) -> Iterator[OidcProvider]:
    """Start the peer and stop it at the end.

    With a `resource` it binds access tokens to audiences (RFC 8707). Only a token for that audience opens the orders.
    `demands_dpop`: a token is then a JWT, a request has to be pushed, and a proof needs a nonce (RFC 9126, RFC 9449).
    """
    certificate = authority.issue("localhost", "127.0.0.1")
    command = [
        str(node),
        str(SCRIPT),
        str(certificate.certificate_file),
        str(certificate.key_file),
        *([resource] if resource else []),
        *(["dpop"] if demands_dpop else []),
    ]
    with serving(command, SCRIPT.parent) as issuer:
        yield OidcProvider(issuer, str(authority.ca_file))
