"""The endpoints that we post to, each with the codes of its troubles; one authenticated call serves them all."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import requests

from brands.oauth.client_authentication import client_authentication
from brands.oauth.configuration import ServerConfiguration
from brands.oauth.credentials import ClientCredentials
from brands.oauth.errors import AUTHORIZATION_ERRORS, TOKEN_ERRORS, AuthorizationServerError, ErrorCode
from brands.transport import (
    EndpointBlocked,
    EndpointTimeout,
    EndpointUnreachable,
    GuardedSession,
    OutboundError,
    ResponseTooLarge,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """An endpoint by its name in RFC 8414. `registered` are the error codes that its answers may carry."""

    name: str
    blocked: ErrorCode
    timeout: ErrorCode
    unreachable: ErrorCode
    refused: ErrorCode
    invalid_response: ErrorCode
    registered: frozenset[ErrorCode]

    def failure(self, error: OutboundError) -> AuthorizationServerError:
        """Return what a call that failed means here."""
        codes = {
            EndpointBlocked: self.blocked,
            EndpointTimeout: self.timeout,
            EndpointUnreachable: self.unreachable,
            ResponseTooLarge: self.invalid_response,
        }
        return AuthorizationServerError(codes[type(error)], str(error))

    def invalid(self, detail: str) -> AuthorizationServerError:
        """Return the error of an answer that is none."""
        return AuthorizationServerError(self.invalid_response, detail)


TOKEN_ENDPOINT: Final = Endpoint(
    name="token_endpoint",
    blocked=ErrorCode.TOKEN_ENDPOINT_BLOCKED,
    timeout=ErrorCode.TOKEN_ENDPOINT_TIMEOUT,
    unreachable=ErrorCode.TOKEN_ENDPOINT_UNREACHABLE,
    refused=ErrorCode.TOKEN_REQUEST_REFUSED,
    invalid_response=ErrorCode.INVALID_TOKEN_RESPONSE,
    registered=TOKEN_ERRORS,
)
REVOCATION_ENDPOINT: Final = Endpoint(
    name="revocation_endpoint",
    blocked=ErrorCode.REVOCATION_ENDPOINT_BLOCKED,
    timeout=ErrorCode.REVOCATION_ENDPOINT_TIMEOUT,
    unreachable=ErrorCode.REVOCATION_ENDPOINT_UNREACHABLE,
    refused=ErrorCode.REVOCATION_REFUSED,
    invalid_response=ErrorCode.INVALID_REVOCATION_RESPONSE,
    registered=TOKEN_ERRORS | {ErrorCode.UNSUPPORTED_TOKEN_TYPE},
)
# Nobody was asked yet who could deny access: from here `access_denied` is one more way to refuse the request.
PAR_ENDPOINT: Final = Endpoint(
    name="pushed_authorization_request_endpoint",
    blocked=ErrorCode.PAR_ENDPOINT_BLOCKED,
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
) -> requests.Response:
    """Post a form once, authenticated as the configuration says. Blocks for up to 10 seconds: no transaction around it.

    `parameters` may name one several times, as `resource` (RFC 8707); what authenticates us replaces its namesakes.

    Raises `AuthorizationServerError` where nothing could be sent or no answer came. An answer is the caller's to judge.
    """
    authentication = client_authentication(configuration, credentials)
    form = [(name, value) for name, value in parameters if name not in authentication.parameters]
    try:
        with GuardedSession() as session:
            return session.post(
                getattr(configuration, endpoint.name),
                data=[*form, *authentication.parameters.items()],
                headers={"Accept": "application/json"},
                auth=authentication.basic,
            )
    except OutboundError as error:
        raise endpoint.failure(error) from None
