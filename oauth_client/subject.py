"""Who signed in: from the ID token, or else from the userinfo or introspection endpoint.

OpenID Connect Core section 5.3, RFC 7662. General APIs that answer with the account of a bearer token, such as GitHub's
`/user`, count as a userinfo endpoint. Both endpoints get the access token, so both are as sensitive as the revocation
endpoint (N8).
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import requests

from infrastructure.crypto import Secret
from oauth_client.answers import error_in, read_json, refusal_in
from oauth_client.configuration import ClientCredentials, ServerConfiguration
from oauth_client.dpop import ProofKey
from oauth_client.endpoints import INTROSPECTION_ENDPOINT, USERINFO_ENDPOINT, Endpoint, post
from oauth_client.errors import AuthorizationServerError, ErrorCode
from oauth_client.id_token import MAX_SUBJECT_LENGTH, IDTokenClaims, verify_id_token
from oauth_client.resource_server import present
from oauth_client.token import TokenResponse
from oauth_client.transport import OutboundError, send, within

# In seconds. The exchange of the code may have taken ten already, and a consumer waits.
SUBJECT_TIMEOUT: Final = 5.0
# RFC 6750 section 3.1 and RFC 9449: what a server may say of a token or proof that it does not accept.
_KNOWN_ERROR: Final = re.compile(
    r'\berror="?(invalid_request|invalid_token|insufficient_scope|invalid_dpop_proof|use_dpop_nonce)\b'
)
# A shorter text may occur in an account's id by chance.
_FEWEST_CHARACTERS_OF_A_TOKEN: Final = 8


@dataclass(frozen=True, slots=True)
class Account:
    """Who signed in. Two sign-ins were of one account if their identifiers are equal.

    `identifier` is None if the server does not say who it was; `claims` is None if no ID token was asked for.
    """

    identifier: Secret | None = None
    claims: IDTokenClaims | None = None


def identify(
    configuration: ServerConfiguration,
    tokens: TokenResponse,
    credentials: ClientCredentials,
    nonce_matches: Callable[[str], bool],
    proof_key: ProofKey | None = None,
) -> Account:
    """Find out who signed in. Without an ID token this calls the server: up to 5 seconds, outside a transaction.

    `proof_key` is the key of a bound token, which the userinfo endpoint takes only with a proof (DPoP).

    Raises `AuthorizationServerError` if the ID token is not valid, or if an endpoint is configured and does not say
    whose account it is. Going on without would let a consumer whose account it cannot name take another's place (A17).
    """
    if configuration.uses_openid:
        claims = verify_id_token(
            configuration,
            tokens.id_token,
            nonce_matches=nonce_matches,
            access_token=tokens.access_token,
            client_secret=credentials.client_secret,
        )
        # OpenID Connect Core section 5.7: only the two together are an account's name.
        return Account(_identifier(claims.issuer, claims.subject), claims)
    endpoint = _endpoint(configuration)
    if endpoint is None:
        return Account()
    with within(SUBJECT_TIMEOUT):
        answer = _ask(endpoint, configuration, tokens.access_token, credentials, proof_key)
    subject = _subject(endpoint, configuration, answer, tokens.access_token)
    # The host, because another host numbers accounts in its own way; the member, because Ada may choose the user name
    # that is Rita's number. With three parts it never equals the pair of an ID token.
    origin = urlsplit(getattr(configuration, endpoint.name)).netloc.lower().removesuffix(":443")
    return Account(_identifier(origin, configuration.subject_member, subject))


def _identifier(*parts: str) -> Secret:
    return Secret(json.dumps(parts))


def _endpoint(configuration: ServerConfiguration) -> Endpoint | None:
    if configuration.introspection_endpoint:
        return INTROSPECTION_ENDPOINT
    return USERINFO_ENDPOINT if configuration.userinfo_endpoint else None


def _ask(
    endpoint: Endpoint,
    configuration: ServerConfiguration,
    access_token: Secret,
    credentials: ClientCredentials,
    proof_key: ProofKey | None,
) -> dict[str, Any]:
    is_userinfo = endpoint is USERINFO_ENDPOINT
    if is_userinfo:
        response = get_userinfo(configuration, access_token, proof_key)
    else:
        response = introspect(configuration, access_token, credentials)
    if response.status_code != HTTPStatus.OK:
        raise _refusal(endpoint, response)
    answer = read_json(endpoint, response, accept_suffix=True)
    if not is_userinfo and answer.get("active") is not True:
        raise endpoint.invalid("active is not true: the server does not know its own new token")
    return answer


def get_userinfo(
    configuration: ServerConfiguration, access_token: Secret, proof_key: ProofKey | None = None
) -> requests.Response:
    """Present the token (RFC 6750 section 2.1), with a proof if it is bound to `proof_key` (RFC 9449 section 7.1).

    Raises `AuthorizationServerError` if no answer came.
    """
    url = configuration.userinfo_endpoint

    def ask(headers: dict[str, str]) -> requests.Response:
        return send("GET", url, None, {"Accept": "application/json", **headers})

    try:
        return present("GET", url, access_token, proof_key, ask)
    except OutboundError as error:
        raise USERINFO_ENDPOINT.failure(error) from None


def introspect(
    configuration: ServerConfiguration, access_token: Secret, credentials: ClientCredentials
) -> requests.Response:
    """Ask about the token (RFC 7662 section 2.1). Raises `AuthorizationServerError` if no answer came."""
    parameters = [("token", access_token.reveal()), ("token_type_hint", "access_token")]
    return post(INTROSPECTION_ENDPOINT, configuration, parameters, credentials)


def _refusal(endpoint: Endpoint, response: requests.Response) -> AuthorizationServerError:
    """Return the error for another status than 200, with a code of these endpoints alone.

    A code of the token endpoint would count as its failure. Of userinfo's answer only the status and a code of RFC 6750
    are kept: a body may repeat the token.
    """
    status = response.status_code
    if endpoint is USERINFO_ENDPOINT:
        said = _KNOWN_ERROR.search(response.headers.get("WWW-Authenticate", ""))
        detail = f"HTTP status {status}" + (f", error {said[1]}" if said else "")
    else:
        detail = refusal_in(endpoint, response).detail
    if status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return AuthorizationServerError(ErrorCode.SUBJECT_ENDPOINT_BUSY, detail)
    is_refusal = status >= HTTPStatus.BAD_REQUEST
    return AuthorizationServerError(endpoint.refused if is_refusal else endpoint.invalid_response, detail)


def _subject(
    endpoint: Endpoint, configuration: ServerConfiguration, answer: dict[str, Any], access_token: Secret
) -> str:
    """Return the declared member as text. A whole number counts as its decimal digits, as in `expected_subject`."""
    error, _ = error_in(answer)
    if error:
        raise AuthorizationServerError(endpoint.refused, "HTTP status 200 with an error")
    name = configuration.subject_member
    value = _member(answer, name)
    if value is None:
        raise endpoint.invalid(f"there is no {name}")
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip() or len(value) > MAX_SUBJECT_LENGTH:
        raise endpoint.invalid(f"{name} is neither a whole number nor a text of 1 to {MAX_SUBJECT_LENGTH} characters")
    # JSON can escape a lone surrogate, which cannot be encrypted. Other invisible characters could make two ids look
    # alike, and no server has them in an id.
    if not value.isprintable():
        raise endpoint.invalid(f"{name} has a character that cannot be printed")
    if _repeats(value, access_token.reveal()):
        raise endpoint.invalid(f"{name} repeats the access token")
    if value == configuration.client_id:
        raise endpoint.invalid(f"{name} is our client id: it names no account")
    return value


def _repeats(value: str, access_token: str) -> bool:
    texts = {value, unquote(value)}
    is_part = len(access_token) >= _FEWEST_CHARACTERS_OF_A_TOKEN and any(access_token in text for text in texts)
    return is_part or access_token in texts


def _member(answer: dict[str, Any], name: str) -> Any:
    """Return the member of this name, or of this JSON Pointer (RFC 6901) into objects; None if there is none."""
    if not name.startswith("/"):
        return answer.get(name)
    value: Any = answer
    for part in name[1:].split("/"):
        value = value.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(value, dict) else None
    return value
