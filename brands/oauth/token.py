"""The token request: one authorization code for one access token (RFC 6749 sections 4.1.3 and 4.1.4, RFC 7636)."""

from io import BytesIO
from typing import Any

import requests
from django.utils import timezone
from requests_oauthlib import OAuth2Session

from brands.oauth.authorization import resource_parameters
from brands.oauth.configuration import ServerConfiguration
from brands.oauth.credentials import ClientCredentials
from brands.oauth.endpoints import TOKEN_ENDPOINT, post
from brands.oauth.token_response import TokenResponse, read_token_response
from brands.transport import GuardedSession
from delegation_site.crypto import Secret

# The library refuses every http: address, unless an environment variable switches its check off for the whole process
# (N10). It is shown this one; the configured endpoint is called, and `brands.validators` says which may be, more
# strictly: plain http for loopback only, and only where `ALLOW_LOCAL_ENDPOINTS` is on.
_NOWHERE = "https://token-endpoint.invalid/"


def exchange_code(
    configuration: ServerConfiguration, *, code: Secret, code_verifier: Secret, credentials: ClientCredentials
) -> TokenResponse:
    """Send the code, once, and return what the server granted. Blocks for up to 10 seconds: no transaction around it.

    Raises `AuthorizationServerError` for everything that can go wrong there. After any failure the code is spent: the
    server may have seen it, and may end good tokens when it comes twice (E20, section 4.1.2).
    """
    with _TokenSession(configuration, credentials) as session:
        return session.exchange(code, code_verifier)


class _TokenSession(GuardedSession, OAuth2Session):
    """The library's session, for one exchange. It is given no scope: another one granted makes it raise (E13).

    And no client id: what the library would make of one, `request` leaves out and `post` does.
    """

    _granted: TokenResponse

    def __init__(self, configuration: ServerConfiguration, credentials: ClientCredentials) -> None:
        super().__init__(redirect_uri=configuration.redirect_uri)
        self._configuration = configuration
        self._credentials = credentials

    def exchange(self, code: Secret, code_verifier: Secret) -> TokenResponse:
        """Let the library write the token request; return what `request` made of the answer."""
        self.fetch_token(_NOWHERE, code=code.reveal(), code_verifier=code_verifier.reveal())
        return self._granted

    def request(  # type: ignore[override]  # the library's own signature is not that of requests, either
        self,
        method: str,  # noqa: ARG002  it is POST
        url: str,  # noqa: ARG002  what the library was shown
        data: dict[str, str],
        **_options: Any,
    ) -> requests.Response:
        """Post to the configured endpoint and judge the answer; tell the library no more than that it went well.

        It keeps every field of an answer in the session, and logs answer and request at DEBUG; so refresh token, access
        token, code, verifier and secret stop here (E15).
        """
        requested_at = timezone.now()
        # Beside the library's dictionary, which could hold one of several.
        parameters = [*data.items(), *resource_parameters(self._configuration)]
        response = post(TOKEN_ENDPOINT, self._configuration, parameters, self._credentials)
        self._granted = read_token_response(self._configuration, response, requested_at)
        return _stand_in()


def _stand_in() -> requests.Response:
    response = requests.Response()
    response.status_code = requests.codes.ok
    response.request = requests.PreparedRequest()
    response.encoding = "utf-8"
    response.raw = BytesIO(b'{"access_token": "kept-elsewhere", "token_type": "Bearer"}')
    return response
