"""What one authorization server needs to be talked to: the only thing of a brand that the protocol code knows."""

from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from infrastructure.crypto import Secret

ClientAuthenticationMethod = Literal["client_secret_basic", "client_secret_post", "private_key_jwt", "none"]
ScopeSeparator = Literal["space", "comma", "comma_in_response"]


class ServerConfiguration(msgspec.Struct, frozen=True, kw_only=True):
    """A frozen copy of an authorization server's configuration.

    Each attempt keeps the copy that its authorization request was made from. At the callback it must equal today's:
    a code is not sent to an endpoint that was swapped meanwhile (C4). The client secret is no part of it.
    `scope` is what this challenge asks for; lifetimes are seconds. Scopes are separated by one space in all that we
    keep, whatever `scope_separator` says of the wire (E14).
    """

    authorization_endpoint: str
    token_endpoint: str
    client_id: str
    redirect_uri: str
    issuer: str = ""
    jwks_uri: str = ""
    revocation_endpoint: str = ""
    pushed_authorization_request_endpoint: str = ""
    token_endpoint_auth_method: ClientAuthenticationMethod = "client_secret_basic"
    basic_encoding: Literal["form", "raw"] = "form"
    send_client_id_with_basic: bool = False
    scope: str = ""
    required_scope: str = ""
    scope_separator: ScopeSeparator = "space"
    accept_scope_in_authorization_response: bool = False
    resource: list[str] = []
    extra_authorization_parameters: dict[str, str] = {}
    prompt: str = ""
    max_age: int | None = None
    id_token_signing_alg_values: list[str] = msgspec.field(default_factory=lambda: ["RS256"])
    trusted_audiences: list[str] = []
    authorization_response_iss_parameter_supported: bool = False
    accept_form_encoded_tokens: bool = False
    accept_missing_token_type: bool = False
    accepted_token_type: str = ""
    accept_zero_expires_in: bool = False
    token_response_members: list[str] = []
    default_token_lifetime: int = 3600
    max_token_lifetime: int = 86400

    @property
    def uses_openid(self) -> bool:
        """Tell whether an ID token is asked for (OpenID Connect Core section 3.1.2.1)."""
        return "openid" in self.scope.split()

    @property
    def scope_on_the_wire(self) -> str:
        """Return the scope as this server reads it in a request."""
        return self.scope.replace(" ", ",") if self.scope_separator == "comma" else self.scope

    def to_json(self) -> dict[str, Any]:
        """Return the copy as an attempt stores it."""
        return dict(msgspec.to_builtins(self))

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "ServerConfiguration":
        """Read what `to_json` returned. Raises `msgspec.ValidationError`."""
        return msgspec.convert(stored, cls)


@dataclass(frozen=True, slots=True)
class ClientCredentials:
    """A client secret, a signing key (a private JWK as JSON text), or, for a public client, neither.

    Made by `AuthorizationServer.reveal_credentials`, used for one call, and never part of a configuration.
    """

    client_secret: Secret | None = None
    signing_key: Secret | None = None
