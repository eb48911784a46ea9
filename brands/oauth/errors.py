"""What can go wrong with an authorization server, as stable codes: of `last_error`, of the audit log and of the API."""

import re
import unicodedata
from enum import StrEnum
from typing import Final

MAX_DETAIL_LENGTH: Final = 200
# Braces, too: one large server's metadata names a template.
_SHOWN_ISSUER: Final = re.compile(r"https?://[A-Za-z0-9._~:/{}-]{1,150}")


class ErrorCode(StrEnum):
    """Codes of RFC 6749 (4.1.2.1, 5.2), RFC 7009 (2.2.1) and OpenID Connect Core (3.1.2.6) as they are, and our own."""

    # Ours, about the token endpoint.
    TOKEN_ENDPOINT_BLOCKED = "token_endpoint_blocked"
    TOKEN_ENDPOINT_TIMEOUT = "token_endpoint_timeout"
    TOKEN_ENDPOINT_UNREACHABLE = "token_endpoint_unreachable"
    TOKEN_REQUEST_REFUSED = "token_request_refused"
    INVALID_TOKEN_RESPONSE = "invalid_token_response"
    INSUFFICIENT_SCOPE = "insufficient_scope"
    # Ours, about the revocation endpoint.
    REVOCATION_ENDPOINT_BLOCKED = "revocation_endpoint_blocked"
    REVOCATION_ENDPOINT_TIMEOUT = "revocation_endpoint_timeout"
    REVOCATION_ENDPOINT_UNREACHABLE = "revocation_endpoint_unreachable"
    REVOCATION_REFUSED = "revocation_refused"
    INVALID_REVOCATION_RESPONSE = "invalid_revocation_response"
    # Ours, about the pushed authorization request (PAR) endpoint.
    PAR_ENDPOINT_BLOCKED = "par_endpoint_blocked"
    PAR_ENDPOINT_TIMEOUT = "par_endpoint_timeout"
    PAR_ENDPOINT_UNREACHABLE = "par_endpoint_unreachable"
    INVALID_PAR_RESPONSE = "invalid_par_response"
    # Ours, about the ID token and its keys.
    INVALID_ID_TOKEN = "invalid_id_token"
    JWKS_UNAVAILABLE = "jwks_unavailable"
    # Ours, about the authorization response.
    AUTHORIZATION_REQUEST_REFUSED = "authorization_request_refused"
    ISSUER_MISMATCH = "issuer_mismatch"
    # Ours, about ourselves.
    CONFIGURATION_CHANGED = "configuration_changed"
    INTERNAL_ERROR = "internal_error"
    STORED_SECRET_UNREADABLE = "stored_secret_unreadable"
    # The server's.
    ACCESS_DENIED = "access_denied"
    ACCOUNT_SELECTION_REQUIRED = "account_selection_required"
    CONSENT_REQUIRED = "consent_required"
    INTERACTION_REQUIRED = "interaction_required"
    INVALID_CLIENT = "invalid_client"
    INVALID_GRANT = "invalid_grant"
    INVALID_REQUEST = "invalid_request"
    INVALID_SCOPE = "invalid_scope"
    LOGIN_REQUIRED = "login_required"
    SERVER_ERROR = "server_error"
    TEMPORARILY_UNAVAILABLE = "temporarily_unavailable"
    UNAUTHORIZED_CLIENT = "unauthorized_client"
    UNSUPPORTED_GRANT_TYPE = "unsupported_grant_type"
    UNSUPPORTED_RESPONSE_TYPE = "unsupported_response_type"
    UNSUPPORTED_TOKEN_TYPE = "unsupported_token_type"


AUTHORIZATION_ERRORS: Final = frozenset(
    {
        ErrorCode.ACCESS_DENIED,
        ErrorCode.ACCOUNT_SELECTION_REQUIRED,
        ErrorCode.CONSENT_REQUIRED,
        ErrorCode.INTERACTION_REQUIRED,
        ErrorCode.INVALID_REQUEST,
        ErrorCode.INVALID_SCOPE,
        ErrorCode.LOGIN_REQUIRED,
        ErrorCode.SERVER_ERROR,
        ErrorCode.TEMPORARILY_UNAVAILABLE,
        ErrorCode.UNAUTHORIZED_CLIENT,
        ErrorCode.UNSUPPORTED_RESPONSE_TYPE,
    }
)
TOKEN_ERRORS: Final = frozenset(
    {
        ErrorCode.INVALID_CLIENT,
        ErrorCode.INVALID_GRANT,
        ErrorCode.INVALID_REQUEST,
        ErrorCode.INVALID_SCOPE,
        ErrorCode.SERVER_ERROR,
        ErrorCode.TEMPORARILY_UNAVAILABLE,
        ErrorCode.UNAUTHORIZED_CLIENT,
        ErrorCode.UNSUPPORTED_GRANT_TYPE,
    }
)
# What may be better in a moment. Everything else stays wrong until somebody changes something.
_RETRYABLE: Final = frozenset(
    {
        ErrorCode.PAR_ENDPOINT_TIMEOUT,
        ErrorCode.PAR_ENDPOINT_UNREACHABLE,
        ErrorCode.REVOCATION_ENDPOINT_TIMEOUT,
        ErrorCode.REVOCATION_ENDPOINT_UNREACHABLE,
        ErrorCode.SERVER_ERROR,
        ErrorCode.TEMPORARILY_UNAVAILABLE,
        ErrorCode.TOKEN_ENDPOINT_TIMEOUT,
        ErrorCode.TOKEN_ENDPOINT_UNREACHABLE,
    }
)


class AuthorizationServerError(Exception):
    """An attempt failed at the authorization server, or its answer was refused.

    `error` is the code, `detail` a short English text for admins: never a secret, never the server's own words.
    """

    def __init__(self, error: ErrorCode, detail: str = "") -> None:
        self.error = error
        self.detail = sanitised(detail)
        super().__init__(f"{error}: {self.detail}" if self.detail else str(error))

    @property
    def is_retryable(self) -> bool:
        """Tell whether the same request may succeed later. Never for a code, which is sent once (E20)."""
        return self.error in _RETRYABLE


def sanitised(text: str) -> str:
    """Return `text` on one line, without control and direction characters, cut to 200 characters (H8)."""
    kept = (" " if unicodedata.category(character)[0] in "CZ" else character for character in text[:1000])
    return " ".join("".join(kept).split())[:MAX_DETAIL_LENGTH]


def other_issuer(expected: str, found: object) -> str:
    """Say how the issuer that a server named differs from the configured one, and show both.

    `found` is the server's text: what could not stand in an issuer is not shown (H8).
    """
    shown = found if isinstance(found, str) and _SHOWN_ISSUER.fullmatch(found) else "something else"
    by_slash = shown != expected and shown.rstrip("/") == expected.rstrip("/")
    return f"{'differs by the last slash' if by_slash else 'is another'}: found {shown}, expected {expected}"
