"""OAuth 2.0 and OpenID Connect, as a client: the only package of the product that speaks the protocol.

It knows a brand as a `ServerConfiguration`, and neither models nor HTTP requests to us.
"""

from brands.oauth.authorization import authorization_url, pushed_authorization_url
from brands.oauth.authorization_response import (
    FORM_POST,
    AuthorizationResponse,
    MalformedAuthorizationResponse,
    check_issuer,
    issuer_matches,
    parse_authorization_response,
)
from brands.oauth.configuration import ClientAuthenticationMethod, ServerConfiguration
from brands.oauth.credentials import ClientCredentials
from brands.oauth.discovery import DiscoveryFailed, ServerMetadata, discover
from brands.oauth.error_codes import MEANINGS, ConsumerPage, Meaning
from brands.oauth.errors import AuthorizationServerError, ErrorCode
from brands.oauth.id_token import IDTokenClaims, verify_id_token
from brands.oauth.revocation import revoke_token
from brands.oauth.token import exchange_code
from brands.oauth.token_response import TokenResponse

__all__ = [
    "FORM_POST",
    "MEANINGS",
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
    "issuer_matches",
    "parse_authorization_response",
    "pushed_authorization_url",
    "revoke_token",
    "verify_id_token",
]
