"""Hourly counts equal the audit log: each row is counted once, whatever happens to the worker."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final
from uuid import UUID, uuid4

import pytest
import time_machine
from django.core.management import call_command
from django.db import transaction

from brands.models import AuthorizationServer, Brand
from conversations import statistics
from conversations.flow.events import ConversationEvent
from conversations.flow.retention import sweep
from conversations.models import AuditEvent, Conversation, HourlyCount
from conversations.outbox import worker
from conversations.statistics import count_events
from infrastructure.audit import record_event
from tests.cast import Bot, Browser, code_on, make_server
from tests.concurrency import at_once
from tests.counted_by_hand import Counts, count_all, in_the_log
from tests.fake_authorization_server import FakeAuthorizationServer

# On PostgreSQL a test's own transaction would be the one that counting waits for.
pytestmark = pytest.mark.django_db(transaction=True)

NOON: Final = datetime(2030, 1, 1, 12, tzinfo=UTC)
BEFORE_MIDNIGHT: Final = datetime(2030, 1, 1, 22, 30, tzinfo=UTC)


def counted(*measures: str) -> Counts:
    """Return the counts as they are stored."""
    rows = HourlyCount.objects.filter(measure__in=measures) if measures else HourlyCount.objects.all()
    return Counter({row[:-1]: row[-1] for row in rows.values_list("brand__uuid", "hour", "measure", "detail", "times")})


def event(challenge: UUID, brand: Brand, kind: str, outcome: str, at: datetime) -> None:
    """Write a row of the audit log, in the transaction of some change of the database."""
    with transaction.atomic():
        Conversation.objects.create(brand=brand, external_id=uuid4().hex)
        record_event(ConversationEvent(kind), brand_uuid=brand.uuid, actor="system", now=at, outcome=outcome,
                     challenge_uuid=challenge)  # fmt: skip


class Killed(Exception):
    """The worker dies."""


def die_in_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the worker die between its counts and the number up to which it has counted."""
    add_up = statistics._add_up

    def dying(counts: Any) -> None:
        add_up(counts)
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(statistics, "_add_up", dying)
        with pytest.raises(Killed):
            count_events(NOON)


class Crowd:
    """Consumers of one brand, who do all that consumers, bots and servers do, at moments that a seed decides."""

    def __init__(self, bot: Bot, login: FakeAuthorizationServer, clock: Any) -> None:
        self.bot, self.login, self.clock, self.chance = bot, login, clock, Random(17)  # noqa: S311  not for secrets

    def pass_time(self, most_seconds: float) -> None:
        self.clock.shift(timedelta(seconds=self.chance.uniform(0.01, most_seconds)))

    def one(self, number: int) -> None:
        """Let one challenge go its way."""
        self.pass_time(60)
        bot = Bot(self.bot.key, f"web:{number}")
        check = self.chance.choice(["completion_code", "completion_code", "none"])
        server = "open" if check == "none" else "orders"
        url = bot.challenge(authorization_server=server)["url"]
        self.pass_time(100)
        ways = (self.confirmed, self.confirmed, self.ignored, self.left_alone, self.denied, self.retried, self.replaced,
                self.withdrawn, self.cancelled, self.wrong_codes, self.undone)  # fmt: skip
        self.chance.choice(ways)(bot, Browser(), url, server)

    def answer(self, browser: Browser, url: str, server: str) -> Any:
        """Sign in; the token endpoint takes its time."""
        self.login.redirect_uri = self.redirect_uris[server]
        location = browser.begin(url)
        self.pass_time(90)
        returned = f"{self.login.redirect_uri}?{self.login.authorize(location)}"
        self.login.on_token_request = lambda _: self.pass_time(6)
        return browser.get(browser.get(returned)["Location"])

    @property
    def redirect_uris(self) -> dict[str, str]:
        return {server.key: server.redirect_uri for server in AuthorizationServer.objects.all()}

    def confirmed(self, bot: Bot, browser: Browser, url: str, server: str) -> None:
        page = self.answer(browser, url, server)
        self.pass_time(80)
        if server == "orders":
            answer = bot.in_chat("POST", "/completion", {"code": code_on(page), "authorization_server": server})
            assert answer[0] == 200, answer

    def ignored(self, bot: Bot, browser: Browser, url: str, server: str) -> None:
        """The sweep ends it."""

    def left_alone(self, bot: Bot, browser: Browser, url: str, server: str) -> None:
        browser.begin(url)

    def denied(self, bot: Bot, browser: Browser, url: str, server: str) -> None:
        self.login.denies = True
        self.login.redirect_uri = self.redirect_uris[server]
        browser.come_back(browser.begin(url), self.login)
        self.login.denies = False

    def retried(self, bot: Bot, browser: Browser, url: str, server: str) -> None:
        """Once or twice the server fails, in one way or another; then it works."""
        for _ in range(self.chance.choice([1, 2])):
            code = self.chance.choice(["invalid_grant", "invalid_client", "server_error"])
            body = f'{{"error": "{code}"}}'.encode()
            self.login.next_token_answer = (400, {"Content-Type": "application/json"}, body)
            self.answer(browser, url, server)
            self.pass_time(60)
        self.confirmed(bot, browser, url, server)

    def replaced(self, bot: Bot, browser: Browser, url: str, server: str) -> None:
        self.pass_time(20)
        self.confirmed(bot, browser, bot.challenge(authorization_server=server, replace=True)["url"], server)

    def withdrawn(self, bot: Bot, browser: Browser, url: str, server: str) -> None:
        bot.in_chat("DELETE")

    def cancelled(self, bot: Bot, browser: Browser, url: str, server: str) -> None:
        browser.press(url, "/cancel")

    def wrong_codes(self, bot: Bot, browser: Browser, url: str, server: str) -> None:
        self.answer(browser, url, server)
        for _ in range(5 if server == "orders" else 0):
            bot.in_chat("POST", "/completion", {"code": "000000", "authorization_server": server})

    def undone(self, bot: Bot, browser: Browser, url: str, server: str) -> None:
        self.confirmed(bot, browser, url, server)
        browser.press(f"{url}/done", "/undo")


@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("challenges", [60, pytest.param(1_000, marks=pytest.mark.full)])
def test_counts_equal_the_audit_log_across_midnight_though_the_worker_dies_now_and_then(
    acme: Brand,
    acme_bot: Bot,
    acme_login: FakeAuthorizationServer,
    monkeypatch: pytest.MonkeyPatch,
    challenges: int,
) -> None:
    """To the unit: each step, outcome, error code and duration, in each hour."""
    make_server(acme, "open", same_person_checks=["none"])
    with time_machine.travel(BEFORE_MIDNIGHT, tick=False) as clock:
        crowd = Crowd(acme_bot, acme_login, clock)
        for number in range(challenges):
            crowd.one(number)
            if number % 20 == 10:
                sweep(datetime.now(UTC))
                die_in_the_middle(monkeypatch)
            if number % 20 == 15:
                call_command("worker", "--once")
        clock.shift(timedelta(hours=1))
        sweep(datetime.now(UTC))
        count_all(NOON)
    assert len({moment.date() for moment in AuditEvent.objects.values_list("at", flat=True)}) > 1
    assert counted() == in_the_log()
    assert sum(counted("step")[key] for key in counted("step") if key[-1] == "issued") > challenges
    outcomes = set(HourlyCount.objects.filter(measure="outcome").values_list("detail", flat=True))
    assert outcomes >= {
        *("cancelled", "completed", "denied", "expired", "failed:too_many_codes", "superseded", "withdrawn"),
    }


@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_a_challenge_whose_rows_are_counted_in_pieces_is_counted_as_one(
    acme: Brand, acme_bot: Bot, acme_login: FakeAuthorizationServer, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    """What was counted before is read again for its moments, and not counted again."""
    monkeypatch.setattr(statistics, "CHUNK", chunk)
    with time_machine.travel(BEFORE_MIDNIGHT, tick=False) as clock:
        crowd = Crowd(acme_bot, acme_login, clock)
        crowd.retried(acme_bot, Browser(), acme_bot.challenge()["url"], "orders")
    count_all(NOON)
    assert counted() == in_the_log()
    assert {measure for _, _, measure, _ in counted()} == set(HourlyCount.Measure)


def test_a_long_backlog_is_counted_in_parts_and_not_while_the_worker_stops(
    acme: Brand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweep, which erases tokens, waits for it."""
    monkeypatch.setattr(statistics, "CHUNK", 1)
    monkeypatch.setattr(statistics, "CHUNKS_AT_ONCE", 2)
    for _ in range(5):
        event(uuid4(), acme, "challenge.changed", "issued", NOON)
    assert count_events(NOON, lambda: True) == 0
    assert count_events(NOON) <= 2
    count_all(NOON)
    assert counted() == {(acme.uuid, NOON, "step", "issued"): 5}


def test_workers_that_count_at_once_count_each_row_once(acme: Brand, acme_bot: Bot, acme_server: Any) -> None:
    for number in range(20):
        Bot(acme_bot.key, f"web:{number}").challenge()
    at_once(4, lambda _: count_all(NOON))
    assert sum(counted("step").values()) == 20


def test_a_challenge_that_came_back_twice_came_back_once(acme: Brand) -> None:
    """Later tries have their token requests, and no place in the funnel."""
    challenge = uuid4()
    for minutes, (kind, outcome) in enumerate([
        ("challenge.changed", "issued"),
        ("challenge.changed", "started"),
        ("authorization_request.returned", "code"),
        ("authorization_request.failed", "invalid_grant"),
        ("authorization_request.returned", "code"),
        ("authorization_request.failed", "jwks_unavailable"),
        ("authorization_request.returned", "code"),
        ("authorization_request.failed", "subject_endpoint_busy"),
    ]):  # fmt: skip
        event(challenge, acme, kind, outcome, NOON + timedelta(minutes=minutes))
    count_all(NOON)
    assert counted("step", "token_request") == {
        (acme.uuid, NOON, "step", "issued"): 1,
        (acme.uuid, NOON, "step", "left"): 1,
        (acme.uuid, NOON, "step", "returned"): 1,
        (acme.uuid, NOON, "token_request", "invalid_grant"): 1,
        (acme.uuid, NOON, "token_request", "answered"): 2,
    }


@pytest.mark.parametrize(
    ("returned", "failed"),
    [("error", "server_error"), ("code", "issuer_mismatch"), ("code", "internal_error"), ("", "par_endpoint_timeout")],
)
def test_what_sent_no_token_request_says_nothing_of_the_token_endpoint(acme: Brand, returned: str, failed: str) -> None:
    challenge = uuid4()
    if returned:
        event(challenge, acme, "authorization_request.returned", returned, NOON)
    event(challenge, acme, "authorization_request.failed", failed, NOON)
    count_all(NOON)
    assert counted("error") == {(acme.uuid, NOON, "error", failed): 1}
    assert counted("token_request", "token_request_time") == {}


def test_a_request_that_failed_before_the_browser_left_says_nothing_of_the_token_endpoint(acme: Brand) -> None:
    """An earlier callback of the same challenge has its result already."""
    challenge = uuid4()
    event(challenge, acme, "authorization_request.returned", "code", NOON)
    event(challenge, acme, "authorization_request.failed", "invalid_grant", NOON)
    event(challenge, acme, "authorization_request.failed", "par_endpoint_timeout", NOON)
    count_all(NOON)
    assert counted("token_request") == {(acme.uuid, NOON, "token_request", "invalid_grant"): 1}


def test_a_denial_is_an_outcome_and_no_error(acme: Brand) -> None:
    """It ends its authorization request and its challenge; it counts as what the consumer did."""
    challenge = uuid4()
    event(challenge, acme, "authorization_request.returned", "error", NOON)
    event(challenge, acme, "authorization_request.failed", "access_denied", NOON)
    event(challenge, acme, "challenge.changed", "denied", NOON)
    count_all(NOON)
    assert counted("error", "outcome", "token_request") == {(acme.uuid, NOON, "outcome", "denied"): 1}


@pytest.mark.parametrize(
    ("milliseconds", "bound"),
    [(-5_000, "100"), (0, "100"), (100, "100"), (101, "200"), (3_600_000, "3600000"), (3_600_001, "over")],
)
def test_a_duration_is_counted_below_the_next_bound(acme: Brand, milliseconds: int, bound: str) -> None:
    """Below none for more than an hour; below the first where two machines' clocks differ."""
    challenge = uuid4()
    event(challenge, acme, "challenge.changed", "issued", NOON)
    event(challenge, acme, "challenge.changed", "started", NOON + timedelta(milliseconds=milliseconds))
    count_all(NOON)
    assert [detail for _, _, _, detail in counted("until_left")] == [bound]


def test_a_row_counts_in_the_hour_of_its_own_moment_however_late_it_comes(acme: Brand) -> None:
    """A sweep after a long outage, or a process whose clock is wrong, writes rows of any moment."""
    for at in (NOON, NOON - timedelta(days=3), NOON + timedelta(days=300)):
        event(uuid4(), acme, "challenge.changed", "expired", at)
        count_all(NOON)
    assert [hour for _, hour, _, _ in counted("outcome")] == [
        NOON - timedelta(days=3),
        NOON,
        NOON + timedelta(days=300),
    ]


def test_each_brands_challenges_count_for_itself(acme: Brand, rival: Brand) -> None:
    """What the log says of a brand that is no more is passed."""
    for brand in (acme, rival, Brand(uuid=uuid4())):
        record_event(ConversationEvent.CHALLENGE_CHANGED, brand_uuid=brand.uuid, actor="system", now=NOON,
                     outcome="issued", challenge_uuid=uuid4())  # fmt: skip
    count_all(NOON)
    assert counted() == {(brand.uuid, NOON, "step", "issued"): 1 for brand in (acme, rival)}


def test_counts_hold_nothing_of_a_person(
    acme: Brand, acme_bot: Bot, acme_login: FakeAuthorizationServer, ada: Browser
) -> None:
    """J9: a brand, an hour, a word of ours and a number."""
    acme_bot.complete(code_on(ada.sign_in(acme_bot.challenge(context="planted")["url"], acme_login)))
    count_all(NOON)
    ours = {*statistics.STEPS, *statistics.OUTCOMES, *map(str, statistics.BUCKETS), "over", "answered"}
    assert {detail for _, _, _, detail in counted()} <= ours
    assert {field.name for field in HourlyCount._meta.get_fields()} == {
        *("id", "brand", "hour", "measure", "detail", "times"),
    }


def test_old_counts_are_deleted_by_the_sweep(acme: Brand) -> None:
    for days in (399, 401):
        event(uuid4(), acme, "challenge.changed", "issued", NOON - timedelta(days=days))
    count_all(NOON)
    sweep(NOON)
    assert [hour for _, hour, _, _ in counted()] == [NOON - timedelta(days=399)]


def test_counting_that_fails_keeps_the_worker_from_nothing_else_and_is_said(
    acme_bot: Bot, acme_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise Killed

    monkeypatch.setattr(worker, "count_events", fail)
    with pytest.raises(worker.RunIncomplete, match=r"the audit log cannot be counted \(Killed\)"):
        worker.run_once()
