"""Rules for saving an authorization server, by the admin's form or `apply_config`: hosts, metadata, registrations."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final
from urllib.parse import urlsplit

from django.core.exceptions import ValidationError
from django.db import transaction

from brands.models import AuthorizationServer, Brand
from infrastructure.crypto import DecryptionError, Secret
from oauth_client import DiscoveryFailed, ServerMetadata
from oauth_client.dpop import ALGORITHM
from oauth_client.validators import ID_TOKEN_ALGORITHMS

# These receive the client secret or a signed client assertion.
CREDENTIAL_ENDPOINTS: Final = (
    "token_endpoint",
    "revocation_endpoint",
    "pushed_authorization_request_endpoint",
    "introspection_endpoint",
)
# They say whose account a token is for, and so receive consumers' tokens.
SUBJECT_ENDPOINTS: Final = ("userinfo_endpoint", "introspection_endpoint")
# The brand's other admins get a mail if one of these moves to another host.
HOST_FIELDS: Final = (
    *CREDENTIAL_ENDPOINTS,
    *("userinfo_endpoint", "jwks_uri", "issuer", "authorization_endpoint", "chat_page_url"),
)

NEEDED_ENDPOINTS: Final = ("authorization_endpoint", "token_endpoint")
ENDPOINTS: Final = (
    *NEEDED_ENDPOINTS,
    "jwks_uri",
    "revocation_endpoint",
    "pushed_authorization_request_endpoint",
)
DPOP: Final = "dpop_bound_access_tokens"
ISS_PARAMETER: Final = "authorization_response_iss_parameter_supported"
# All fields that metadata can set.
FIELDS_FROM_METADATA: Final = (*ENDPOINTS, ISS_PARAMETER, "id_token_signing_alg_values")

_DEFAULT_PORTS: Final = {"https": 443, "http": 80}
_MAX_QUOTED_LENGTH: Final = 32
_MAX_QUOTED_NAMES: Final = 20
# Scheme, host and port. The port counts because on loopback (development) several servers share a host.
Origin = tuple[str, str, int | None]


class SecretProblem(StrEnum):
    """Why a client secret has to be given."""

    NONE_STORED = "required"
    FOR_ANOTHER_HOST = "secret_for_another_host"


@dataclass(frozen=True, slots=True)
class CredentialHosts:
    """The hosts that an authorization server's stored credentials were entered for.

    `receivers` are the origins of the endpoints that get the credentials. `issuer` is the audience of our client
    assertions. `jwks` is the origin of the keys that verify ID tokens: whoever controls them can forge ID tokens.
    `userinfo` is the origin that gets consumers' access tokens, but no credentials.
    """

    receivers: frozenset[Origin | None]
    issuer: str
    jwks: Origin | None
    userinfo: Origin | None

    @classmethod
    def of(cls, server: AuthorizationServer) -> "CredentialHosts":
        """Read the hosts from a server. Call this before the instance gets new values."""
        endpoints = [getattr(server, name) for name in CREDENTIAL_ENDPOINTS]
        return cls(
            receivers=frozenset(origin_of(endpoint) for endpoint in endpoints if endpoint),
            issuer=server.issuer,
            jwks=origin_of(server.jwks_uri),
            userinfo=origin_of(server.userinfo_endpoint),
        )

    def need_new_credentials(self, changed: AuthorizationServer) -> bool:
        """Whether `changed` needs credentials of its own: the secret entered again, or a new signing key (N8).

        It does if a further origin would receive credentials or consumers' tokens, if the issuer changes, or if the
        JWKS move to an origin that is neither one of the receivers before the change nor that of the issuer before it.
        An endpoint may be removed, or moved to one of the receivers, without new credentials. The comparison is with
        the stored row only: an origin that was removed earlier is new again. The authorization endpoint's origin is not
        in `known`, because an admin can move that endpoint without the secret.

        Issuers are compared as exact strings (RFC 8414 section 3.3), because one host can serve many tenants. Removing
        the issuer does not count, but setting one always does. Otherwise an admin could remove it and then set another
        tenant's, without the secret.
        """
        new = CredentialHosts.of(changed)
        known = self.receivers | {self.jwks, origin_of(self.issuer)}
        return (
            not new.receivers <= self.receivers
            or new.issuer not in {"", self.issuer}
            or (bool(changed.jwks_uri) and (new.jwks is None or new.jwks not in known))
            or (bool(changed.userinfo_endpoint) and not self._may_get_tokens(new.userinfo))
        )

    def _may_get_tokens(self, origin: Origin | None) -> bool:
        """Whether consumers' tokens are sent there already. The hosts of keys, issuer and sign-in page get none."""
        return origin is not None and origin in self.receivers | {self.userinfo}


class ServerChange:
    """A change of a server in the admin's form or by `apply_config`, and its effect on the stored credentials (N8).

    Create the object before the server's instance gets its new values, and call the methods after that.
    """

    def __init__(self, server: AuthorizationServer) -> None:
        self._server = server
        self._hosts_before = CredentialHosts.of(server) if server.pk else None

    @property
    def needs_new_credentials(self) -> bool:
        """Whether the change moves the server to hosts that the stored secret or key was not meant for."""
        return self._hosts_before is not None and self._hosts_before.need_new_credentials(self._server)

    def problem_with_secret(self, *, is_given: bool) -> SecretProblem | None:
        """Return why the client secret has to be given; None if it is given or is not needed."""
        if is_given or not self._server.uses_client_secret:
            return None
        if self._server.client_secret_ciphertext is None:
            return SecretProblem.NONE_STORED
        # Attack: an admin points an endpoint to the admin's own host, and we send the stored secret there.
        return SecretProblem.FOR_ANOTHER_HOST if self.needs_new_credentials else None

    def apply_credentials(self, secret: Secret | None) -> None:
        """Store the given secret or a signing key in the instance. Its brand must be set. The row is not saved.

        If the given secret equals the stored one, the ciphertext stays. A stored secret is removed if the client
        authentication method uses no secret. A signing key is replaced if it was made for other hosts.
        """
        if not self._server.uses_client_secret:
            self._server.set_client_secret(None)
        elif secret is not None and not _is_stored(self._server, secret):
            self._server.set_client_secret(secret)
        self._server.update_signing_key(renew=self.needs_new_credentials)


def _is_stored(server: AuthorizationServer, secret: Secret) -> bool:
    try:
        return server.reveal_credentials().client_secret == secret
    except DecryptionError:
        return False


def hosts_of(server: AuthorizationServer) -> dict[str, str]:
    """Map each of `HOST_FIELDS` to its host; to an empty string if the field has none."""
    return {name: host_of(getattr(server, name)) or "" for name in HOST_FIELDS}


def host_of(address: str) -> str | None:
    """Return the host of a URL; None if it has none or is not a URL."""
    try:
        return urlsplit(address).hostname
    except ValueError:  # such as https://[::1; the field's validator refuses it, but may run later
        return None


def origin_of(address: str) -> Origin | None:
    """Return the normalised scheme, host and port of a URL; None if it has no host or is not a URL."""
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        return None
    if not parts.hostname:
        return None
    return parts.scheme, parts.hostname.rstrip("."), port or _DEFAULT_PORTS.get(parts.scheme)


def issuer_of_address(address: str) -> str:
    """Return the issuer that a pasted metadata address belongs to; any other address stays as it is.

    OpenID Connect appends the well-known part to the issuer (Discovery 1.0 section 4); RFC 8414 section 3.1 inserts it
    before the issuer's path.
    """
    for part in ("/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"):
        before, found, path = address.partition(part)
        if found and (not path or path.startswith("/")):
            return before + path.rstrip("/")
    return address


def needs_discovery(values: dict[str, Any]) -> bool:
    """Whether an authorization server's values have an issuer but lack a needed endpoint."""
    return bool(values.get("issuer")) and not all(values.get(name) for name in NEEDED_ENDPOINTS)


def complete_from_metadata(values: dict[str, Any], metadata: ServerMetadata) -> dict[str, str]:
    """Fill the empty endpoints of `values` in place. Return a message for each field that disagrees or is missing.

    `values["ignored_metadata"]` names the metadata members that the admin wants to leave off.
    """
    problems = {}
    ignored = values.get("ignored_metadata") or ()
    for name in [name for name in ENDPOINTS if name not in ignored]:
        published = getattr(metadata, name)
        if not values.get(name):
            values[name] = published
        elif values[name] != published:
            problems[name] = _disagrees(published)
        if name in NEEDED_ENDPOINTS and not values[name]:
            problems[name] = "The issuer's metadata does not contain this endpoint. Enter it here."
    if metadata.authorization_response_iss_parameter_supported and ISS_PARAMETER not in ignored:
        values[ISS_PARAMETER] = True
    return _unsupported(values, metadata) | problems


def fill_in_subject_endpoint(values: dict[str, Any], metadata: ServerMetadata) -> None:
    """Fill in the endpoint that says who signed in, if no ID token will and none is typed. Only for *Discover*.

    Not while no scope is typed: openid may follow. A save does not do this: servers publish endpoints that refuse our
    tokens, and sign-ins that worked would fail. Introspection comes first if we authenticate: the userinfo endpoint of
    OpenID Connect mostly wants the scope openid.
    """
    wanted = (values.get("scope") or "").split()
    if not wanted or "openid" in wanted or any(values.get(name) for name in SUBJECT_ENDPOINTS):
        return
    ignored = values.get("ignored_metadata") or ()
    is_public = values.get("token_endpoint_auth_method") == "none"
    names = ("userinfo_endpoint",) if is_public else ("introspection_endpoint", "userinfo_endpoint")
    for name in [name for name in names if name not in ignored and getattr(metadata, name)][:1]:
        values[name] = getattr(metadata, name)


def default_algorithms(metadata: ServerMetadata) -> list[str]:
    """Return the ID token algorithms to use if the admin has chosen none.

    RS256 if the server supports it or does not say; otherwise all algorithms that both we and the server support.
    HS256 is never a default: with it the client secret would verify ID tokens, which an admin must choose.
    """
    supported = metadata.id_token_signing_alg_values_supported
    if not supported or "RS256" in supported:
        return ["RS256"]
    return [name for name in ID_TOKEN_ALGORITHMS if name in supported and name != "HS256"]


def discovery_problem(failure: DiscoveryFailed) -> tuple[str, str]:
    """Return the field at which to show a failed discovery, and the message."""
    return failure.field if failure.field in ENDPOINTS else "issuer", failure.message


def _unsupported(values: dict[str, Any], metadata: ServerMetadata) -> dict[str, str]:
    problems = {}
    methods = metadata.token_endpoint_auth_methods_supported
    if methods and values.get("token_endpoint_auth_method") not in methods:
        problems["token_endpoint_auth_method"] = f"The issuer's metadata lists {_quoted(methods)}."
    algorithms = metadata.id_token_signing_alg_values_supported
    # HS256 is not compared: some servers announce only their key set's algorithms and sign with the client secret.
    chosen = set(values.get("id_token_signing_alg_values") or ()) - {"HS256"}
    if "openid" in (values.get("scope") or "").split() and algorithms and not chosen <= set(algorithms):
        problems["id_token_signing_alg_values"] = f"The issuer's metadata lists {_quoted(algorithms)}."
    proofs = metadata.dpop_signing_alg_values_supported
    if values.get(DPOP) and proofs and ALGORITHM not in proofs:
        problems[DPOP] = f"The issuer's metadata lists {_quoted(proofs)}. Our proofs are signed with {ALGORITHM}."
    challenges = metadata.code_challenge_methods_supported
    if challenges and "S256" not in challenges:
        problems["issuer"] = (
            "Its metadata does not list the code challenge method S256 (PKCE), which all our requests use."
        )
    return problems


def _disagrees(published: str) -> str:
    return (
        f"The issuer's metadata says: {published}"
        if published
        else "The issuer's metadata does not contain this endpoint."
    )


def _quoted(names: tuple[str, ...]) -> str:
    """Join the names that look like protocol values. No other text from the server is shown."""
    plain = [name for name in names if name.isascii() and name.replace("_", "").isalnum()]
    short = [name for name in plain if len(name) <= _MAX_QUOTED_LENGTH]
    return ", ".join(short[:_MAX_QUOTED_NAMES]) or "none that we could use"


def refuse_shared_registration(server: AuthorizationServer) -> None:
    """Refuse a client id that a brand with different admins uses at the same token endpoint host.

    Raises `ValidationError`. Admins are different if the two sets of admins are not equal, even if they overlap. Call
    this in the transaction that saves the server, and before that locks any brand (`lock_all_brands` is allowed).
    """
    with transaction.atomic():
        lock_all_brands()
        shared = any(_sharing(server))
    if shared:
        message = "Another brand uses this client id at this server. Register a separate client for this brand there."
        raise ValidationError({"client_id": ValidationError(message, "shared_registration")})


def lock_all_brands() -> None:
    """Lock all brands until the transaction ends, so that servers are saved one after the other.

    The second of two concurrent saves then sees the first. Call this before any other lock of a brand. Otherwise two
    transactions could deadlock: each holds one brand and waits for the other's.
    """
    # no_key: other transactions can still insert rows that refer to a brand.
    list(Brand.objects.select_for_update(no_key=True).order_by("pk").values_list("pk", flat=True))


def lock_server(pk: int) -> AuthorizationServer | None:
    """Lock a server until the transaction ends, and return it as it is stored; None if there is none.

    The order of locks is: all brands, servers by their keys, APIs. Whoever saves a server or an API holds the server's
    from the check to the save, so that the second of two saves counts what the first one adds to its requests (B20).
    """
    # In the order of the model the brand would be joined, and locked, too.
    return AuthorizationServer.objects.select_for_update(no_key=True).order_by("pk").filter(pk=pk).first()


def servers_with_shared_registration(brand: Brand) -> list[AuthorizationServer]:
    """List the brand's servers whose client registration is also used by a brand with different admins."""
    return [server for server in brand.authorization_servers.all() if any(_sharing(server))]


def _sharing(server: AuthorizationServer) -> Iterator[AuthorizationServer]:
    """Yield the servers with the same client id and token endpoint host, of brands with a different set of admins."""
    others = AuthorizationServer.objects.filter(client_id=server.client_id).exclude(brand=server.brand)
    admins = _admin_ids(server.brand)
    for other in others.select_related("brand"):
        if host_of(other.token_endpoint) == host_of(server.token_endpoint) and _admin_ids(other.brand) != admins:
            yield other


def _admin_ids(brand: Brand) -> set[int]:
    return set(brand.admins.values_list("pk", flat=True))
