"""The authorization request: the address that the consumer's browser is sent to (RFC 6749 section 4.1.1)."""

from oauthlib.common import add_params_to_uri
from oauthlib.oauth2 import WebApplicationClient

from brands.oauth.configuration import ServerConfiguration
from brands.validators import is_reserved_parameter


def authorization_url(configuration: ServerConfiguration, *, state: str, nonce: str, code_challenge: str) -> str:
    """Return the authorization endpoint with our request in its query; a query of its own is kept (section 3.1).

    `code_challenge` is of method S256 (RFC 7636), with or without a client secret. `nonce` goes along where an ID token
    is asked for (OpenID Connect Core section 3.1.2.1).
    """
    parameters = {"code_challenge": code_challenge, "code_challenge_method": "S256"}
    if configuration.uses_openid:
        parameters["nonce"] = nonce
    if configuration.prompt:
        parameters["prompt"] = configuration.prompt
    if configuration.max_age is not None:
        parameters["max_age"] = str(configuration.max_age)  # as text: the library drops a 0
    url = WebApplicationClient(configuration.client_id).prepare_request_uri(
        add_params_to_uri(as_https(configuration.authorization_endpoint), _extra_parameters(configuration)),
        redirect_uri=configuration.redirect_uri,
        scope=configuration.scope or None,
        state=state,
        **parameters,
    )
    return url if is_https(configuration.authorization_endpoint) else "http" + url.removeprefix("https")


def as_https(endpoint: str) -> str:
    """Return the form of an endpoint that the library accepts.

    It refuses every `http:` address, unless an environment variable switches its check off for the whole process (N10).
    Which endpoints may be used is for `brands.validators` to say, which is stricter: plain http for loopback only, and
    only where `ALLOW_LOCAL_ENDPOINTS` is on.
    """
    return endpoint if is_https(endpoint) else "https:" + endpoint.partition(":")[2]


def is_https(endpoint: str) -> bool:
    """Tell whether the scheme is https."""
    return endpoint.lower().startswith("https:")


def _extra_parameters(configuration: ServerConfiguration) -> list[tuple[str, str]]:
    """Leave out what the validator refuses: a row written by SQL must not set our parameters either (B20)."""
    extra = configuration.extra_authorization_parameters
    return [(name, value) for name, value in extra.items() if not is_reserved_parameter(name)]
