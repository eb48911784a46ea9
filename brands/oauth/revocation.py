"""Token revocation: telling the server that an access token is no longer wanted (RFC 7009)."""

from http import HTTPStatus
from typing import Final

from brands.oauth.answers import refusal_in
from brands.oauth.configuration import ServerConfiguration
from brands.oauth.credentials import ClientCredentials
from brands.oauth.endpoints import REVOCATION_ENDPOINT, post
from delegation_site.crypto import Secret

# Section 2.2 has 200; servers whose framework answers an empty body by 204 mean the same, and revoked the token.
_DONE: Final = frozenset({HTTPStatus.OK, HTTPStatus.NO_CONTENT})


def revoke_token(configuration: ServerConfiguration, access_token: Secret, credentials: ClientCredentials) -> None:
    """Present the token at the revocation endpoint. Blocks for up to 10 seconds: no transaction around it.

    A server also says 200 of a token that it does not know (section 2.2); only 200 and 204 are a success. Raises
    `AuthorizationServerError`, whose `is_retryable` tells whether to come back; neither it nor a log holds the token.
    """
    parameters = [("token", access_token.reveal()), ("token_type_hint", "access_token")]
    response = post(REVOCATION_ENDPOINT, configuration, parameters, credentials)
    if response.status_code not in _DONE:
        raise refusal_in(REVOCATION_ENDPOINT, response)
