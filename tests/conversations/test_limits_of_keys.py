"""G12: a bot key can have limits of its own. Only the operator sets them."""

import io
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from brands.models import LIMITS_OF_A_KEY, AuthorizationServer, BotKey, Brand
from infrastructure.models import AuditEvent
from tests.admin_pages import House, address
from tests.cast import Bot, Browser, code_on, make_bot
from tests.fake_authorization_server import FakeAuthorizationServer

pytestmark = pytest.mark.django_db

ADDED = ("acme", "--label", "x", "--scope", "challenge:create")


def limits() -> list[tuple[int | None, int | None]]:
    return list(BotKey.objects.order_by("pk").values_list(*LIMITS_OF_A_KEY))


@pytest.mark.usefixtures("one_window")
def test_calls_beyond_the_keys_own_limit_are_refused_and_another_keys_are_not(
    acme_bot: Bot, acme_server: AuthorizationServer
) -> None:
    """The first challenge of a chat goes before Django, and the other calls do not: both count as one."""
    BotKey.objects.update(calls_per_minute=3)
    other = make_bot(acme_server.brand, chat="web:other")
    acme_bot.challenge()
    assert [acme_bot.in_chat("GET")[0] for _ in range(3)] == [200, 200, 429]
    assert acme_bot.in_chat("POST", "/challenges")[1]["code"] == "rate_limited"
    assert Bot(acme_bot.key, "web:new").in_chat("POST", "/challenges")[1]["code"] == "rate_limited"
    assert [other.in_chat("GET")[0] for _ in range(4)] == [404] * 4


@pytest.mark.usefixtures("one_window")
def test_token_reads_have_a_limit_apart_from_calls(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """Before Django, where there is a token, and behind it, where there is none."""
    acme_bot.complete(code_on(ada.sign_in(acme_bot.challenge()["url"], acme_login)))
    BotKey.objects.update(token_reads_per_minute=3)
    assert [acme_bot.token()[0] for _ in range(2)] == [200, 200]
    nobody = Bot(acme_bot.key, "web:nobody")
    assert [nobody.token()[0] for _ in range(2)] == [404, 429]
    assert (acme_bot.token()[1]["code"], acme_bot.in_chat("GET")[0]) == ("rate_limited", 200)


@pytest.mark.usefixtures("one_window")
def test_a_changed_limit_counts_from_the_next_call(acme_bot: Bot, acme_server: AuthorizationServer) -> None:
    BotKey.objects.update(token_reads_per_minute=1)
    assert [acme_bot.token()[0] for _ in range(2)] == [404, 429]
    BotKey.objects.update(token_reads_per_minute=5)
    assert acme_bot.token()[0] == 404


def test_a_command_sets_them_and_the_log_has_them(acme: Brand) -> None:
    call_command("create_bot_key", *ADDED, "--calls-per-minute=90000", stdout=io.StringIO())
    call_command("create_bot_key", *ADDED, "--token-reads-per-minute=7", stdout=io.StringIO())
    assert limits() == [(90_000, None), (None, 7)]
    assert list(AuditEvent.objects.order_by("id").values_list("kind", "actor", "changed_values")) == [
        ("bot_key.created", "operator", {"calls_per_minute": [None, 90_000]}),
        ("bot_key.created", "operator", {"token_reads_per_minute": [None, 7]}),
    ]


@pytest.mark.parametrize("number", ["0", "-1", "10000001"])
def test_the_command_refuses_what_is_no_limit(acme: Brand, number: str) -> None:
    with pytest.raises(CommandError, match="--calls-per-minute: Ensure this value is"):
        call_command("create_bot_key", *ADDED, f"--calls-per-minute={number}")
    assert limits() == []


def test_no_admin_of_a_brand_sets_a_limit(houses: tuple[House, House]) -> None:
    """The attack: one brand's bot takes the processes that all brands share."""
    house = houses[0]
    key = BotKey.objects.filter(brand=house.brand).latest("pk")
    wide = dict.fromkeys(LIMITS_OF_A_KEY, "9000000")
    house.admin.send_changed(address(BotKey, "change", key), label="renamed", **wide)
    new = {"label": "fresh", "brand": house.brand.pk, **wide}
    assert house.admin.send_changed(address(BotKey, "add"), **new).status_code == 302
    labels = {"renamed", "fresh"}
    made = BotKey.objects.filter(brand=house.brand, label__in=labels).values_list("label", *LIMITS_OF_A_KEY)
    assert sorted(made) == [("fresh", None, None), ("renamed", None, None)]


def test_the_operator_sets_a_limit_and_the_log_says_from_what_to_what(
    houses: tuple[House, House], operator: Any
) -> None:
    key = BotKey.objects.filter(brand=houses[0].brand).latest("pk")
    assert operator.send_changed(address(BotKey, "change", key), calls_per_minute="90000").status_code == 302
    key.refresh_from_db()
    assert (key.calls_per_minute, key.token_reads_per_minute) == (90_000, None)
    event = AuditEvent.objects.filter(kind="bot_key.changed").latest("id")
    assert (event.object_uuid, event.changed_values) == (key.uuid, {"calls_per_minute": [None, 90_000]})


def test_an_admins_save_does_not_undo_a_limit_that_the_operator_sets_meanwhile(
    houses: tuple[House, House], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attack: an admin saves the label again and again while the operator narrows the limit."""
    house = houses[0]
    key = BotKey.objects.filter(brand=house.brand).latest("pk")
    BotKey.objects.filter(pk=key.pk).update(calls_per_minute=90_000)
    real = BotKey.full_clean

    def narrowed_meanwhile(row: BotKey, *args: Any, **options: Any) -> None:
        BotKey.objects.filter(pk=row.pk).update(calls_per_minute=10)
        real(row, *args, **options)

    monkeypatch.setattr(BotKey, "full_clean", narrowed_meanwhile)
    assert house.admin.send_changed(address(BotKey, "change", key), label="renamed").status_code == 302
    key.refresh_from_db()
    assert (key.label, key.calls_per_minute) == ("renamed", 10)
