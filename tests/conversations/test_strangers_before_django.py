"""Whoever is no live bot of the brand gets nothing from what is answered before Django's handler."""

from typing import Any, Final

import pytest

from brands.models import BotKey, Brand
from conversations.models import Challenge
from infrastructure.crypto import checksum
from tests.brand_api import Caller
from tests.cast import Bot

pytestmark = pytest.mark.django_db

ROUTES: Final[list[tuple[str, str, Any]]] = [
    ("GET", "/conversations/{chat}/token", None),
    ("POST", "/conversations/another-chat/challenges", {}),
    ("POST", "/conversations/{chat}/calls/orders.list", {}),
    ("GET", "/challenges/{challenge}", None),
]


def asked(bot: Bot, method: str, path: str, body: Any) -> tuple[int, str]:
    path = path.format(chat=bot.chat, challenge=Challenge.objects.get().uuid)
    status, problem = bot.call(method, path, body)
    return status, problem["code"]


@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
def test_a_key_with_the_id_of_another_and_a_made_up_secret_is_refused(
    method: str, path: str, body: Any, caller: Caller
) -> None:
    """G5: the id of a key is in logs and in the admin, and everybody can compute the checksum."""
    known, secret = BotKey.objects.get().public_id, "A" * 43
    impostor = Bot(f"cdk_{known}_{secret}{checksum(known + secret)}", caller.bot.chat)
    assert (asked(impostor, method, path, body), caller.api.requests) == ((401, "invalid_bot_key"), [])


@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
def test_the_bots_of_a_brand_that_is_switched_off_are_refused(
    method: str, path: str, body: Any, caller: Caller
) -> None:
    """G5."""
    Brand.objects.update(is_active=False)
    assert (asked(caller.bot, method, path, body), caller.api.requests) == ((401, "invalid_bot_key"), [])
