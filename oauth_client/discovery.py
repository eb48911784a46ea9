"""Fetch and validate a server's metadata (OpenID Connect Discovery 1.0 section 4, RFC 8414) (C6).

Metadata is fetched when an admin configures a server, never during a sign-in.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

from django.core.exceptions import ValidationError

from oauth_client import transport
from oauth_client.answers import NotStrictJSON, read_json_object
from oauth_client.errors import issuer_mismatch
from oauth_client.validators import validate_authorization_endpoint, validate_endpoint, validate_issuer

# Of algorithms, client authentication methods or code challenge methods in one list.
_MAX_NAMES: Final = 200
# A scope (RFC 6749 section 3.3), no longer than an address.
_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,200}")

_ENDPOINTS: Final[dict[str, Callable[[str], None]]] = {
    "authorization_endpoint": validate_authorization_endpoint,
    "token_endpoint": validate_endpoint,
    "jwks_uri": validate_endpoint,
    "revocation_endpoint": validate_endpoint,
    "pushed_authorization_request_endpoint": validate_endpoint,
}
# Nothing depends on them, so an invalid one is no error.
_OPTIONAL_ENDPOINTS: Final = ("userinfo_endpoint", "introspection_endpoint")


class DiscoveryFailed(Exception):
    """No usable metadata was found. `field` names the wrong member. The message says so in our own words.

    `unanswered` is the transport's error if no response arrived. Only the operator may see it (N9).
    """

    def __init__(self, field: str, message: str, unanswered: transport.OutboundError | None = None) -> None:
        super().__init__(message)
        self.field = field
        self.message = message
        self.unanswered = unanswered


class NoMetadata(DiscoveryFailed):
    """A well-known URL has no metadata of this issuer. If both have none, the failure with more weight is shown.

    The more specific a failure is, the greater is its weight.
    """

    def __init__(self, message: str, weight: int, unanswered: transport.OutboundError | None = None) -> None:
        super().__init__("issuer", message, unanswered)
        self.weight = weight


class OtherIssuer(NoMetadata):
    """The document is of another issuer. The message names both issuers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerMetadata:
    """A server's metadata, with the names of RFC 8414. A missing endpoint is an empty string."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    revocation_endpoint: str
    pushed_authorization_request_endpoint: str
    authorization_response_iss_parameter_supported: bool
    id_token_signing_alg_values_supported: tuple[str, ...]
    token_endpoint_auth_methods_supported: tuple[str, ...]
    code_challenge_methods_supported: tuple[str, ...]
    scopes_supported: tuple[str, ...] = ()
    userinfo_endpoint: str = ""
    introspection_endpoint: str = ""
    require_pushed_authorization_requests: bool = False
    dpop_signing_alg_values_supported: tuple[str, ...] = ()


def discover(issuer: str) -> ServerMetadata:
    """Fetch and validate an issuer's metadata. Blocks for up to 20 seconds: call it outside a transaction.

    The well-known URL of OpenID Connect is tried first. If it has no document of this issuer (not found, unreadable, or
    of another issuer), that of RFC 8414 is tried. A document of this issuer with an invalid value is an error at once.
    Raises `DiscoveryFailed`. All failures to connect give the same
    message, so that an admin cannot use us to scan addresses (N9).
    """
    try:
        validate_issuer(issuer)
    except ValidationError as error:
        raise DiscoveryFailed("issuer", error.messages[0]) from None
    failures = []
    for url in _well_known_urls(issuer):
        try:
            return read_metadata(issuer, _fetch(url))
        except NoMetadata as failure:
            failures.append(failure)
    raise max(failures, key=lambda failure: failure.weight) from None


def _fetch(url: str) -> bytes:
    try:
        response = transport.get(url)
    except transport.OutboundError as error:
        raise NoMetadata("The metadata of this issuer could not be fetched.", weight=1, unanswered=error) from None
    if response.status_code != HTTPStatus.OK:
        raise NoMetadata("No metadata was found for this issuer. Enter the endpoints yourself.", weight=0)
    return response.content


def read_metadata(issuer: str, document: bytes) -> ServerMetadata:
    """Validate a metadata document.

    Raises `NoMetadata` if it is unreadable or of another issuer, and otherwise `DiscoveryFailed`.
    """
    try:
        members = {name: value for name, value in read_json_object(document).items() if value is not None}
    except NotStrictJSON as error:
        raise NoMetadata(f"The metadata of this issuer cannot be read: {error}.", weight=2) from None
    if "issuer" not in members:
        raise NoMetadata("The metadata of this issuer cannot be read: it names no issuer.", weight=2)
    # Exact comparison, slash and case included: otherwise one server could speak for another (RFC 8414 section 3.3).
    if members.get("issuer") != issuer:
        raise OtherIssuer(f"The issuer in the metadata {issuer_mismatch(issuer, members['issuer'])}.", weight=3)
    return ServerMetadata(
        issuer=issuer,
        **{name: _endpoint(members, name) for name in _ENDPOINTS},
        **{name: _optional_endpoint(members, name) for name in _OPTIONAL_ENDPOINTS},
        authorization_response_iss_parameter_supported=_flag(members, "authorization_response_iss_parameter_supported"),
        id_token_signing_alg_values_supported=_names(members, "id_token_signing_alg_values_supported"),
        token_endpoint_auth_methods_supported=_names(members, "token_endpoint_auth_methods_supported"),
        code_challenge_methods_supported=_names(members, "code_challenge_methods_supported"),
        scopes_supported=_plain_names(members.get("scopes_supported")),
        # They say what is supported and not what is wanted, so no value of them stops anybody.
        dpop_signing_alg_values_supported=_plain_names(members.get("dpop_signing_alg_values_supported")),
        # Only the doctor reads it, so a value that is no boolean stops nobody.
        require_pushed_authorization_requests=members.get("require_pushed_authorization_requests") is True,
    )


def _well_known_urls(issuer: str) -> Iterator[str]:
    """Yield two URLs: with the well-known part behind the issuer's path (OpenID Connect), and before it (RFC 8414)."""
    parts = urlsplit(issuer)
    yield f"{issuer.removesuffix('/')}/.well-known/openid-configuration"
    yield parts._replace(path=f"/.well-known/oauth-authorization-server{parts.path.removesuffix('/')}").geturl()


def _endpoint(members: dict[str, Any], name: str) -> str:
    value = members.get(name, "")
    try:
        if not isinstance(value, str):
            raise ValidationError("A URL must be text.")
        if value:
            _ENDPOINTS[name](value)
    except ValidationError as error:
        raise DiscoveryFailed(
            name, f"The issuer's metadata has a {name} that is not allowed. {error.messages[0]}"
        ) from None
    return value


def _optional_endpoint(members: dict[str, Any], name: str) -> str:
    value = members.get(name, "")
    try:
        validate_endpoint(value if isinstance(value, str) else "")
    except ValidationError:
        return ""
    return str(value)


def _flag(members: dict[str, Any], name: str) -> bool:
    value = members.get(name, False)
    if not isinstance(value, bool):
        raise DiscoveryFailed(name, f"In the issuer's metadata, {name} must be true or false.")
    return value


def _names(members: dict[str, Any], name: str) -> tuple[str, ...]:
    value = members.get(name, [])
    if not isinstance(value, list) or len(value) > _MAX_NAMES or not all(isinstance(item, str) for item in value):
        raise DiscoveryFailed(name, f"In the issuer's metadata, {name} must be a list of names.")
    return tuple(value)


def _plain_names(value: Any) -> tuple[str, ...]:
    """Return the scopes or algorithms of a list, up to a limit. Nothing depends on others, so they are left out."""
    names = (
        [item for item in value if isinstance(item, str) and _SCOPE.fullmatch(item)] if isinstance(value, list) else []
    )
    return tuple(names[:_MAX_NAMES])
