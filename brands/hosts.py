"""The hosts that an authorization server's configuration leads to."""

from typing import Final
from urllib.parse import urlsplit

from brands.models import AuthorizationServer

# A secret must never reach a host that it was not typed in for (N8).
SECRET_HOST_FIELDS: Final = (
    "token_endpoint",
    "revocation_endpoint",
    "pushed_authorization_request_endpoint",
    "jwks_uri",
    "issuer",
)
# Where consumers are sent, and handles with them: a change of these is told to the brand's admins as well.
HOST_FIELDS: Final = (*SECRET_HOST_FIELDS, "authorization_endpoint", "chat_page_url")


def secret_hosts(server: AuthorizationServer) -> tuple[str | None, ...]:
    """Return the hosts that the client secret was typed in for."""
    return tuple(host_of(getattr(server, name)) for name in SECRET_HOST_FIELDS)


def hosts(server: AuthorizationServer) -> dict[str, str]:
    """Return the host of each address, by the name of its field; an empty one where there is no address."""
    return {name: host_of(getattr(server, name)) or "" for name in HOST_FIELDS}


def host_of(address: str) -> str | None:
    """Return the host of an address; None where there is none, also because it is not an address."""
    try:
        return urlsplit(address).hostname
    except ValueError:  # such as https://[::1, which a validator refuses, at its field, after we were asked
        return None
