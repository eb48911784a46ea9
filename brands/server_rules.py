"""Rules for saving an authorization server, the same for the form and the file: hosts, metadata and registrations."""

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
from oauth_client.validators import ID_TOKEN_ALGORITHMS

# Where a client secret, or an assertion that is signed for us, is sent.
CREDENTIAL_ENDPOINTS: Final = ("token_endpoint", "revocation_endpoint", "pushed_authorization_request_endpoint")
# Where consumers are sent, and handles with them: a change of these is told to the brand's admins as well.
HOST_FIELDS: Final = (*CREDENTIAL_ENDPOINTS, "jwks_uri", "issuer", "authorization_endpoint", "chat_page_url")

_DEFAULT_PORTS: Final = {"https": 443, "http": 80}
# Scheme, host and port: on loopback, where other ports and http are allowed, another port is another server.
Origin = tuple[str, str, int | None]


class SecretProblem(StrEnum):
    """Why a client secret has to be given."""

    NONE_STORED = "required"
    FOR_ANOTHER_HOST = "secret_for_another_host"


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


class ServerChange:
    """A change of a server's configuration, by the form or by the file, and its rule for credentials (N8).

    Make it before the instance gets its new values, ask it when it has them.
    """

    def __init__(self, server: AuthorizationServer) -> None:
        self._server = server
        self._given_for = CredentialHosts.of(server) if server.pk else None

    @property
    def asks_anew(self) -> bool:
        """Tell whether the stored secret or key was given for other hosts than it would now be used at."""
        return self._given_for is not None and self._given_for.ask_anew(self._server)

    def problem_with_secret(self, *, is_given: bool) -> SecretProblem | None:
        """Return why the client secret has to be given, where it has to be and is not."""
        if is_given or not self._server.uses_client_secret:
            return None
        if self._server.client_secret_ciphertext is None:
            return SecretProblem.NONE_STORED
        # Otherwise whoever may edit the endpoint could have the stored secret sent to a host of their own.
        return SecretProblem.FOR_ANOTHER_HOST if self.asks_anew else None

    def apply_credentials(self, secret: Secret | None) -> None:
        """Put a secret that was given, or a signing key, on the instance, which has its brand by now.

        The same secret again leaves the ciphertext as it is. Under another method a stored secret is forgotten, and so
        is a key that was made for other hosts.
        """
        if not self._server.uses_client_secret:
            self._server.set_client_secret(None)
        elif secret is not None and not _is_stored(self._server, secret):
            self._server.set_client_secret(secret)
        self._server.settle_signing_key(renew=self.asks_anew)


def _is_stored(server: AuthorizationServer, secret: Secret) -> bool:
    try:
        return server.reveal_credentials().client_secret == secret
    except DecryptionError:
        return False


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


NEEDED_ENDPOINTS: Final = ("authorization_endpoint", "token_endpoint")
ENDPOINTS: Final = (
    *NEEDED_ENDPOINTS,
    "jwks_uri",
    "revocation_endpoint",
    "pushed_authorization_request_endpoint",
)
ISS_PARAMETER: Final = "authorization_response_iss_parameter_supported"
# Everything that metadata may decide.
DISCOVERED: Final = (*ENDPOINTS, ISS_PARAMETER, "id_token_signing_alg_values")


def asks_for_metadata(values: dict[str, Any]) -> bool:
    """Tell whether these values of an authorization server are to be completed by its metadata."""
    return bool(values.get("issuer")) and not all(values.get(name) for name in NEEDED_ENDPOINTS)


def fill_in(values: dict[str, Any], metadata: ServerMetadata) -> dict[str, str]:
    """Complete `values` in place; return in words, by field, what contradicts the metadata or is missing in it."""
    problems = {}
    ignored = values.get("ignored_metadata") or ()
    for name in [name for name in ENDPOINTS if name not in ignored]:
        found = getattr(metadata, name)
        if not values.get(name):
            values[name] = found
        elif values[name] != found:
            problems[name] = _other(found)
        if name in NEEDED_ENDPOINTS and not values[name]:
            problems[name] = "The issuer's metadata does not name it: type it."
    if metadata.authorization_response_iss_parameter_supported and ISS_PARAMETER not in ignored:
        values[ISS_PARAMETER] = True
    return _unsupported(values, metadata) | problems


def default_algorithms(metadata: ServerMetadata) -> list[str]:
    """Return what ID tokens may be signed with where nobody said: RS256, or what the server knows instead of it."""
    supported = metadata.id_token_signing_alg_values_supported
    if not supported or "RS256" in supported:
        return ["RS256"]
    return [name for name in ID_TOKEN_ALGORITHMS if name in supported and name != "HS256"]


def problem_of(failure: DiscoveryFailed) -> tuple[str, str]:
    """Return the field that shows a failure, and its words; what is no field of ours is the issuer's."""
    return failure.field if failure.field in ENDPOINTS else "issuer", failure.message


def _unsupported(values: dict[str, Any], metadata: ServerMetadata) -> dict[str, str]:
    problems = {}
    methods = metadata.token_endpoint_auth_methods_supported
    if methods and values.get("token_endpoint_auth_method") not in methods:
        problems["token_endpoint_auth_method"] = f"The issuer's metadata says: {_listed(methods)}."
    algorithms = metadata.id_token_signing_alg_values_supported
    # HS256 is an admin's own choice and never the default: some servers announce a key set, and sign with the secret.
    chosen = set(values.get("id_token_signing_alg_values") or ()) - {"HS256"}
    if "openid" in (values.get("scope") or "").split() and algorithms and not chosen <= set(algorithms):
        problems["id_token_signing_alg_values"] = f"The issuer's metadata says: {_listed(algorithms)}."
    challenges = metadata.code_challenge_methods_supported
    if challenges and "S256" not in challenges:
        problems["issuer"] = (
            "Its metadata does not name the code challenge method S256, which every request of ours has."
        )
    return problems


def _other(found: str) -> str:
    return f"The issuer's metadata says: {found}" if found else "The issuer's metadata does not name one."


def _listed(names: tuple[str, ...]) -> str:
    """Quote what could be a name of ours and nothing else: the rest is the server's text."""
    known = [name for name in names if len(name) <= 32 and name.replace("_", "").isalnum() and name.isascii()]  # noqa: PLR2004
    return ", ".join(known[:20]) or "something else"


def refuse_shared_registration(server: AuthorizationServer) -> None:
    """Refuse a client id that another owner's brand uses at the same token endpoint host. Raises `ValidationError`.

    Called in the transaction that saves the server, and that has locked no brand before but with `hold_all_brands`.
    """
    with transaction.atomic():
        hold_all_brands()
        shared = any(_shared(server))
    if shared:
        message = "Another brand uses this client id at this server: register a client of this brand's own."
        raise ValidationError({"client_id": ValidationError(message, "shared_registration")})


def hold_all_brands() -> None:
    """Lock all brands until the transaction's end, so that of two servers saved at once the second sees the first.

    Always in the same order, and before any other lock of a brand: whoever held one already and then asked for all
    would wait for somebody who waits for that one.
    """
    # Not the key: rows that refer to a brand can be inserted meanwhile.
    list(Brand.objects.select_for_update(no_key=True).order_by("pk").values_list("pk", flat=True))


def registrations_with_other_owners(brand: Brand) -> list[AuthorizationServer]:
    """Return the brand's servers whose registration a brand of other owners uses as well."""
    return [server for server in brand.authorization_servers.all() if any(_shared(server))]


def _shared(server: AuthorizationServer) -> Iterator[AuthorizationServer]:
    others = AuthorizationServer.objects.filter(client_id=server.client_id).exclude(brand=server.brand)
    owners = _owners(server.brand)
    for other in others.select_related("brand"):
        if _token_host(other) == _token_host(server) and _owners(other.brand) != owners:
            yield other


def _owners(brand: Brand) -> set[int]:
    return set(brand.admins.values_list("pk", flat=True))


def _token_host(server: AuthorizationServer) -> str | None:
    return host_of(server.token_endpoint)
