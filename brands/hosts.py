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
    return tuple(urlsplit(getattr(server, name)).hostname for name in SECRET_HOST_FIELDS)


def hosts(server: AuthorizationServer) -> dict[str, str]:
    """Return the host of each address, by the name of its field; an empty one where there is no address."""
    return {name: urlsplit(getattr(server, name)).hostname or "" for name in HOST_FIELDS}
