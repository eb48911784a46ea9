"""The token request: one authorization code for one access token (RFC 6749 sections 4.1.3 and 4.1.4, RFC 7636)."""

from io import BytesIO
from typing import Any, Final

import requests
from django.utils import timezone
from oauthlib.oauth2 import WebApplicationClient
from requests_oauthlib import OAuth2Session

from brands.oauth.authorization import as_https
from brands.oauth.client_authentication import client_authentication
from brands.oauth.configuration import ServerConfiguration
from brands.oauth.errors import AuthorizationServerError, ErrorCode
from brands.oauth.token_response import TokenResponse, read_token_response
from brands.transport import (
    EndpointBlocked,
    EndpointTimeout,
    EndpointUnreachable,
    GuardedSession,
    OutboundError,
    ResponseTooLarge,
)
from delegation_site.crypto import Secret

_OUTBOUND_ERRORS: Final[dict[type[OutboundError], ErrorCode]] = {
    EndpointBlocked: ErrorCode.TOKEN_ENDPOINT_BLOCKED,
    EndpointTimeout: ErrorCode.TOKEN_ENDPOINT_TIMEOUT,
    EndpointUnreachable: ErrorCode.TOKEN_ENDPOINT_UNREACHABLE,
    ResponseTooLarge: ErrorCode.INVALID_TOKEN_RESPONSE,
}


def exchange_code(
    configuration: ServerConfiguration, *, code: Secret, code_verifier: Secret, client_secret: Secret | None
) -> TokenResponse:
    """Send the code, once, and return what the server granted. Blocks for up to 10 seconds: no transaction around it.

    Raises `AuthorizationServerError` for everything that can go wrong there. After any failure the code is spent: the
    server may have seen it, and may end good tokens when it comes twice (E20, section 4.1.2).
    """
    try:
        with _TokenSession(configuration) as session:
            return session.exchange(code, code_verifier, client_secret)
    except OutboundError as error:
        raise AuthorizationServerError(_OUTBOUND_ERRORS[type(error)], str(error)) from None


class _TokenSession(GuardedSession, OAuth2Session):
    """The library's session, for one exchange. It is given no scope: another one granted makes it raise (E13)."""

    _granted: TokenResponse

    def __init__(self, configuration: ServerConfiguration) -> None:
        super().__init__(client=WebApplicationClient(configuration.client_id), redirect_uri=configuration.redirect_uri)
        self._configuration = configuration

    def exchange(self, code: Secret, code_verifier: Secret, client_secret: Secret | None) -> TokenResponse:
        """Let the library write and authenticate the token request; return what `request` made of the answer."""
        self.fetch_token(
            as_https(self._configuration.token_endpoint),
            code=code.reveal(),
            code_verifier=code_verifier.reveal(),
            **client_authentication(self._configuration, client_secret),
        )
        return self._granted

    def request(  # type: ignore[override]  # the library's own signature is not that of requests, either
        self,
        method: str,
        url: str,  # noqa: ARG002  what the library was shown, see `as_https`; the configured endpoint is called
        data: Any = None,
        headers: Any = None,
        **options: Any,
    ) -> requests.Response:
        """Post to the configured endpoint and judge the answer; tell the library no more than that it went well.

        It keeps every field of an answer in the session, and logs answer and request at DEBUG; so refresh token, access
        token, code, verifier and secret stop here (E15).
        """
        requested_at = timezone.now()
        response = requests.Session.request(
            self, method, self._configuration.token_endpoint, data=data, headers=headers, auth=options.get("auth")
        )
        self._granted = read_token_response(self._configuration, response, requested_at)
        return _stand_in()


def _stand_in() -> requests.Response:
    response = requests.Response()
    response.status_code = requests.codes.ok
    response.request = requests.PreparedRequest()
    response.encoding = "utf-8"
    response.raw = BytesIO(b'{"access_token": "kept-elsewhere", "token_type": "Bearer"}')
    return response
