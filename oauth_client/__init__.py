"""OAuth 2.0 and OpenID Connect client, without Django models. No other package speaks the protocol."""

from oauth_client.authorization import (
    FORM_POST,
    AuthorizationResponse,
    MalformedAuthorizationResponse,
    authorization_url,
    check_issuer,
    issuer_matches,
    parse_authorization_response,
    pushed_authorization_url,
)
from oauth_client.configuration import ClientAuthenticationMethod, ClientCredentials, ServerConfiguration
from oauth_client.discovery import DiscoveryFailed, ServerMetadata, discover
from oauth_client.error_codes import MEANINGS, ConsumerPage, Meaning
from oauth_client.errors import AuthorizationServerError, ErrorCode
from oauth_client.id_token import IDTokenClaims, verify_id_token
from oauth_client.subject import Account, identify
from oauth_client.token import TokenResponse, exchange_code, revoke_token

__all__ = [
    "FORM_POST",
    "MEANINGS",
    "Account",
    "AuthorizationResponse",
    "AuthorizationServerError",
    "ClientAuthenticationMethod",
    "ClientCredentials",
    "ConsumerPage",
    "DiscoveryFailed",
    "ErrorCode",
    "IDTokenClaims",
    "MalformedAuthorizationResponse",
    "Meaning",
    "ServerConfiguration",
    "ServerMetadata",
    "TokenResponse",
    "authorization_url",
    "check_issuer",
    "discover",
    "exchange_code",
    "identify",
    "issuer_matches",
    "parse_authorization_response",
    "pushed_authorization_url",
    "revoke_token",
    "verify_id_token",
]
