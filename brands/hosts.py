"""The hosts that a server's configuration leads to, and the rule for when its credentials are asked anew.

Forms and `apply_config` ask this module alone (N8, C7).
"""

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from brands.models import AuthorizationServer

# Where a client secret, or an assertion that is signed for us, is sent.
CREDENTIAL_ENDPOINTS: Final = ("token_endpoint", "revocation_endpoint", "pushed_authorization_request_endpoint")
# Where consumers are sent, and handles with them: a change of these is told to the brand's admins as well.
HOST_FIELDS: Final = (*CREDENTIAL_ENDPOINTS, "jwks_uri", "issuer", "authorization_endpoint", "chat_page_url")

_DEFAULT_PORTS: Final = {"https": 443, "http": 80}
# Scheme, host and port: on loopback, where other ports and http are allowed, another port is another server.
Origin = tuple[str, str, int | None]


@dataclass(frozen=True, slots=True)
class CredentialHosts:
    """What the credentials of a stored server were given for.

    `receivers` are the origins that they are sent to; `issuer` is whom our assertions are addressed to; `jwks` is the
    origin whose keys say who has signed in.
    """

    receivers: frozenset[Origin | None]
    issuer: str
    jwks: Origin | None

    @classmethod
    def of(cls, server: AuthorizationServer) -> "CredentialHosts":
        """Return those of a server as it is now. Take it before the instance gets its new values."""
        receivers = [getattr(server, name) for name in CREDENTIAL_ENDPOINTS]
        return cls(
            receivers=frozenset(origin_of(address) for address in receivers if address),
            issuer=server.issuer,
            jwks=origin_of(server.jwks_uri),
        )

    def ask_anew(self, changed: AuthorizationServer) -> bool:
        """Tell whether the changed server needs its secret typed again, or a new signing key at once (N8).

        So it is where a host would receive credentials that did not receive them before, where the issuer is another
        one, and where the keys come from a new host. One more endpoint on a host that has the secret is none of these,
        nor is an endpoint that is taken away. A host that was taken away earlier is new again: only what is stored now
        counts, and never the authorization endpoint, which anybody may move without the secret.

        Issuers are compared exactly, as everywhere (RFC 8414 section 3.3): one host can have many tenants. The first
        one of a server that had none is new, too, or two steps would lead from one tenant to another.
        """
        new = CredentialHosts.of(changed)
        known = self.receivers | {self.jwks, origin_of(self.issuer)}
        return (
            not new.receivers <= self.receivers
            or new.issuer not in {"", self.issuer}
            or (bool(changed.jwks_uri) and (new.jwks is None or new.jwks not in known))
        )


def hosts(server: AuthorizationServer) -> dict[str, str]:
    """Return the host of each address, by the name of its field; an empty one where there is no address."""
    return {name: host_of(getattr(server, name)) or "" for name in HOST_FIELDS}


def host_of(address: str) -> str | None:
    """Return the host of an address; None where there is none, also because it is not an address."""
    try:
        return urlsplit(address).hostname
    except ValueError:  # such as https://[::1, which a validator refuses, at its field, after we were asked
        return None


def origin_of(address: str) -> Origin | None:
    """Return scheme, host and port of an address, each spelling alike; None where it is not an address."""
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        return None
    if not parts.hostname:
        return None
    return parts.scheme, parts.hostname.rstrip("."), port or _DEFAULT_PORTS.get(parts.scheme)
