"""How we authenticate at a server's endpoints (RFC 6749 section 2.3, RFC 7523 section 2.2)."""

import json
from dataclasses import dataclass, field
from time import time
from typing import Final
from urllib.parse import quote

import jwt
from requests.auth import HTTPBasicAuth

from brands.oauth.configuration import ServerConfiguration
from brands.oauth.credentials import ClientCredentials
from brands.oauth.errors import AuthorizationServerError, ErrorCode
from delegation_site.crypto import Secret, random_token

ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
# Seconds: for one call, made now.
ASSERTION_LIFETIME: Final = 60


@dataclass(frozen=True, slots=True)
class ClientAuthentication:
    """What a request carries to say who we are: parameters of its body, or a header."""

    parameters: dict[str, str] = field(default_factory=dict, repr=False)
    basic: HTTPBasicAuth | None = field(default=None, repr=False)


def client_authentication(configuration: ServerConfiguration, credentials: ClientCredentials) -> ClientAuthentication:
    """Return the configured method's own, and that alone, except where `send_client_id_with_basic` adds to it.

    Some servers look for `client_id` in the body before they read the header (MCP's Python SDK); others refuse it there
    as a second method (Cloudflare's provider, by RFC 6749 section 2.3).

    Raises `AuthorizationServerError` with `invalid_client` where the method needs a secret, a key or an issuer that is
    not there.
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


def _basic(configuration: ServerConfiguration, client_secret: Secret) -> HTTPBasicAuth:
    """Write id and secret form-encoded first, as the RFC has it, or raw: in the field both are needed.

    A space is `%20` and never `+`: whoever decodes forms reads both, and servers that only percent-decode (Authlib,
    pyop) read a `+` as itself.

    As bytes: the library would encode text as Latin-1 and fail on everything beyond.
    """
    values = [configuration.client_id, client_secret.reveal()]
    if configuration.basic_encoding == "form":
        values = [quote(value, safe="") for value in values]
    return HTTPBasicAuth(*[value.encode() for value in values])


def _client_assertion(configuration: ServerConfiguration, signing_key: Secret | None) -> dict[str, str]:
    """Sign that we are this client, for this server alone (C7).

    The audience is the issuer as one string, never an endpoint's address: an assertion that names an address which a
    hostile server's metadata gave us is good at the honest server that it belongs to.
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
