"""Most sign-ins fail on the server's side, or a key reads unusually much: the brand is told, once."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
import time_machine
from django.core import mail
from django.db import connection
from django.test.utils import CaptureQueriesContext

from brands.models import AuthorizationServer, BotKey, Brand, ServerHealth
from conversations.flow import call_counts, read_counts
from conversations.flow.call_counts import CallKind
from conversations.models import ApiCallCount, AuditEvent, HourlyCount, TokenReadCount, WebhookDelivery
from conversations.outbox import worker
from conversations.outbox.health_checks import watch
from oauth_client import transport
from tests.admin_pages import AdminBrowser
from tests.cast import Bot, Browser, make_server
from tests.concurrency import at_once
from tests.counted_by_hand import count_all
from tests.fake_authorization_server import FakeAuthorizationServer
from tests.webhook_receiver import Receiver

pytestmark = pytest.mark.django_db(transaction=True)

START: Final = datetime(2030, 1, 10, 12, 10, tzinfo=UTC)
MINUTE: Final = timedelta(minutes=1)
FAILING, RECOVERED, UNUSUAL = "authorization_server.failing", "authorization_server.recovered", "token.reads_unusual"


@pytest.fixture(autouse=True)
def clock() -> Any:
    with time_machine.travel(START, tick=False) as travel:
        yield travel


@pytest.fixture(autouse=True)
def server(acme_server: AuthorizationServer, acme_admin: Any) -> AuthorizationServer:
    """Acme's server, and an admin who gets mail. No check is due."""
    acme_admin.email = "ada@acme.example"
    acme_admin.save()
    ServerHealth.objects.create(authorization_server=acme_server, next_attempt_at=START + timedelta(hours=23))
    return acme_server


def sign_in(bot: Bot, login: FakeAuthorizationServer, times: int, chats: int = 5, name: str = "web") -> None:
    """Sign in so often, in so many chats in turn."""
    for number in range(times):
        _, challenge = Bot(bot.key, f"{name}:{number % chats}").in_chat("POST", "/challenges", {})
        browser = Browser()
        assert browser.come_back(browser.begin(challenge["url"]), login).status_code == 303  # the page says no more


def told() -> list[str]:
    """Work as a worker does once a minute. Return what the brand has been told of its server so far."""
    count_all(datetime.now(UTC))
    worker.run_once()
    kinds = [FAILING, RECOVERED]
    told = list(AuditEvent.objects.filter(kind__in=kinds).order_by("id").values_list("kind", flat=True))
    mails = [message for message in mail.outbox if "authorization server" in message.subject]
    assert [FAILING if "is failing" in message.subject else RECOVERED for message in mails] == told
    return told


# Sign-ins that fail.


def test_a_server_at_which_most_sign_ins_fail_is_told_of_once(
    acme_bot: Bot, acme_login: FakeAuthorizationServer, acme_hooks: Receiver, acme_admin: Any
) -> None:
    acme_login.hangs = True
    sign_in(acme_bot, acme_login, 9)
    assert told() == []
    sign_in(acme_bot, acme_login, 1)
    for _ in range(3):
        assert told() == [FAILING]
    (event,) = [message.payload for message in acme_hooks.messages if message.type == FAILING]
    assert event["data"]["problems"] == ["sign_ins_fail"]
    assert "10 of the last 10 sign-ins failed at your server" in mail.outbox[-1].body
    home = AdminBrowser(acme_admin).get("/admin/").content.decode()
    assert "has been failing since 2030-01-10 12:10 UTC" in home


def test_the_mail_does_not_tell_a_time_out_from_other_missing_answers(
    acme_bot: Bot, acme_login: FakeAuthorizationServer
) -> None:
    """N9."""
    acme_login.hangs = True
    sign_in(acme_bot, acme_login, 10)
    assert told() == [FAILING]
    assert "No answer. The address is wrong" in mail.outbox[-1].body
    assert "token_endpoint" not in mail.outbox[-1].body


def test_another_cause_is_said_with_its_code(acme_bot: Bot, acme_login: FakeAuthorizationServer) -> None:
    acme_login.client_secret = "another"
    sign_in(acme_bot, acme_login, 10)
    assert told() == [FAILING]
    assert "most of them with invalid_client: The server does not know our client id" in mail.outbox[-1].body


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (transport.EndpointTimeout("the server did not answer in time"), "No answer. The address is wrong"),
        ((503, {}, b""), "most of them with subject_endpoint_busy: The userinfo or introspection endpoint is busy"),
        ((403, {}, b""), "most of them with subject_request_refused"),
    ],
)
def test_a_userinfo_endpoint_that_fails_is_told_of_and_not_as_the_token_endpoint(
    acme_bot: Bot, acme_login: FakeAuthorizationServer, answer: Any, said: str
) -> None:
    """N13, A17."""
    AuthorizationServer.objects.update(userinfo_endpoint=f"{acme_login.issuer}/userinfo")
    acme_login.next_subject_answers = [answer] * 10
    sign_in(acme_bot, acme_login, 10)
    assert told() == [FAILING]
    assert said in mail.outbox[-1].body
    counted = HourlyCount.objects.filter(measure=HourlyCount.Measure.TOKEN_REQUEST)
    assert dict(counted.values_list("detail", "times")) == {"answered": 10}


def test_one_conversation_is_no_outage(acme_bot: Bot, acme_login: FakeAuthorizationServer) -> None:
    """N13. The attack: one consumer, in one chat or a few, has mails sent to a brand's admins."""
    acme_login.hangs = True
    sign_in(acme_bot, acme_login, 20, chats=4)
    assert told() == []


def test_half_of_the_sign_ins_is_not_most(acme_bot: Bot, acme_login: FakeAuthorizationServer) -> None:
    acme_login.hangs = True
    sign_in(acme_bot, acme_login, 10)
    acme_login.hangs = False
    sign_in(acme_bot, acme_login, 10, chats=10, name="good")
    assert told() == []


@pytest.mark.parametrize("answer", ["error=server_error", "error=temporarily_unavailable", "code=invented"])
def test_what_browsers_invent_is_no_outage(acme_bot: Bot, acme_login: FakeAuthorizationServer, answer: str) -> None:
    """N13. The attack: consumers come back with invented errors and codes, to have a brand's admins woken."""
    acme_login.sends_iss = False
    AuthorizationServer.objects.update(authorization_response_iss_parameter_supported=False)
    for number in range(12):
        browser = Browser()
        url = browser.begin(Bot(acme_bot.key, f"web:{number}").challenge()["url"])
        acme_login.authorize(url)
        state = acme_login.authorization_requests[-1]["state"]
        browser.get(f"{acme_login.redirect_uri}?{answer}&state={state}")
    assert AuditEvent.objects.filter(kind="authorization_request.failed").count() == 12
    assert told() == []


def test_another_server_of_the_brand_is_not_marked(
    acme: Brand, acme_bot: Bot, acme_login: FakeAuthorizationServer, server: AuthorizationServer
) -> None:
    acme_login.hangs = True
    sign_in(acme_bot, acme_login, 10)
    make_server(acme, "returns")
    assert told() == [FAILING]
    marked = ServerHealth.objects.failing().values_list("authorization_server__key", flat=True)
    assert list(marked) == ["orders"]


def test_it_recovers_after_an_hour_and_with_proof(
    acme_bot: Bot, acme_login: FakeAuthorizationServer, clock: Any
) -> None:
    acme_login.hangs = True
    sign_in(acme_bot, acme_login, 10)
    assert told() == [FAILING]
    acme_login.hangs = False
    clock.shift(50 * MINUTE)
    sign_in(acme_bot, acme_login, 40, chats=40, name="good")
    assert told() == [FAILING]  # it may come and go
    clock.shift(11 * MINUTE)
    assert told() == [FAILING, RECOVERED]


def test_without_a_sign_in_nothing_proves_that_it_works_again_for_a_day(
    acme_bot: Bot, acme_login: FakeAuthorizationServer, clock: Any
) -> None:
    acme_login.hangs = True
    sign_in(acme_bot, acme_login, 10)
    assert told() == [FAILING]
    clock.shift(22 * 60 * MINUTE)
    assert told() == [FAILING]
    ServerHealth.objects.update(next_attempt_at=START + timedelta(hours=30))
    clock.shift(2 * 60 * MINUTE)
    assert told() == [FAILING, RECOVERED]


def test_workers_at_once_tell_once(acme_bot: Bot, acme_login: FakeAuthorizationServer, acme_hooks: Receiver) -> None:
    """N13."""
    acme_login.hangs = True
    sign_in(acme_bot, acme_login, 9)
    worker.run_once()
    sign_in(acme_bot, acme_login, 1)
    count_all(START)
    at_once(3, lambda _: watch(START))
    assert AuditEvent.objects.filter(kind=FAILING).count() == 1
    assert WebhookDelivery.objects.filter(event=FAILING).count() == 1
    assert told() == [FAILING]


def test_a_pass_costs_the_same_however_many_servers_there_are(acme: Brand, rival: Brand) -> None:
    watch(START)
    costs = []
    for number in (1, 20):
        for key in range(number):
            make_server(rival, f"orders-{number}-{key}")
        watch(START)
        with CaptureQueriesContext(connection) as queries:
            watch(START)
        costs.append(len(queries))
    assert costs[0] == costs[1] <= 12


# Unusual token reads.


@pytest.fixture
def unusual(acme_bot: Bot) -> BotKey:
    """acme-bot's key, which read 1,000 tokens this hour."""
    key = BotKey.objects.get()
    hour = START.replace(minute=0)
    TokenReadCount.objects.create(bot_key=key, hour=hour, purpose="order.status", times=999)
    read_counts.count_read(key.pk, "order.status", START)
    read_counts.flush(START)
    return key


def reads_told() -> int:
    """Work as a worker does once a minute. Return how many mails about reads there are, and so webhook events."""
    worker.run_once()
    mails = [message for message in mail.outbox if "unusually many tokens" in message.subject]
    assert len(mails) == WebhookDelivery.objects.filter(event=UNUSUAL).count()
    return len(mails)


def test_unusual_reads_are_mailed_marked_and_sent_once_a_day(
    unusual: BotKey, acme_hooks: Receiver, acme_admin: Any, clock: Any
) -> None:
    for _ in range(3):
        assert reads_told() == 1
    (event,) = [message.payload for message in acme_hooks.messages]
    assert event["data"] == {"bot_key": unusual.public_id, "reads": 1000, "hour": "2030-01-10T12:00:00Z"}
    message = mail.outbox[-1]
    assert message.to == ["ada@acme.example"]
    assert "1000 in the hour from 2030-01-10 12:00 UTC." in message.body
    assert f"https://delegation.test/admin/brands/botkey/{unusual.pk}/change/" in message.body
    browser = AdminBrowser(acme_admin)
    assert "read far more access tokens than usual at 2030-01-10 12:10 UTC" in browser.get("/admin/").content.decode()
    assert "Unusual token reads" in browser.get(f"/admin/brands/botkey/{unusual.pk}/change/").content.decode()
    clock.shift(timedelta(hours=2))
    BotKey.objects.update(reads_unusual_at=START + timedelta(hours=2))
    assert reads_told() == 1
    clock.shift(timedelta(hours=23))
    BotKey.objects.update(reads_unusual_at=START + timedelta(hours=25))
    ServerHealth.objects.update(next_attempt_at=START + timedelta(hours=40))
    assert reads_told() == 2


@pytest.fixture
def calling(acme_bot: Bot) -> BotKey:
    """acme-bot's key, which made 1,000 calls this hour, of two operations and with two outcomes."""
    key, hour = BotKey.objects.get(), START.replace(minute=0)
    made = {"bot_key": key, "hour": hour, "milliseconds": 9}
    ApiCallCount.objects.create(**made, operation="orders.list", outcome="2xx", times=500)
    ApiCallCount.objects.create(**made, operation="orders.read", outcome="api_timeout", times=499)
    call_counts.count_call(CallKind(key.pk, "orders.list", "2xx", "order.status"), 7, START)
    call_counts.flush(START)
    return key


def test_unusual_calls_are_recorded_mailed_marked_and_sent_once_a_day(
    calling: BotKey, acme_hooks: Receiver, acme_admin: Any, clock: Any
) -> None:
    """P11: a stolen key that calls is noticed by the rule for one that reads."""
    recorded = AuditEvent.objects.get(kind="api.calls_unusual")
    assert (recorded.outcome, recorded.object_uuid, recorded.actor) == ("1000", calling.uuid, "system")
    for _ in range(3):
        worker.run_once()
    (event,) = [message.payload for message in acme_hooks.messages]
    assert event["type"] == "api.calls_unusual"
    assert event["data"] == {"bot_key": calling.public_id, "calls": 1000, "hour": "2030-01-10T12:00:00Z"}
    (message,) = [one for one in mail.outbox if "unusually" in one.subject]
    assert message.subject == "Acme: the bot key acme-bot makes unusually many calls"
    assert "1000 in the hour from 2030-01-10 12:00 UTC." in message.body
    assert f"https://delegation.test/admin/brands/botkey/{calling.pk}/change/" in message.body
    browser = AdminBrowser(acme_admin)
    assert "called APIs far more than usual at 2030-01-10 12:10 UTC" in browser.get("/admin/").content.decode()
    assert "Unusual API calls" in browser.get(f"/admin/brands/botkey/{calling.pk}/change/").content.decode()
    clock.shift(timedelta(hours=25))
    BotKey.objects.update(calls_unusual_at=START + timedelta(hours=25))
    ServerHealth.objects.update(next_attempt_at=START + timedelta(hours=40))
    worker.run_once()
    assert len([one for one in mail.outbox if one.subject == message.subject]) == 2


def test_a_key_that_reads_and_calls_too_much_is_told_of_twice(unusual: BotKey, calling: BotKey) -> None:
    """P11: neither warning silences the other."""
    at_once(3, lambda _: watch(START))
    assert sorted(message.subject.partition("acme-bot ")[2] for message in mail.outbox) == [
        "makes unusually many calls",
        "reads unusually many tokens",
    ]


@pytest.mark.parametrize(("before", "now", "warned"), [(0, 600, False), (0, 601, True), (2400, 1000, False)])
def test_calls_are_unusual_by_the_rule_for_reads(acme_bot: Bot, before: int, now: int, warned: bool) -> None:
    """P11: more than 600 in the hour, and more than ten times the mean of the 24 hours before."""
    key, hour = BotKey.objects.get(), START.replace(minute=0)
    made = {"bot_key": key, "operation": "orders.list", "outcome": "2xx", "milliseconds": 9}
    ApiCallCount.objects.create(**made, hour=hour - timedelta(hours=1), times=before)
    ApiCallCount.objects.create(**made, hour=hour, times=now - 1)
    call_counts.count_call(CallKind(key.pk, "orders.list", "2xx", ""), 7, START)
    call_counts.flush(START)
    assert AuditEvent.objects.filter(kind="api.calls_unusual").exists() == warned


def test_no_bot_waits_for_the_mail_when_it_reads(unusual: BotKey) -> None:
    marked = BotKey.objects.get()
    assert (marked.reads_unusual_at, marked.reads_unusual_told_at, mail.outbox) == (START, None, [])


def test_the_mark_of_a_key_goes_with_the_key_and_after_a_day(unusual: BotKey, acme_admin: Any, clock: Any) -> None:
    browser = AdminBrowser(acme_admin)
    clock.shift(timedelta(hours=7))
    assert "than usual" in browser.get("/admin/").content.decode()
    BotKey.objects.update(revoked_at=START)
    assert "than usual" not in browser.get("/admin/").content.decode()
    BotKey.objects.update(revoked_at=None, reads_unusual_at=START - timedelta(days=1))
    assert "than usual" not in browser.get("/admin/").content.decode()


def test_workers_at_once_tell_of_unusual_reads_once(unusual: BotKey, acme_hooks: Receiver) -> None:
    """N13."""
    at_once(3, lambda _: watch(START))
    assert reads_told() == 1


def test_nobody_else_is_told(unusual: BotKey, rival_admin: Any) -> None:
    rival_admin.email = "rita@rival.example"
    rival_admin.save()
    worker.run_once()
    assert [message.to for message in mail.outbox] == [["ada@acme.example"]]
    assert "than usual" not in AdminBrowser(rival_admin).get("/admin/").content.decode()
