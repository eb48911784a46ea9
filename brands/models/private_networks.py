"""The private networks in which a brand may be called, as its row holds them. Only the operator sets them (N14)."""

from typing import Final

import msgspec
from django.core.exceptions import ValidationError
from django.db import models

from oauth_client.addresses import PrivateNetwork, private_network

MAX_NETWORKS: Final = 20


class NetworkUse(models.TextChoices):
    """What may be called in a private network."""

    SERVERS = "servers", "authorization servers and APIs"
    WEBHOOKS = "webhooks", "webhook endpoints"


class AllowedNetwork(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of the column: `{"network": "10.20.0.0/16", "ports": [443], "uses": ["servers"]}`."""

    network: str
    ports: list[int]
    uses: list[NetworkUse]

    def checked(self) -> PrivateNetwork:
        """Return the network. Raises `ValidationError` if it cannot be allowed."""
        if not self.uses:
            raise ValidationError("Name what may be called there.", "no_uses")
        return private_network(self.network, frozenset(self.ports))

    def in_words(self) -> str:
        return f"{self.network} at {', '.join(map(str, self.ports))} for {', '.join(self.uses)}"


def read_networks(value: object) -> list[AllowedNetwork]:
    """Read the column. Raises `ValidationError`, at the first entry that cannot be allowed."""
    try:
        networks = msgspec.convert(value, list[AllowedNetwork])
    except msgspec.ValidationError as error:
        raise ValidationError(f"This is not a list of networks: {error}.", "no_network") from None
    if len(networks) > MAX_NETWORKS:
        raise ValidationError(f"A brand can have {MAX_NETWORKS} private networks.", "too_many_networks")
    for network in networks:
        network.checked()
    return networks


def validate_private_networks(value: object) -> None:
    read_networks(value)


def networks_for_use(value: object, use: NetworkUse) -> tuple[PrivateNetwork, ...]:
    """Return the networks for one use. A column that is not valid, written by SQL, allows nothing."""
    if not value:
        return ()
    try:
        return tuple(network.checked() for network in read_networks(value) if use in network.uses)
    except ValidationError:
        return ()
