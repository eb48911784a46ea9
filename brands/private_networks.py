"""Allow a brand to be called inside private networks, and take it back. Only the operator's command does so (N14)."""

from collections.abc import Callable, Iterable
from ipaddress import ip_network

import msgspec
from django.core.exceptions import ValidationError
from django.db import transaction

from brands.audited_changes import BrandEvent, record_change
from brands.models import AllowedNetwork, Brand, NetworkUse
from brands.models.private_networks import read_networks

_COLUMN = "private_networks"


def allow_network(brand: Brand, network: str, ports: Iterable[int], uses: Iterable[NetworkUse]) -> AllowedNetwork:
    """Let a brand be called inside a network, and return the entry. A network that it has already gets the new values.

    Raises `ValidationError` if the network or a port cannot be allowed.
    """
    wanted = AllowedNetwork(network, sorted(set(ports)), sorted(set(uses)))
    wanted = msgspec.structs.replace(wanted, network=str(wanted.checked().network))
    _change(brand, lambda stored: [*(one for one in stored if one.network != wanted.network), wanted])
    return wanted


def remove_network(brand: Brand, network: str) -> None:
    """Stop calls into a network at once, also on kept connections. Raises `ValidationError` if the brand has it not."""

    def without(stored: list[AllowedNetwork]) -> list[AllowedNetwork]:
        left = [one for one in stored if one.network != _as_stored(network)]
        if left == stored:
            raise ValidationError(f"{brand} has no network {network}.", "no_such_network")
        return left

    _change(brand, without)


def networks_in_words(brand: Brand) -> list[str]:
    """Return one line for each network; empty if there is none, or if the column is not valid and allows nothing."""
    return [network.in_words() for network in _stored(brand)]


def _change(brand: Brand, change: Callable[[list[AllowedNetwork]], list[AllowedNetwork]]) -> None:
    """Change the column and audit it, with old and new value. Another change waits until this one is committed."""
    with transaction.atomic():
        locked = Brand.objects.select_for_update(no_key=True).get(pk=brand.pk)
        before = _stored(locked)
        after = sorted(change(before), key=lambda one: one.network)
        brand.private_networks = read_back = msgspec.to_builtins(after)
        read_networks(read_back)
        if after != before:
            Brand.objects.filter(pk=brand.pk).update(private_networks=read_back)
            values = ["; ".join(one.in_words() for one in networks) for networks in (before, after)]
            record_change(brand, BrandEvent.BRAND_CHANGED, changed=[_COLUMN], values={_COLUMN: values})


def _stored(brand: Brand) -> list[AllowedNetwork]:
    try:
        return read_networks(brand.private_networks)
    except ValidationError:
        return []


def _as_stored(network: str) -> str:
    try:
        return str(ip_network(network))
    except ValueError:
        return network
