"""Bot keys: who may call what, and every dead key alike."""

from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.utils import timezone

from brands.authentication import create_bot_key, revoke
from brands.models import AuthorizationServer, BotKey, Brand
from conversations.models import Conversation
from tests.cast import CHAT, Bot, make_bot

pytestmark = pytest.mark.django_db

UNKNOWN = "7b1f4a2e-0000-4000-8000-000000000000"
CALLS = [
    ("POST", f"/conversations/{CHAT}/challenges"),
    ("POST", f"/conversations/{CHAT}/authorize"),
    ("POST", f"/conversations/{CHAT}/completion"),
    ("POST", f"/conversations/{CHAT}/calls/orders.list"),
    ("GET", f"/conversations/{CHAT}/token"),
    ("DELETE", f"/conversations/{CHAT}/token"),
    ("GET", f"/conversations/{CHAT}"),
    ("DELETE", f"/conversations/{CHAT}"),
    ("GET", f"/challenges/{UNKNOWN}"),
    ("DELETE", f"/challenges/{UNKNOWN}"),
]


def code_of(answer: tuple[int, dict[str, Any]]) -> tuple[int, str]:
    status, body = answer
    assert body["status"] == status
    assert body["type"] == f"urn:consumer-delegation:problem:{body['code']}"
    return status, body["code"]


@pytest.mark.parametrize(("method", "path"), CALLS)
@pytest.mark.parametrize(
    "wrong", ["unknown", "cut", "mistyped", "expired", "revoked", "inactive brand", "none", "basic"]
)
def test_every_call_answers_a_dead_key_with_the_same_401(acme: Brand, method: str, path: str, wrong: str) -> None:
    """G1: unknown, wrong, expired and revoked look alike."""
    row, key = create_bot_key(acme, "acme-bot", BotKey.Scope.values)
    value = key.reveal()
    header = f"Bearer {value}"
    match wrong:
        case "unknown":
            header = f"Bearer {create_key_of_nobody(acme)}"
        case "cut":
            header = f"Bearer {value[:-1]}"
        case "mistyped":
            header = f"Bearer {value[:30]}{'x' if value[30] != 'x' else 'y'}{value[31:]}"
        case "expired":
            BotKey.objects.update(expires_at=timezone.now())
        case "revoked":
            assert revoke(row)
        case "inactive brand":
            Brand.objects.update(is_active=False)
        case "none":
            header = ""
        case "basic":
            header = f"Basic {value}"
    response = Bot(value).send(method, path, Authorization=header)
    assert code_of((response.status_code, response.json())) == (401, "invalid_bot_key")
    assert response["WWW-Authenticate"] == "Bearer"
    assert response["Content-Type"] == "application/problem+json"


def create_key_of_nobody(brand: Brand) -> str:
    row, key = create_bot_key(brand, "gone", [])
    row.delete()
    return key.reveal()


@pytest.mark.parametrize("place", ["query", "body", "cookie"])
def test_a_key_anywhere_but_in_the_header_is_refused_although_right(
    acme_bot: Bot, acme_server: AuthorizationServer, place: str
) -> None:
    """G2, G7: no key in address or body, no cookie authentication."""
    path, headers, body = f"/conversations/{CHAT}/challenges", {"Authorization": ""}, {}
    match place:
        case "query":
            path += f"?access_token={acme_bot.key}"
        case "body":
            body = {"access_token": acme_bot.key}
        case "cookie":
            headers["Cookie"] = f"access_token={acme_bot.key}"
    assert code_of(acme_bot.call("POST", path, body, **headers)) == (401, "invalid_bot_key")
    assert not Conversation.objects.exists()


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_every_call_demands_its_scope(acme: Brand, method: str, path: str) -> None:
    """G3: a key with every other scope is refused. One that calls may end tokens, although it cannot read them."""
    creates, reads = {"challenge:create"}, {"challenge:read"}
    # Each entry: scopes of which one is enough.
    needed = {
        "challenges": [creates],
        "authorize": [creates, {"token:read"}],
        "completion": [creates],
        "orders.list": [{"api:call"}],
        "token": [{"token:read"}] if method == "GET" else [{"token:read", "api:call"}],
    }.get(path.rsplit("/", 1)[1]) or [reads if method == "GET" else creates]
    for scopes in needed:
        bot = make_bot(acme, *(set(BotKey.Scope.values) - scopes))
        response = bot.send(method, path)
        assert code_of((response.status_code, response.json())) == (403, "insufficient_scope")
        assert 'error="insufficient_scope"' in response["WWW-Authenticate"]
        assert any(scope in response.json()["detail"] for scope in scopes)


def test_an_expiring_key_works_until_its_date(acme: Brand, acme_server: AuthorizationServer) -> None:
    """G4."""
    soon = timezone.now() + timedelta(hours=1)
    _, key = create_bot_key(acme, "acme-bot", BotKey.Scope.values, expires_at=soon)
    bot = Bot(key.reveal())
    assert code_of(bot.in_chat("GET")) == (404, "conversation_unknown")
    with time_machine.travel(soon, tick=False):
        assert code_of(bot.in_chat("GET")) == (401, "invalid_bot_key")


def test_two_keys_of_a_brand_work_side_by_side_and_revoking_one_takes_effect_at_once(
    acme: Brand, acme_server: AuthorizationServer
) -> None:
    """G4: rotation without a gap."""
    old_row, old = create_bot_key(acme, "old", BotKey.Scope.values)
    _, new = create_bot_key(acme, "new", BotKey.Scope.values)
    Bot(old.reveal()).challenge()
    assert Bot(new.reveal()).in_chat("GET")[0] == 200
    revoke(old_row)
    assert Bot(old.reveal()).in_chat("GET")[0] == 401
    assert Bot(new.reveal()).in_chat("GET")[0] == 200


def test_the_last_use_is_written_at_most_once_a_minute(acme: Brand, acme_bot: Bot) -> None:
    """G4: a busy key must not cost a write a read."""
    start = timezone.now()
    moments = []
    for seconds in (0, 30, 59, 61):
        with time_machine.travel(start + timedelta(seconds=seconds), tick=False):
            acme_bot.in_chat("GET")
            last_used_at = BotKey.objects.get().last_used_at
            assert last_used_at
            moments.append((last_used_at - start).total_seconds())
    assert moments == [0, 0, 0, 61]


def test_a_key_row_moved_to_another_brand_by_sql_is_no_key(
    acme: Brand, rival: Brand, rival_server: AuthorizationServer, acme_bot: Bot
) -> None:
    """G3: the digest covers the brand."""
    BotKey.objects.update(brand=rival)
    assert code_of(acme_bot.in_chat("GET")) == (401, "invalid_bot_key")
