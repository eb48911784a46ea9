"""The authorization response: what the browser brings to our callback (RFC 6749 section 4.1.2, RFC 9207)."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol

from brands.oauth.configuration import ServerConfiguration
from brands.oauth.errors import AUTHORIZATION_ERRORS, AuthorizationServerError, ErrorCode, sanitised
from delegation_site.crypto import Secret

MAX_PARAMETER_LENGTH: Final = 4096

_VALUE: Final = re.compile(r"[\x20-\x7e]*")


class Query(Protocol):
    """Django's `QueryDict` is one; the protocol code does not need to know it."""

    def __iter__(self) -> Iterator[str]: ...

    def getlist(self, key: str, /) -> list[str]: ...


class MalformedAuthorizationResponse(Exception):
    """Not a response of RFC 6749 section 4.1.2. Nothing of it may be used; the attempt is untouched."""


@dataclass(frozen=True, slots=True)
class AuthorizationResponse:
    """Either `code` or `error` is set. `iss` and `scope` are None where they were not sent.

    `scope` is no parameter of RFC 6749's; some servers say there, and nowhere else, what was granted. It is as the
    browser brought it: `TokenResponse.narrowed` says what it is good for.
    """

    state: str = field(repr=False)
    code: Secret | None
    iss: str | None
    error: ErrorCode | None
    error_description: str
    scope: str | None = None


def parse_authorization_response(query: Query) -> AuthorizationResponse:
    """Read a callback's query. An unknown error becomes `authorization_request_refused` (B14).

    Raises `MalformedAuthorizationResponse` for a parameter given twice (RFC 6749 section 3.1), a missing state, neither
    code nor error, and a state, code or iss over 4,096 characters or with other characters than section A allows.
    """
    values = {name: _only_value(query, name) for name in query}
    state, code, iss = (_protocol_value(values, name) for name in ("state", "code", "iss"))
    error = values.get("error", "")
    if not state or not (code or error):
        raise MalformedAuthorizationResponse("state, or both code and error, are missing")
    known = error in AUTHORIZATION_ERRORS
    return AuthorizationResponse(
        state=state,
        # With an error, a code is none of the protocol's; whoever added it wants it exchanged.
        code=Secret(code) if code and not error else None,
        iss=iss or None,
        error=_error_code(error) if error else None,
        error_description=sanitised(
            " ".join(filter(None, ["" if known else error, values.get("error_description", "")]))
        ),
        scope=values.get("scope"),
    )


def issuer_matches(configuration: ServerConfiguration, response: AuthorizationResponse) -> bool:
    """Tell whether `iss` is what it has to be: the exact string of the configured issuer (RFC 9207 section 2.4).

    Without a configured issuer there is nothing to compare; the redirect URI of its own tells servers apart (C1).
    """
    if not configuration.issuer:
        return True
    if response.iss is None:
        return not configuration.authorization_response_iss_parameter_supported
    return response.iss == configuration.issuer


def check_issuer(configuration: ServerConfiguration, response: AuthorizationResponse) -> None:
    """Refuse a code that another server may have issued, the mix-up attack, and another server's error (C2).

    Raises `AuthorizationServerError` with `issuer_mismatch`. An error response without any `iss` passes: servers that
    promise it leave it out of errors (C3), and there is no code to lose.
    """
    missing = response.iss is None
    if response.error is not None and missing:
        return
    if not issuer_matches(configuration, response):
        raise AuthorizationServerError(
            ErrorCode.ISSUER_MISMATCH, "iss is missing" if missing else "iss is not the configured issuer"
        )


def _only_value(query: Query, name: str) -> str:
    values = query.getlist(name)
    if len(values) != 1:
        raise MalformedAuthorizationResponse("a parameter is given twice")
    return values[0]


def _protocol_value(values: dict[str, str], name: str) -> str:
    value = values.get(name, "")
    if len(value) > MAX_PARAMETER_LENGTH or not _VALUE.fullmatch(value):
        raise MalformedAuthorizationResponse(f"{name} is too long or holds characters that it must not hold")
    return value


def _error_code(error: str) -> ErrorCode:
    return ErrorCode(error) if error in AUTHORIZATION_ERRORS else ErrorCode.AUTHORIZATION_REQUEST_REFUSED
