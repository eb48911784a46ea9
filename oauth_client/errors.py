"""The exception for all failures of an authorization server, with a code of `error_codes`."""

import logging
import re
import unicodedata
from typing import Final

from oauth_client.error_codes import MEANINGS, ErrorCode, Meaning
from oauth_client.transport import EndpointBlocked, EndpointUnreachable, OutboundError

__all__ = [
    "AUTHORIZATION_ERRORS",
    "TOKEN_ERRORS",
    "AuthorizationServerError",
    "ErrorCode",
    "issuer_mismatch",
    "sanitised",
    "unanswered",
]

logger = logging.getLogger("consumer_delegation.outbound")

MAX_DETAIL_LENGTH: Final = 200
_NO_ANSWER: Final = "no answer: the host has no public address, refuses the connection or does not speak HTTP over TLS"
# Braces are allowed, because the metadata of one large server has a template here.
_SHOWN_ISSUER: Final = re.compile(r"https?://[A-Za-z0-9._~:/{}-]{1,2048}")
_MAX_SHOWN_ISSUER: Final = 60

AUTHORIZATION_ERRORS: Final = frozenset(
    {
        ErrorCode.ACCESS_DENIED,
        ErrorCode.ACCOUNT_SELECTION_REQUIRED,
        ErrorCode.CONSENT_REQUIRED,
        ErrorCode.INTERACTION_REQUIRED,
        ErrorCode.INVALID_REQUEST,
        ErrorCode.INVALID_SCOPE,
        ErrorCode.INVALID_TARGET,
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
        ErrorCode.INVALID_DPOP_PROOF,
        ErrorCode.INVALID_GRANT,
        ErrorCode.INVALID_REQUEST,
        ErrorCode.INVALID_SCOPE,
        ErrorCode.INVALID_TARGET,
        ErrorCode.SERVER_ERROR,
        ErrorCode.TEMPORARILY_UNAVAILABLE,
        ErrorCode.UNAUTHORIZED_CLIENT,
        ErrorCode.UNSUPPORTED_GRANT_TYPE,
        ErrorCode.USE_DPOP_NONCE,
    }
)


class AuthorizationServerError(Exception):
    """A request to the authorization server failed, or its response was refused.

    `error` is the code, `detail` a short English text for admins. It never contains a secret. Server text in it is
    limited to an issuer, and to error and error_description of the callback, truncated and sanitised (H8).
    `unanswered` is the reason if no response arrived.
    """

    def __init__(self, error: ErrorCode, detail: str = "", *, unanswered: OutboundError | None = None) -> None:
        self.error = error
        self.unanswered = unanswered
        self.detail = sanitised(detail)
        super().__init__(f"{error}: {self.detail}" if self.detail else str(error))

    @property
    def meaning(self) -> Meaning:
        return MEANINGS[self.error]

    @property
    def is_retryable(self) -> bool:
        """Whether the same request may succeed later. Never for a code, which is sent only once (E20)."""
        return self.meaning.is_repeatable


def unanswered(code: ErrorCode, error: OutboundError, endpoint: str) -> AuthorizationServerError:
    """Return the exception for a call to which no response arrived; `endpoint` is its name in RFC 8414.

    The detail is one sentence for an address that is blocked, has no DNS entry or refuses the connection: a brand's
    admin could type addresses and read in the timeline which names exist inside our network (N9). The log tells them
    apart for the operator.
    """
    logger.warning("no response", extra={"endpoint": endpoint, "error": str(error)})
    detail = _NO_ANSWER if type(error) in (EndpointBlocked, EndpointUnreachable) else str(error)
    return AuthorizationServerError(code, detail, unanswered=error)


def sanitised(text: str) -> str:
    """Put `text` on one line, without control and direction characters, truncated to 200 characters (H8)."""
    kept = (" " if unicodedata.category(character)[0] in "CZ" else character for character in text[:1000])
    return " ".join("".join(kept).split())[:MAX_DETAIL_LENGTH]


def issuer_mismatch(expected: str, found: object) -> str:
    """Return the rest of the sentence "The issuer differs: found A, expected B", with A and B shortened in the middle.

    Issuers are compared as exact strings (RFC 8414 section 3.3, RFC 9207 section 2.4), so a trailing slash matters.
    `found` is server text and is shown only if it could be an issuer (H8).
    """
    shown = found if isinstance(found, str) and _SHOWN_ISSUER.fullmatch(found) else None
    by_slash = shown is not None and shown != expected and shown.rstrip("/") == expected.rstrip("/")
    said = "differs by the last slash" if by_slash else "differs"
    return f"{said}: found {_cut(shown) if shown else 'something else'}, expected {_cut(expected)}"


def _cut(issuer: str) -> str:
    """Shorten in the middle: issuers usually differ in the host or the trailing slash."""
    half = _MAX_SHOWN_ISSUER // 2
    return issuer if len(issuer) <= _MAX_SHOWN_ISSUER else f"{issuer[:half]}...{issuer[-half:]}"
