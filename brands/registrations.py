"""One registration at an authorization server belongs to one owner (C5).

Who signs in at a shared registration consents to "the client", not to a brand: a second brand under the same client id
could collect, at its own redirect URI, what consumers granted the first one.

The owners of a brand are its admins. Two brands with the very same admins, also with none, have one owner, who may use
one registration for both; all others may not. The operator, in the admin or with `apply_config`, is held to it too. Who
administers a brand is the operator's decision alone: it is never refused, but the operator is told where it gives one
registration two owners, and each of its servers is refused from then on until it has a registration of its own.
"""

from collections.abc import Iterator

from django.core.exceptions import ValidationError
from django.db import transaction

from brands.hosts import host_of
from brands.models import AuthorizationServer, Brand


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
