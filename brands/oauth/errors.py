"""What can go wrong with an authorization server, as one exception with a code of the table in `error_codes`."""

import unicodedata
from typing import Final

from brands.oauth.error_codes import MEANINGS, ErrorCode, Meaning

__all__ = ["AUTHORIZATION_ERRORS", "TOKEN_ERRORS", "AuthorizationServerError", "ErrorCode", "difference", "sanitised"]

MAX_DETAIL_LENGTH: Final = 200
_MAX_SHOWN_ISSUER: Final = 56

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


class AuthorizationServerError(Exception):
    """An attempt failed at the authorization server, or its answer was refused.

    `error` is the code, `detail` a short English text for admins: never a secret. Of the server's own words it holds no
    more than an issuer, or what the browser brought as error and error_description, cut and cleaned (H8).
    """

    def __init__(self, error: ErrorCode, detail: str = "") -> None:
        self.error = error
        self.detail = sanitised(detail)
        super().__init__(f"{error}: {self.detail}" if self.detail else str(error))

    @property
    def meaning(self) -> Meaning:
        """Return the code's row in the table."""
        return MEANINGS[self.error]

    @property
    def is_retryable(self) -> bool:
        """Tell whether the same request may succeed later. Never for a code, which is sent once (E20)."""
        return self.meaning.is_repeatable


def sanitised(text: str) -> str:
    """Return `text` on one line, without control and direction characters, cut to 200 characters (H8)."""
    kept = (" " if unicodedata.category(character)[0] in "CZ" else character for character in text[:1000])
    return " ".join("".join(kept).split())[:MAX_DETAIL_LENGTH]


def difference(found: object, configured: str) -> str:
    """Return both issuers for an admin to compare, each cut and cleaned; a last slash alone is named, easily overseen.

    They are compared as exact strings (RFC 8414 section 3.3, RFC 9207 section 2.4): with or without the slash is
    another issuer.
    """
    if not isinstance(found, str):
        return f"it is no text; configured is {_shown(configured)}"
    both = f"found {_shown(found)}, configured {_shown(configured)}"
    differ_by_slash = found != configured and found.rstrip("/") == configured.rstrip("/")
    return f"they differ by the last slash: {both}" if differ_by_slash else both


def _shown(issuer: str) -> str:
    """Cut in the middle: the host and the last slash are what issuers differ by."""
    text = sanitised(issuer)
    half = _MAX_SHOWN_ISSUER // 2
    return text if len(text) <= _MAX_SHOWN_ISSUER else f"{text[:half]}...{text[-half:]}"
