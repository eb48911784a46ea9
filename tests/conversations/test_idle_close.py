"""The worker closes sessions in which nothing waits and nothing can be read (S8)."""

from datetime import datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.utils import timezone

from brands.models import AuthorizationServer, Brand
from conversations.flow import retention
from conversations.flow.retention import SweepIncomplete, sweep
from conversations.flow.termination import close_conversation
from conversations.models import AuditEvent, Conversation
from tests.cast import Bot, Browser, code_on, heading_of
from tests.fake_authorization_server import FakeAuthorizationServer
from tests.webhook_receiver import Receiver

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("thirty_minutes")]


@pytest.fixture
def thirty_minutes(acme_server: AuthorizationServer) -> None:
    Brand.objects.filter(pk=acme_server.brand_id).update(conversation_ids="reused", close_idle_after=30)


def sweep_after(**delta: float) -> None:
    with time_machine.travel(timezone.now() + timedelta(**delta), tick=False):
        sweep(timezone.now())


def open_ids() -> set[str]:
    return set(Conversation.objects.filter(closed_at=None).values_list("external_id", flat=True))


def authorize(bot: Bot, browser: Browser, login: FakeAuthorizationServer) -> None:
    code = code_on(browser.sign_in(bot.challenge()["url"], login))
    assert bot.in_chat("POST", "/completion", {"code": code, "session": 1})[0] == 200


def test_a_session_that_nothing_waits_in_is_closed_with_event_and_receipt(acme_bot: Bot, acme_hooks: Receiver) -> None:
    """S8: as if the bot had closed it. The same DELETE gets the same receipt."""
    acme_bot.challenge()
    now = timezone.now()
    sweep_after(minutes=16)  # the challenge has lived for 15
    sweep_after(minutes=45)
    assert open_ids() == {acme_bot.chat}
    sweep_after(minutes=47)
    assert open_ids() == set()
    event = AuditEvent.objects.get(kind="conversation.closed")
    assert (event.actor, event.session) == ("system", 1)
    status, receipt = acme_bot.in_chat("DELETE", "?session=1")
    with time_machine.travel(now + timedelta(hours=1), tick=False):
        acme_hooks.deliver()
    assert (status, acme_hooks.messages[-1].payload["data"]) == (200, receipt)
    assert (receipt["access_tokens_erased"], receipt["challenges_withdrawn"]) == (0, 0)
    assert acme_bot.challenge()["session"] == 2


def test_a_live_token_keeps_its_session_open_and_the_time_begins_at_its_end(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """S8: the token lives an hour, so it is over at 60 minutes and the session at 90."""
    authorize(acme_bot, ada, acme_login)
    for minutes, is_open in ((58, True), (61, True), (89, True), (92, False)):
        sweep_after(minutes=minutes)
        assert bool(open_ids()) is is_open


def test_reads_do_not_count(acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer) -> None:
    """S8: a read writes nothing, so a bot that polls an ended chat keeps it open no longer."""
    authorize(acme_bot, ada, acme_login)
    acme_bot.in_chat("DELETE", "/token?session=1")
    with time_machine.travel(timezone.now() + timedelta(minutes=29), tick=False):
        assert acme_bot.token()[1]["code"] == "rechallenge_required"
        acme_bot.status()
    sweep_after(minutes=31)
    assert open_ids() == set()


@pytest.mark.parametrize("state", ["issued", "started", "confirmation_needed"])
def test_an_open_challenge_keeps_its_session_open(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, state: str
) -> None:
    """S8: also one that lives longer than the brand's time."""
    AuthorizationServer.objects.update(challenge_lifetime=3600)
    Brand.objects.update(close_idle_after=1)
    url = acme_bot.challenge()["url"]
    if state == "started":
        ada.begin(url)
    elif state == "confirmation_needed":
        ada.sign_in(url, acme_login)
    sweep_after(minutes=4)
    assert acme_bot.status()[0] != "closed"


def test_a_token_at_one_server_keeps_the_whole_session_open(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, acme_server: AuthorizationServer
) -> None:
    AuthorizationServer.objects.update(challenge_lifetime=60)
    authorize(acme_bot, ada, acme_login)
    acme_bot.challenge()
    sweep_after(minutes=40)
    assert acme_bot.token()[0] == 200


@pytest.mark.parametrize(
    "change", [{"close_idle_after": 0}, {"conversation_ids": "unique"}, {"is_active": False}, {"close_idle_after": 300}]
)
def test_no_other_brands_sessions_are_closed(acme_bot: Bot, change: dict[str, Any]) -> None:
    """S8, S9: not with unique ids, whatever stands in the row, since they would never open again."""
    acme_bot.challenge()
    Brand.objects.update(**change)
    sweep_after(hours=2)
    assert Conversation.objects.get().closed_at is None


def test_a_challenge_begun_meanwhile_is_not_ended(acme_bot: Bot, monkeypatch: pytest.MonkeyPatch) -> None:
    """S8: the session was selected as idle, and then somebody asked for a link."""
    first = acme_bot.challenge()
    acme_bot.call("DELETE", f"/challenges/{first['challenge_id']}")
    close = retention._close_if_idle

    def begun_meanwhile(pk: int, now: datetime) -> None:
        acme_bot.challenge()
        close(pk, now)

    monkeypatch.setattr(retention, "_close_if_idle", begun_meanwhile)
    sweep_after(hours=1)
    assert acme_bot.status()[0] == "challenged"


def test_a_switch_of_the_brand_meanwhile_counts(acme_bot: Bot, monkeypatch: pytest.MonkeyPatch) -> None:
    """S9: closed, the id would never open again."""
    acme_bot.challenge()
    close = retention._close_if_idle

    def switched_meanwhile(pk: int, now: datetime) -> None:
        Brand.objects.update(conversation_ids="unique")
        close(pk, now)

    monkeypatch.setattr(retention, "_close_if_idle", switched_meanwhile)
    sweep_after(hours=1)
    sweep_after(hours=2)
    assert acme_bot.status()[0] == "unchallenged"


def test_one_sweep_closes_so_many_and_the_next_ones_the_rest(
    acme_bot: Bot, rival_bot: Bot, rival_server: AuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S8: a brand that switches it on with a million open sessions keeps no other brand waiting."""
    monkeypatch.setattr(retention, "MOST_IDLE_CLOSED", 2)
    Brand.objects.update(conversation_ids="reused", close_idle_after=30)
    for number in range(5):
        Bot(acme_bot.key, f"sms:{number}").challenge()
    rival_bot.challenge()
    left = []
    for hours in (1, 2, 3, 4):
        sweep_after(hours=hours)
        left.append(len(open_ids()))
    assert left == [6, 3, 1, 0]


def test_a_session_that_cannot_be_closed_keeps_no_other_open(acme_bot: Bot, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        Bot(acme_bot.key, f"sms:{number}").challenge()
    sweep_after(hours=1)

    def fail_once(conversation: Conversation, **more: Any) -> Any:
        if conversation.external_id == "sms:1":
            raise RuntimeError("planted")
        return close_conversation(conversation, **more)

    monkeypatch.setattr(retention, "close_conversation", fail_once)
    with pytest.raises(SweepIncomplete, match="idle session"):
        sweep_after(hours=2)
    assert open_ids() == {"sms:1"}


def test_a_browser_that_comes_back_after_an_idle_close_finds_a_page(
    acme_bot: Bot, ada: Browser, rita: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """S6, G9: its own browser is told that this is over; for all others the link is as dead as every dead link."""
    url = acme_bot.challenge()["url"]
    back = ada.begin(url)
    sweep_after(minutes=16)
    sweep_after(minutes=47)
    ada.come_back(back, acme_login)
    assert heading_of(ada.get(url)) == "This is over"
    assert (rita.get(url).status_code, heading_of(rita.get(url))) == (404, heading_of(rita.get("/c/no-such-link")))
    assert acme_bot.challenge()["session"] == 2
    ada.press(url)
    assert acme_bot.status() == ("challenged", None)
