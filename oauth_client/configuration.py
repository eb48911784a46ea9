"""The configuration and the credentials for one authorization server."""

from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from infrastructure.crypto import Secret
from oauth_client.step_up import NO_DEMAND, AuthenticationDemand

ClientAuthenticationMethod = Literal["client_secret_basic", "client_secret_post", "private_key_jwt", "none"]
ScopeSeparator = Literal["space", "comma", "comma_in_response"]


class ServerConfiguration(msgspec.Struct, frozen=True, kw_only=True):
    """A frozen copy of an authorization server's configuration, without the client secret.

    Each authorization request stores its copy. At the callback it must equal the
    current one, so that no code is sent to an endpoint that was replaced meanwhile (C4). `scope` is what this challenge
    asks for. Lifetimes are in seconds. Stored scopes are always separated by one space; `scope_separator` describes the
    server's format (E14).
    """

    authorization_endpoint: str
    token_endpoint: str
    client_id: str
    redirect_uri: str
    issuer: str = ""
    jwks_uri: str = ""
    revocation_endpoint: str = ""
    pushed_authorization_request_endpoint: str = ""
    userinfo_endpoint: str = ""
    introspection_endpoint: str = ""
    subject_member: str = "sub"
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
    # What an API demands of this one sign-in (RFC 9470), beside what the admin has configured.
    demand: AuthenticationDemand = NO_DEMAND
    id_token_signing_alg_values: list[str] = msgspec.field(default_factory=lambda: ["RS256"])
    trusted_audiences: list[str] = []
    authorization_response_iss_parameter_supported: bool = False
    accept_form_encoded_tokens: bool = False
    accept_missing_token_type: bool = False
    accepted_token_type: str = ""
    accept_zero_expires_in: bool = False
    dpop_bound_access_tokens: bool = False
    token_response_members: list[str] = []
    default_token_lifetime: int = 3600
    max_token_lifetime: int = 86400

    @property
    def uses_openid(self) -> bool:
        """Whether an ID token is requested (OpenID Connect Core section 3.1.2.1)."""
        return "openid" in self.scope.split()

    @property
    def strictest_max_age(self) -> int | None:
        """The `max_age` to send: a demand can shorten what the admin has configured, and never lengthen it (P32)."""
        return min((age for age in (self.max_age, self.demand.max_age) if age is not None), default=None)

    @property
    def scope_on_the_wire(self) -> str:
        """The scope in the format that this server expects in a request."""
        return self.scope.replace(" ", ",") if self.scope_separator == "comma" else self.scope

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON types, as an authorization request stores them."""
        return dict(msgspec.to_builtins(self))

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "ServerConfiguration":
        """Make the configuration from what `to_json` returned. Raises `msgspec.ValidationError`."""
        return msgspec.convert(stored, cls)


@dataclass(frozen=True, slots=True)
class ClientCredentials:
    """A client secret or a signing key (a private JWK as JSON text); a public client has neither.

    `AuthorizationServer.reveal_credentials` makes it for one call. It is never part of a configuration.
    """

    client_secret: Secret | None = None
    signing_key: Secret | None = None
