"""What authenticates us at an authorization server."""

from dataclasses import dataclass

from delegation_site.crypto import Secret


@dataclass(frozen=True, slots=True)
class ClientCredentials:
    """A client secret, a signing key (a private JWK as JSON text), or, for a public client, neither.

    Made by `AuthorizationServer.reveal_credentials`, used for one call, and never part of a configuration.
    """

    client_secret: Secret | None = None
    signing_key: Secret | None = None
