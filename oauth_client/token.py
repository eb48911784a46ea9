"""Exchange a code for an access token, and revoke a token.

RFC 6749 sections 4.1.3, 4.1.4, 5.1 and 5.2, RFC 7636, RFC 7009. Responses are validated here, because oauthlib accepts
`token_type: mac`, negative lifetimes and a token in a 500.
"""

import math
import re
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qsl

import requests
from django.utils import timezone
from oauthlib.oauth2 import WebApplicationClient

from infrastructure.crypto import Secret
from oauth_client.answers import error_in, known_refusal_in, read_parameters, refusal, refusal_in
from oauth_client.authorization import resource_parameters
from oauth_client.configuration import ClientCredentials, ServerConfiguration
from oauth_client.dpop import TOKEN_TYPE as DPOP
from oauth_client.dpop import ProofKey
from oauth_client.endpoints import REVOCATION_ENDPOINT, TOKEN_ENDPOINT, post
from oauth_client.errors import AuthorizationServerError, ErrorCode
from oauth_client.response_members import ResponseMembers, declared_members
from oauth_client.validators import MAX_SCOPE_LENGTH, NOT_BEARER

BEARER: Final = "Bearer"
# Upper limits in seconds. A brand can only lower them (E8, E11).
MAX_TOKEN_LIFETIME: Final = 7 * 24 * 60 * 60
MAX_ASSUMED_LIFETIME: Final = 60 * 60
# We treat a token as expired this much earlier than the server, because a bot cannot use its last moments.
SAFETY_MARGIN: Final = 30

_ACCESS_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,16384}")
_ID_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,65536}")
_SCOPE: Final = re.compile(r"[\x20-\x21\x23-\x5b\x5d-\x7e]*")
_WHOLE_SECONDS: Final = re.compile(r"[0-9]{1,30}")
# RFC 7009 section 2.2 requires 200. Frameworks that answer an empty body with 204 mean the same.
_DONE: Final = frozenset({HTTPStatus.OK, HTTPStatus.NO_CONTENT})


@dataclass(frozen=True, slots=True)
class TokenResponse:
    """The stored part of a token response. `scope` is what was granted; `expires_at` is by our clock.

    `scope_widened`: more was granted than requested. `scope_assumed`, `lifetime_assumed`: the server named none.
    `members` are those that the brand declared for its bots.
    """

    access_token: Secret
    scope: str
    scope_widened: bool
    expires_at: datetime
    lifetime_assumed: bool
    id_token: Secret | None
    token_type: str = field(default=BEARER)
    members: ResponseMembers = field(default=ResponseMembers())
    scope_assumed: bool = False

    def narrowed(self, configuration: ServerConfiguration, redirected_scope: str | None) -> "TokenResponse":
        """Apply the scope of the authorization response, if the token response has none.

        Only if the server is configured for it, and only to remove scopes (E14): the consumer can change that
        parameter in the browser. Adding scopes has no effect, and removing them harms only that consumer.
        """
        if (
            not (configuration.accept_scope_in_authorization_response and self.scope_assumed)
            or redirected_scope is None
        ):
            return self
        named = _split(configuration, redirected_scope)
        return replace(self, scope=" ".join(scope for scope in self.scope.split() if scope in named))

    def check_required_scope(self, configuration: ServerConfiguration) -> None:
        """Raise `AuthorizationServerError` with `insufficient_scope` if a required scope was not granted (E13).

        This is separate from parsing: the token was issued, so the caller has to revoke it.
        """
        granted = self.scope.split()
        missing = [scope for scope in configuration.required_scope.split() if scope not in granted]
        if missing:
            hint = " (the answer has commas: see the scope separator)" if any("," in scope for scope in granted) else ""
            raise AuthorizationServerError(ErrorCode.INSUFFICIENT_SCOPE, f"not granted{hint}: {' '.join(missing)}")


def read_token_response(
    configuration: ServerConfiguration, response: requests.Response, requested_at: datetime
) -> TokenResponse:
    """Validate a token response. `requested_at` is our time when the request was sent.

    Raises `AuthorizationServerError`: the server's error code if it is known, `token_request_refused` if not,
    `invalid_token_response` for a malformed response, `invalid_id_token` if a requested ID token is missing.
    """
    parameters = _read_success(configuration, response)
    _check_token_type(configuration, parameters.get("token_type"))
    requested = configuration.scope.split()
    assumed_scope = parameters.get("scope") is None
    granted = requested if assumed_scope else _scopes(configuration, parameters["scope"])
    lifetime, assumed = _lifetime(configuration, parameters.get("expires_in"))
    return TokenResponse(
        access_token=_access_token(parameters.get("access_token")),
        scope=" ".join(granted),
        scope_widened=not set(granted) <= set(requested),
        expires_at=requested_at + timedelta(seconds=lifetime - min(SAFETY_MARGIN, lifetime / 10)),
        lifetime_assumed=assumed,
        id_token=_id_token(parameters.get("id_token")) if configuration.uses_openid else None,
        scope_assumed=assumed_scope,
        token_type=DPOP if configuration.dpop_bound_access_tokens else BEARER,
        members=declared_members(configuration.token_response_members, parameters),
    )


def _read_success(configuration: ServerConfiguration, response: requests.Response) -> dict[str, Any]:
    if response.status_code != HTTPStatus.OK:
        raise refusal_in(TOKEN_ENDPOINT, response)
    # Some servers send errors with status 200 (E2), also as a form or as JSON with the type text/plain.
    try:
        parameters = read_parameters(TOKEN_ENDPOINT, response, accept_form=configuration.accept_form_encoded_tokens)
    except AuthorizationServerError as unreadable:
        raise known_refusal_in(TOKEN_ENDPOINT, response) or unreadable from None
    error, description = error_in(parameters)
    if error:
        raise refusal(TOKEN_ENDPOINT, HTTPStatus.OK, error, description)
    return parameters


def _check_token_type(configuration: ServerConfiguration, token_type: object) -> None:
    """E7: a DPoP or MAC token cannot be used as a bearer token (RFC 6749 section 7.1), nor a bearer token as DPoP.

    Whoever takes the proof out of our request gets a bearer token: with DPoP switched on, it is refused (L3).
    """
    if configuration.dpop_bound_access_tokens:
        if not isinstance(token_type, str) or token_type.lower() != DPOP.lower():
            raise TOKEN_ENDPOINT.invalid("token_type is not DPoP, although the request had a proof")
        return
    if token_type is None and configuration.accept_missing_token_type:
        return
    # Remove what the validator refuses: SQL could have written it.
    bearer = {"bearer", configuration.accepted_token_type.lower()} - {"", *NOT_BEARER}
    if not isinstance(token_type, str) or token_type.lower() not in bearer:
        raise TOKEN_ENDPOINT.invalid("token_type is missing" if token_type is None else "token_type is not Bearer")


def _access_token(value: object) -> Secret:
    """E6: a CR or LF would inject headers into a bot's request. RFC 6750 section 2.1 allows even fewer characters."""
    if not isinstance(value, str) or not _ACCESS_TOKEN.fullmatch(value):
        raise TOKEN_ENDPOINT.invalid("access_token is not a text of 1 to 16384 visible ASCII characters")
    return Secret(value)


def _id_token(value: object) -> Secret:
    if value is None:
        raise AuthorizationServerError(ErrorCode.INVALID_ID_TOKEN, "openid was asked for, and there is no ID token")
    if not isinstance(value, str) or not _ID_TOKEN.fullmatch(value):
        raise AuthorizationServerError(ErrorCode.INVALID_ID_TOKEN, "id_token is not a text")
    return Secret(value)


def _scopes(configuration: ServerConfiguration, value: object) -> list[str]:
    """Parse a list of distinct scopes. Servers send strings, lists, or a single number (E14)."""
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        value = " ".join(value)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not _SCOPE.fullmatch(value):
        raise TOKEN_ENDPOINT.invalid("scope is not a list of scopes")
    scopes = _split(configuration, value)
    if len(" ".join(scopes)) > MAX_SCOPE_LENGTH:
        raise TOKEN_ENDPOINT.invalid(f"scope has more than {MAX_SCOPE_LENGTH} characters")
    return scopes


def _split(configuration: ServerConfiguration, value: str) -> list[str]:
    """Split at spaces, and at commas if this server uses them.

    Otherwise a comma may be part of a scope's name (RFC 6749 section 3.3): the scope `orders.read,none` must not count
    as `orders.read`.
    """
    if configuration.scope_separator != "space":
        value = value.replace(",", " ")
    return list(dict.fromkeys(value.split()))


def _lifetime(configuration: ServerConfiguration, expires_in: object) -> tuple[int, bool]:
    """Return the lifetime in seconds, and whether it was assumed (E8 to E11)."""
    ceiling = min(configuration.max_token_lifetime, MAX_TOKEN_LIFETIME)
    if expires_in is None or (configuration.accept_zero_expires_in and _is_zero(expires_in)):
        return min(configuration.default_token_lifetime, MAX_ASSUMED_LIFETIME, ceiling), True
    seconds = _whole_seconds(expires_in)
    if seconds < 1:
        raise TOKEN_ENDPOINT.invalid("expires_in is not a positive number of seconds")
    return min(seconds, ceiling), False


def _is_zero(value: object) -> bool:
    return not isinstance(value, bool) and value in (0, "0")


def _whole_seconds(value: object) -> int:
    if isinstance(value, str) and _WHOLE_SECONDS.fullmatch(value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return math.floor(value)
    raise TOKEN_ENDPOINT.invalid("expires_in is not a number of seconds")


def exchange_code(
    configuration: ServerConfiguration,
    *,
    code: Secret,
    code_verifier: Secret,
    credentials: ClientCredentials,
    proof_key: ProofKey | None = None,
) -> TokenResponse:
    """Send the code once and return the token response. Blocks for up to 10 seconds: call it outside a transaction.

    `proof_key` is the key of the authorization request if tokens are bound to it (DPoP).
    Raises `AuthorizationServerError` for every failure. After it the code must not be sent again: the server may have
    seen it, and may revoke valid tokens if it comes twice (E20, section 4.1.2).
    """
    written = WebApplicationClient(configuration.client_id).prepare_request_body(
        code=code.reveal(),
        redirect_uri=configuration.redirect_uri,
        include_client_id=False,  # `post` adds client authentication
        code_verifier=code_verifier.reveal(),
    )
    parameters = [*parse_qsl(written, strict_parsing=True), *resource_parameters(configuration)]
    requested_at = timezone.now()
    response = post(TOKEN_ENDPOINT, configuration, parameters, credentials, proof_key)
    return read_token_response(configuration, response, requested_at)


def revoke_token(configuration: ServerConfiguration, access_token: Secret, credentials: ClientCredentials) -> None:
    """Revoke the token at the server (RFC 7009). Blocks for up to 10 seconds: call it outside a transaction.

    Success is 200 or 204. A server also answers 200 for an unknown token (section 2.2). Raises
    `AuthorizationServerError`, which never contains the token; `is_retryable` tells whether to try again.
    """
    parameters = [("token", access_token.reveal()), ("token_type_hint", "access_token")]
    response = post(REVOCATION_ENDPOINT, configuration, parameters, credentials)
    if response.status_code not in _DONE:
        raise refusal_in(REVOCATION_ENDPOINT, response)
