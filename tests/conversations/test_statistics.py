"""Hourly counts equal the audit log: each row is counted once, whatever happens to the worker."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final
from uuid import UUID, uuid4

import pytest
import time_machine
from django.core.management import call_command
from django.db import connection, transaction

from brands.models import AuthorizationServer, Brand
from conversations import statistics
from conversations.flow import challenges
from conversations.flow.events import ConversationEvent
from conversations.flow.retention import sweep
from conversations.models import AuditEvent, Conversation, CountedAuditLog, HourlyCount
from conversations.outbox import worker
from conversations.statistics import count_events
from infrastructure.audit import record_event
from tests.cast import Bot, Browser, code_on, make_bot, make_server
from tests.concurrency import at_once
from tests.fake_authorization_server import FakeAuthorizationServer

# On PostgreSQL a test's own transaction would be the one that counting waits for.
pytestmark = pytest.mark.django_db(transaction=True)

NOON: Final = datetime(2030, 1, 1, 12, tzinfo=UTC)
_Counts = Counter[tuple[Any, ...]]


def counted(*measures: str) -> _Counts:
    """Return the counts as they are stored."""
    rows = HourlyCount.objects.filter(measure__in=measures) if measures else HourlyCount.objects.all()
    return Counter({row[:-1]: row[-1] for row in rows.values_list("brand__uuid", "hour", "measure", "detail", "times")})


def event(challenge: UUID, brand: Brand, kind: str, outcome: str, at: datetime) -> None:
    """Write a row of the audit log, in the transaction of some change of the database."""
    with transaction.atomic():
        Conversation.objects.create(brand=brand, external_id=uuid4().hex)
        record_event(ConversationEvent(kind), brand_uuid=brand.uuid, actor="system", now=at, outcome=outcome,
                     challenge_uuid=challenge)  # fmt: skip


def in_the_log() -> _Counts:
    """Count the audit log in another way: all of it at once, each challenge's rows in their order."""
    journeys: dict[UUID | None, list[AuditEvent]] = {}
    for row in AuditEvent.objects.exclude(challenge_uuid=None).order_by("pk"):
        journeys.setdefault(row.challenge_uuid, []).append(row)
    found: _Counts = Counter()
    for rows in journeys.values():
        for row, measure, detail in _of_one_challenge(rows):
            found[row.brand_uuid, row.at.replace(minute=0, second=0, microsecond=0), measure, detail] += 1
    return found


_STEP_OF: Final = {
    ("challenge.changed", "issued"): "issued",
    ("challenge.changed", "started"): "left",
    ("authorization_request.returned", "code"): "returned",
    ("authorization_request.returned", "error"): "returned",
    ("challenge.changed", "confirmation_needed"): "token",
    ("token.issued", "none"): "token",
}
_NO_TOKEN_REQUEST: Final = {"configuration_changed", "internal_error", "issuer_mismatch", "stored_secret_unreadable"}


def _of_one_challenge(rows: list[AuditEvent]) -> Iterator[tuple[AuditEvent, str, str]]:
    first: dict[str, AuditEvent] = {}
    for row in rows:
        if (step := _STEP_OF.get((row.kind, row.outcome))) and step not in first:
            first[step] = row
            yield row, "step", step
        if row.kind == "token.issued":
            yield row, "step", "confirmed"
        if row.kind == "challenge.changed" and row.outcome not in {"issued", "started", "confirmation_needed"}:
            yield row, "outcome", row.outcome
        if row.kind == "authorization_request.failed":
            yield row, "error", row.outcome
    yield from _durations(rows, first)


def _durations(rows: list[AuditEvent], first: dict[str, AuditEvent]) -> Iterator[tuple[AuditEvent, str, str]]:
    for measure, since, until in (("until_left", "issued", "left"), ("until_returned", "left", "returned")):
        if until in first:
            yield first[until], measure, bucket(first[until].at - first[since].at)
    confirmed = next((row for row in rows if row.kind == "token.issued" and row.outcome != "none"), None)
    if confirmed:
        yield confirmed, "until_confirmed", bucket(confirmed.at - first["token"].at)
    for number, row in enumerate(rows):
        if (row.kind, row.outcome) == ("authorization_request.returned", "code"):
            yield from _token_request(row, rows[number + 1 :], first)


def _token_request(
    came_back: AuditEvent, later: list[AuditEvent], first: dict[str, AuditEvent]
) -> Iterator[tuple[AuditEvent, str, str]]:
    ends = ("authorization_request.failed", "token.discarded", "token.issued")
    result = next(row for row in later if row.kind in ends or row.outcome == "confirmation_needed")
    took = bucket(result.at - came_back.at)
    if result == first.get("token"):
        yield result, "until_token", took
    failed = result.outcome if result.kind == "authorization_request.failed" else "answered"
    if failed not in _NO_TOKEN_REQUEST:
        yield result, "token_request", failed
        yield result, "token_request_time", took


def bucket(duration: timedelta) -> str:
    fitting = [bound for bound in statistics.BUCKETS if duration <= timedelta(milliseconds=bound)]
    return str(min(fitting)) if fitting else "over"


class Killed(Exception):
    """The worker dies."""


def die_in_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the worker die between its counts and the number up to which it has counted."""
    add_up = statistics._add_up

    def dying(counts: Any) -> None:
        add_up(counts)
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(statistics, "_add_up", dying)
        count_events(NOON)


def count_all() -> None:
    """Count as often as a running worker does while others are writing."""
    for _ in range(3):
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


@pytest.mark.timeout(600)
def test_the_funnel_equals_the_audit_log_after_a_thousand_challenges_across_midnight_and_a_worker_that_dies(
    acme: Brand, acme_bot: Bot, acme_login: FakeAuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the unit: each step, outcome, error code and duration, in each hour."""
    make_server(acme, "open", same_person_checks=["none"], default_same_person_check="none")
    with time_machine.travel(NOON, tick=False) as clock:
        crowd = Crowd(acme_bot, acme_login, clock)
        for number in range(1_000):
            crowd.one(number)
            if number % 100 == 50:
                sweep(datetime.now(UTC))
                die_in_the_middle(monkeypatch)
            if number % 100 == 80:
                call_command("worker", "--once")
        clock.shift(timedelta(hours=1))
        sweep(datetime.now(UTC))
        count_all()
    assert len({moment.date() for moment in AuditEvent.objects.values_list("at", flat=True)}) > 1
    assert counted() == in_the_log()
    assert counted("step")[acme.uuid, NOON, "step", "issued"] > 0
    outcomes = set(HourlyCount.objects.filter(measure="outcome").values_list("detail", flat=True))
    assert outcomes >= {"cancelled", "completed", "denied", "expired", "failed:too_many_codes", "superseded", "withdrawn"}
