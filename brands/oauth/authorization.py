"""The authorization request: the address that the consumer's browser is sent to.

In its query (RFC 6749 section 4.1.1), or pushed to the server first, so that nobody on the way can read or change it
(RFC 9126, B21).
"""

import re
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from oauthlib.common import add_params_to_uri
from oauthlib.oauth2 import WebApplicationClient

from brands.oauth.answers import read_parameters, refusal_in
from brands.oauth.configuration import ServerConfiguration
from brands.oauth.credentials import ClientCredentials
from brands.oauth.endpoints import PAR_ENDPOINT, post
from brands.oauth.errors import AuthorizationServerError, ErrorCode
from brands.validators import is_reserved_parameter

# An absolute URI (RFC 3986), as long as RFC 9101 section 5.2 lets a client send it.
_REQUEST_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(?=.)[A-Za-z0-9._~:/?@!$&'()*+,;=%-]*")
_MAX_REQUEST_URI_LENGTH: Final = 512
# Servers and what stands before them read a request line of some 8 KB, as nginx and Apache do unless told otherwise.
MAX_URL_LENGTH: Final = 8000
# The library writes an address; only the query of this one is used.
_NOWHERE: Final = "https://authorization-endpoint.invalid/"


def authorization_url(configuration: ServerConfiguration, *, state: str, nonce: str, code_challenge: str) -> str:
    """Return the authorization endpoint with our request in its query; a query of its own is kept (section 3.1).

    `code_challenge` is of method S256 (RFC 7636), with or without a client secret. `nonce` goes along where an ID token
    is asked for (OpenID Connect Core section 3.1.2.1). Raises `AuthorizationServerError` for an address of more than
    `MAX_URL_LENGTH` characters: it would end at some server in between, on a page that nobody can explain.
    """
    parameters = _parameters(configuration, state=state, nonce=nonce, code_challenge=code_challenge)
    url = str(add_params_to_uri(configuration.authorization_endpoint, parameters))
    if len(url) > MAX_URL_LENGTH:
        raise AuthorizationServerError(
            ErrorCode.AUTHORIZATION_REQUEST_REFUSED,
            f"not sent: its address has {len(url)} characters, and {MAX_URL_LENGTH} are the most that servers take",
        )
    return url


def resource_parameters(configuration: ServerConfiguration) -> list[tuple[str, str]]:
    """Return the same `resource` parameters for each request: several audiences are one parameter each (RFC 8707)."""
    return [("resource", resource) for resource in configuration.resource]


def pushed_authorization_url(
    configuration: ServerConfiguration, credentials: ClientCredentials, *, state: str, nonce: str, code_challenge: str
) -> str:
    """Push the same request and return an address that names no more of it than `client_id` and `request_uri`.

    Blocks for up to 10 seconds: no transaction around it. Raises `AuthorizationServerError`.
    """
    parameters = _parameters(configuration, state=state, nonce=nonce, code_challenge=code_challenge)
    response = post(PAR_ENDPOINT, configuration, parameters, credentials)
    if response.status_code != HTTPStatus.CREATED:
        raise refusal_in(PAR_ENDPOINT, response)
    answer = read_parameters(PAR_ENDPOINT, response)
    reference = [
        ("client_id", configuration.client_id),
        ("request_uri", _request_uri(answer.get("request_uri"))),
    ]
    _check_lifetime(answer.get("expires_in"))
    return str(add_params_to_uri(configuration.authorization_endpoint, reference))


def _parameters(
    configuration: ServerConfiguration, *, state: str, nonce: str, code_challenge: str
) -> list[tuple[str, str]]:
    parameters = {"code_challenge": code_challenge, "code_challenge_method": "S256"}
    if configuration.uses_openid:
        parameters["nonce"] = nonce
    if configuration.prompt:
        parameters["prompt"] = configuration.prompt
    if configuration.max_age is not None:
        parameters["max_age"] = str(configuration.max_age)  # as text: the library drops a 0
    written = WebApplicationClient(configuration.client_id).prepare_request_uri(
        _NOWHERE,
        redirect_uri=configuration.redirect_uri,
        scope=configuration.scope_on_the_wire or None,
        state=state,
        **parameters,
    )
    ours = parse_qsl(urlsplit(written).query)
    return ours + resource_parameters(configuration) + _extra_parameters(configuration)


def _extra_parameters(configuration: ServerConfiguration) -> list[tuple[str, str]]:
    """Leave out what the validator refuses: a row written by SQL must not set our parameters either (B20)."""
    extra = configuration.extra_authorization_parameters
    return [(name, value) for name, value in extra.items() if not is_reserved_parameter(name)]


def _request_uri(value: object) -> str:
    """Take what can stand in an address and nothing else: it is sent on to the consumer's browser."""
    if not isinstance(value, str) or len(value) > _MAX_REQUEST_URI_LENGTH or not _REQUEST_URI.fullmatch(value):
        raise PAR_ENDPOINT.invalid("request_uri is not an address of at most 512 characters")
    return value


def _check_lifetime(value: object) -> None:
    """Require what RFC 9126 section 2.2 does; the browser is sent on at once, so its length does not matter."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise PAR_ENDPOINT.invalid("expires_in is not a positive whole number of seconds")
