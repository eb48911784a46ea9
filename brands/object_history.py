"""The audit log's events about one row, for its history page: who changed which fields, in names instead of numbers."""

from collections.abc import Iterable
from typing import Final

from django.contrib.auth import get_user_model

from brands.models import BotKey
from infrastructure.audit import CONSUMER, OPERATOR, SYSTEM

MOST_EVENTS: Final = 200
_ADMIN, _BOT = "admin:", "bot:"
_KNOWN: Final = {CONSUMER: "the consumer", SYSTEM: "this product", OPERATOR: "the operator"}


def names_of(actors: Iterable[str]) -> dict[str, str]:
    """Map actors of the audit log to names: an account's user name, a bot key's label. Two queries at most."""
    wanted = set(actors)
    users = {
        int(actor[len(_ADMIN) :]) for actor in wanted if actor.startswith(_ADMIN) and actor[len(_ADMIN) :].isdigit()
    }
    keys = {actor[len(_BOT) :] for actor in wanted if actor.startswith(_BOT)}
    names = {actor: _KNOWN.get(actor, actor) for actor in wanted}
    if users:
        found = get_user_model()._default_manager.filter(pk__in=users).values_list("pk", "username")
        names |= {f"{_ADMIN}{pk}": name for pk, name in found}
    if keys:
        labels = BotKey.objects.filter(public_id__in=keys).values_list("public_id", "label")
        names |= {f"{_BOT}{public_id}": f"the bot key {label}" for public_id, label in labels}
    return names
