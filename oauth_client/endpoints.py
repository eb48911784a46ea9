"""Post to an endpoint of the server with client authentication (RFC 6749 section 2.3, RFC 7523 section 2.2)."""

import json
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from time import time
from typing import Final
from urllib.parse import quote, urlencode

import jwt
import msgspec
import requests

from infrastructure.crypto import Secret, random_token
from oauth_client import transport
from oauth_client.configuration import ClientCredentials, ServerConfiguration
from oauth_client.dpop import USE_NONCE, ProofKey, ProvenRequest, send_with_proof
from oauth_client.errors import AUTHORIZATION_ERRORS, TOKEN_ERRORS, AuthorizationServerError, ErrorCode, unanswered
from oauth_client.transport import (
    TOTAL_TIMEOUT,
    EndpointTimeout,
    OutboundError,
    ResponseTooLarge,
    within,
)

# As a session of requests would send them, which needs 430 microseconds where this needs 20 (2026-11-29).
_HEADERS: Final = {
    "Accept": "application/json",
    "Connection": "keep-alive",
    "Content-Type": "application/x-www-form-urlencoded",
}
ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
# In seconds. An assertion is used at once, for one call.
ASSERTION_LIFETIME: Final = 60


@dataclass(frozen=True, slots=True)
class ClientAuthentication:
    """What authenticates us in a request: body parameters, or the value of an Authorization header."""

    parameters: dict[str, str] = field(default_factory=dict, repr=False)
    basic: str | None = field(default=None, repr=False)

    def header(self) -> dict[str, str]:
        return {"Authorization": self.basic} if self.basic else {}


def client_authentication(configuration: ServerConfiguration, credentials: ClientCredentials) -> ClientAuthentication:
    """Build the authentication of the configured method only. `send_client_id_with_basic` adds the client_id.

    Some servers read `client_id` in the body before they read the header (MCP's Python SDK). Others refuse it as a
    second method (Cloudflare's provider, following RFC 6749 section 2.3).

    Raises `AuthorizationServerError` with `invalid_client` if the secret, key or issuer that the method needs is
    missing.
    """
    client_id = {"client_id": configuration.client_id}
    match configuration.token_endpoint_auth_method:
        case "none":
            return ClientAuthentication(client_id)
        case "private_key_jwt":
            return ClientAuthentication(client_id | _client_assertion(configuration, credentials.signing_key))
    client_secret = credentials.client_secret
    if client_secret is None:
        raise AuthorizationServerError(ErrorCode.INVALID_CLIENT, "no client secret is configured")
    if configuration.token_endpoint_auth_method == "client_secret_post":
        return ClientAuthentication(client_id | {"client_secret": client_secret.reveal()})
    beside = client_id if configuration.send_client_id_with_basic else {}
    return ClientAuthentication(beside, _basic(configuration, client_secret))


def _basic(configuration: ServerConfiguration, client_secret: Secret) -> str:
    """Encode id and secret as forms do (RFC 6749 section 2.3.1), or leave them raw: servers expect either.

    A space becomes `%20`, not `+`: servers that only percent-decode (Authlib, pyop) do not decode `+`.
    """
    values = [configuration.client_id, client_secret.reveal()]
    if configuration.basic_encoding == "form":
        values = [quote(value, safe="") for value in values]
    return f"Basic {b64encode(':'.join(values).encode()).decode()}"


def _client_assertion(configuration: ServerConfiguration, signing_key: Secret | None) -> dict[str, str]:
    """Sign a client assertion that only this server accepts (C7).

    The audience is the issuer, never an endpoint: a hostile server could name an honest server's endpoint in its
    metadata and use our assertion there.
    """
    if signing_key is None:
        raise AuthorizationServerError(ErrorCode.INVALID_CLIENT, "no signing key was made yet")
    if not configuration.issuer:
        raise AuthorizationServerError(ErrorCode.INVALID_CLIENT, "private_key_jwt needs an issuer")
    jwk, now = json.loads(signing_key.reveal()), int(time())
    claims = {
        "iss": configuration.client_id,
        "sub": configuration.client_id,
        "aud": configuration.issuer,
        "jti": random_token(),
        "iat": now,
        "exp": now + ASSERTION_LIFETIME,
    }
    assertion = jwt.encode(claims, jwt.PyJWK(jwk).key, algorithm=jwk["alg"], headers={"kid": jwk["kid"]})
    return {"client_assertion_type": ASSERTION_TYPE, "client_assertion": assertion}


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """An endpoint by its name in RFC 8414, and its error codes; its responses may contain those of `registered`."""

    name: str
    timeout: ErrorCode
    unreachable: ErrorCode
    refused: ErrorCode
    invalid_response: ErrorCode
    registered: frozenset[ErrorCode]

    def failure(self, error: OutboundError) -> AuthorizationServerError:
        """Translate a transport error into this endpoint's error code."""
        codes = {EndpointTimeout: self.timeout, ResponseTooLarge: self.invalid_response}
        return unanswered(codes.get(type(error), self.unreachable), error, self.name)

    def invalid(self, detail: str) -> AuthorizationServerError:
        return AuthorizationServerError(self.invalid_response, detail)


TOKEN_ENDPOINT: Final = Endpoint(
    name="token_endpoint",
    timeout=ErrorCode.TOKEN_ENDPOINT_TIMEOUT,
    unreachable=ErrorCode.TOKEN_ENDPOINT_UNREACHABLE,
    refused=ErrorCode.TOKEN_REQUEST_REFUSED,
    invalid_response=ErrorCode.INVALID_TOKEN_RESPONSE,
    registered=TOKEN_ERRORS,
)
REVOCATION_ENDPOINT: Final = Endpoint(
    name="revocation_endpoint",
    timeout=ErrorCode.REVOCATION_ENDPOINT_TIMEOUT,
    unreachable=ErrorCode.REVOCATION_ENDPOINT_UNREACHABLE,
    refused=ErrorCode.REVOCATION_REFUSED,
    invalid_response=ErrorCode.INVALID_REVOCATION_RESPONSE,
    registered=TOKEN_ERRORS | {ErrorCode.UNSUPPORTED_TOKEN_TYPE},
)
USERINFO_ENDPOINT: Final = Endpoint(
    name="userinfo_endpoint",
    timeout=ErrorCode.SUBJECT_ENDPOINT_TIMEOUT,
    unreachable=ErrorCode.SUBJECT_ENDPOINT_UNREACHABLE,
    refused=ErrorCode.SUBJECT_REQUEST_REFUSED,
    invalid_response=ErrorCode.INVALID_SUBJECT_RESPONSE,
    registered=frozenset(),
)
INTROSPECTION_ENDPOINT: Final = replace(USERINFO_ENDPOINT, name="introspection_endpoint")
# At this point nobody could have denied access, so `access_denied` is just another refusal of the request.
PAR_ENDPOINT: Final = Endpoint(
    name="pushed_authorization_request_endpoint",
    timeout=ErrorCode.PAR_ENDPOINT_TIMEOUT,
    unreachable=ErrorCode.PAR_ENDPOINT_UNREACHABLE,
    refused=ErrorCode.AUTHORIZATION_REQUEST_REFUSED,
    invalid_response=ErrorCode.INVALID_PAR_RESPONSE,
    registered=(TOKEN_ERRORS | AUTHORIZATION_ERRORS) - {ErrorCode.ACCESS_DENIED},
)


def post(
    endpoint: Endpoint,
    configuration: ServerConfiguration,
    parameters: Iterable[tuple[str, str]],
    credentials: ClientCredentials,
    proof_key: ProofKey | None = None,
) -> requests.Response:
    """Post a form once, with client authentication. Blocks for up to 10 seconds: call it outside a transaction.

    `parameters` may repeat a name, as `resource` does (RFC 8707). Authentication parameters replace others of the same
    name. With a `proof_key` the request has a proof, and is sent a second time if the server demands a nonce (E20).
    Raises `AuthorizationServerError` if no response arrived. The caller judges the response.
    """
    url, given = getattr(configuration, endpoint.name), list(parameters)

    def send(headers: dict[str, str]) -> requests.Response:
        # Made anew for each request: a client assertion is used once, like a proof.
        authentication = client_authentication(configuration, credentials)
        form = [(name, value) for name, value in given if name not in authentication.parameters]
        body = urlencode([*form, *authentication.parameters.items()]).encode()
        return transport.post(url, body, _HEADERS | headers | authentication.header())

    try:
        if proof_key is None:
            return send({})
        # An authorization server's endpoints share its nonces. Brands may share a token endpoint, and no client of it
        # (C5): otherwise the nonce of one brand's PAR endpoint, at a host of its own, would go into another's proofs.
        request = ProvenRequest("POST", url, f"{configuration.token_endpoint} {configuration.client_id}")
        with within(TOTAL_TIMEOUT):
            return send_with_proof(proof_key, request, send, _wants_nonce)
    except OutboundError as error:
        raise endpoint.failure(error) from None


class _Refusal(msgspec.Struct):
    error: str = ""


def _wants_nonce(response: requests.Response) -> bool:
    """Whether the server did nothing because the proof has no nonce, or an old one (RFC 9449 section 8)."""
    if response.status_code != HTTPStatus.BAD_REQUEST:
        return False
    try:
        return msgspec.json.decode(response.content, type=_Refusal).error == USE_NONCE
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
