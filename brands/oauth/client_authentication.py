"""How we authenticate at the token endpoint (RFC 6749 section 2.3.1)."""

from typing import Any
from urllib.parse import quote_plus

from requests.auth import HTTPBasicAuth

from brands.oauth.configuration import ServerConfiguration
from brands.oauth.errors import AuthorizationServerError, ErrorCode
from delegation_site.crypto import Secret


def client_authentication(configuration: ServerConfiguration, client_secret: Secret | None) -> dict[str, Any]:
    """Return the arguments for `OAuth2Session.fetch_token` that authenticate the client by the configured method.

    Raises `AuthorizationServerError` with `invalid_client` where the method needs a secret and there is none.
    """
    if configuration.token_endpoint_auth_method == "none":
        return {"include_client_id": True}
    if client_secret is None:
        raise AuthorizationServerError(ErrorCode.INVALID_CLIENT, "no client secret is configured")
    if configuration.token_endpoint_auth_method == "client_secret_post":
        return {"include_client_id": True, "client_secret": client_secret.reveal()}
    return {"include_client_id": False, "auth": _basic(configuration, client_secret)}


def _basic(configuration: ServerConfiguration, client_secret: Secret) -> HTTPBasicAuth:
    """Write id and secret form-encoded first, as the RFC has it, or raw: in the field both are needed.

    As bytes: the library would encode text as Latin-1 and fail on everything beyond.
    """
    values = [configuration.client_id, client_secret.reveal()]
    if configuration.basic_encoding == "form":
        values = [quote_plus(value) for value in values]
    return HTTPBasicAuth(*[value.encode() for value in values])
