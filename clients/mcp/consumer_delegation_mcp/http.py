"""Streamable HTTP: many people, each with a conversation of their own, which their access token decides.

The server is a resource server of OAuth 2.1, as MCP asks. These tokens say who speaks to this server; they are not the
consumer's tokens at the brand, and are never passed on.
"""

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import anyio
import jwt
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.provider import AccessToken, TokenVerifier
from mcp.server.auth.settings import AuthSettings
from mcp.server.lowlevel import Server
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette

from consumer_delegation import conversation_id_of
from consumer_delegation_mcp.settings import HttpSettings

# No symmetric algorithm: with one, the public key would be a secret to sign with.
ALGORITHMS = ["RS256", "PS256", "ES256", "ES384", "EdDSA"]
REQUIRED = ["exp", "iss", "aud", "sub"]
PATH = "/mcp"


def conversation_of_principal() -> str | None:
    """Return the conversation of the request's person, in the program that they use; None without authorization."""
    token = get_access_token()
    if token is None:
        return None
    issuer = str((token.claims or {})["iss"])
    return conversation_id_of("mcp", issuer, token.client_id, str(token.subject))


@dataclass(frozen=True)
class JwtVerifier(TokenVerifier):
    """Accepts JWT access tokens (RFC 9068) of one issuer, for this server alone."""

    settings: HttpSettings
    keys: jwt.PyJWKClient = field(repr=False)

    async def verify_token(self, token: str) -> AccessToken | None:
        """Return whose token it is; None for one that is not good, whatever the reason."""
        try:
            return await anyio.to_thread.run_sync(self._verified, token)
        except jwt.PyJWTError:
            return None

    def _verified(self, token: str) -> AccessToken | None:
        key = self.keys.get_signing_key_from_jwt(token)
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=ALGORITHMS,
            audience=self.settings.resource,
            issuer=self.settings.issuer,
            options={"require": REQUIRED},
        )
        client_id = claims.get("client_id") or claims.get("azp")
        if not (isinstance(client_id, str) and client_id and claims["sub"]):
            return None
        return AccessToken(
            token=token,
            client_id=client_id,
            scopes=str(claims.get("scope", "")).split(),
            expires_at=int(claims["exp"]),
            resource=self.settings.resource,
            subject=claims["sub"],
            claims={"iss": claims["iss"]},
        )


def app(server: Server[Any], settings: HttpSettings) -> Starlette:
    """Make the application. Only requests for its own names are answered: a page in a browser cannot rebind one."""
    if not settings.issuer:
        return server.streamable_http_app(streamable_http_path=PATH, host="127.0.0.1")
    # As texts: an `AnyHttpUrl` of our own would add a slash to an issuer, and clients compare it exactly (RFC 8414).
    auth = AuthSettings.model_validate(
        {
            "issuer_url": settings.issuer,
            "resource_server_url": settings.resource,
            "required_scopes": [settings.required_scope] if settings.required_scope else None,
            "validate_token_resource": True,
        }
    )
    return server.streamable_http_app(
        streamable_http_path=PATH,
        host=settings.host,
        auth=auth,
        token_verifier=JwtVerifier(settings, jwt.PyJWKClient(settings.jwks_url, timeout=10)),
        transport_security=TransportSecuritySettings(allowed_hosts=[urlsplit(settings.resource).netloc]),
    )
