"""Purpose on a token read: demanded where a brand says so, logged, counted; and unusual rates."""

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.db import DatabaseError, InterfaceError, connection
from django.test.utils import CaptureQueriesContext

from brands.models import BotKey, Brand
from conversations.flow import read_counts
from conversations.flow.retention import sweep
from conversations.models import AccessToken, AuditEvent, TokenReadCount
from tests.cast import Bot, Browser, code_on, make_bot
from tests.fake_authorization_server import FakeAuthorizationServer

pytestmark = pytest.mark.django_db

START = datetime(2030, 1, 1, 12, 30, tzinfo=UTC)
HOUR = START.replace(minute=0)


@pytest.fixture
def clock() -> Any:
    with time_machine.travel(START, tick=False) as clock:
        yield clock


@pytest.fixture
def ready(clock: Any, acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer) -> Bot:
    """Return acme-bot where every read is answered with a token that lives long."""
    acme_bot.complete(code_on(ada.sign_in(acme_bot.challenge()["url"], acme_login)))
    AccessToken.objects.update(expires_at=START + timedelta(days=30))
    return acme_bot


def read(bot: Bot, query: str = "", header: str = "", *, authorize: bool = False) -> tuple[int, str | None]:
    method, what = ("POST", "/authorize") if authorize else ("GET", f"/token{query}")
    headers = {"X-Purpose": header} if header else {}
    status, body = bot.call(method, f"/conversations/{bot.chat}{what}", {} if authorize else None, **headers)
    return status, body.get("code")


def counted() -> dict[tuple[str, datetime], int]:
    return {(row.purpose, row.hour): row.times for row in TokenReadCount.objects.all()}


@pytest.mark.parametrize(
    ("query", "header", "code"),
    [
        ("", "", "purpose_required"),
        ("?purpose=", "", "purpose_required"),
        ("?purpose=Order", "", "invalid_purpose"),
        ("", "look up an order", "invalid_purpose"),
        ("", "x" * 65, "invalid_purpose"),
        ("", "-x", "invalid_purpose"),
        ("?purpose=order.status", "order.cancel", "invalid_purpose"),
        ("?purpose=order.status&purpose=order.status", "", "repeated_parameter"),
        ("?purpose=order.status", "", None),
        ("", "order.status:v2", None),
        ("?purpose=order.status", "order.status", None),
    ],
)
def test_a_brand_that_demands_a_purpose_gets_one(ready: Bot, query: str, header: str, code: str | None) -> None:
    Brand.objects.update(token_read_purpose_required=True)
    assert read(ready, query, header) == ((422, code) if code else (200, None))


def test_authorize_is_a_read_too(ready: Bot) -> None:
    """Its body's purpose is for the consumer; what the bot reads for is named by the header."""
    Brand.objects.update(token_read_purpose_required=True)
    assert read(ready, authorize=True) == (422, "purpose_required")
    assert read(ready, header="NO", authorize=True) == (422, "invalid_purpose")
    assert read(ready, header="order.status", authorize=True) == (200, None)


def test_no_purpose_is_needed_where_none_is_demanded_but_a_wrong_one_is_refused(ready: Bot) -> None:
    assert (read(ready), read(ready, "?purpose=%20")) == ((200, None), (422, "invalid_purpose"))


def test_reads_are_added_up_once_a_minute_by_purpose_and_hour(ready: Bot, clock: Any) -> None:
    """A read writes nothing; the one that finds the minute over writes for all."""
    for header in ("a", "a", "b", ""):
        read(ready, header=header)
    assert counted() == {}
    clock.shift(timedelta(seconds=60))
    read(ready, header="a")
    assert counted() == {("a", HOUR): 3, ("b", HOUR): 1, ("", HOUR): 1}
    clock.move_to(HOUR + timedelta(hours=1))
    read(ready, header="a")
    read(ready, header="a")
    read_counts.flush()
    assert counted()["a", HOUR] == 3
    assert counted()["a", HOUR + timedelta(hours=1)] == 2


def test_an_hour_is_one_count_to_its_last_microsecond(ready: Bot, clock: Any) -> None:
    for moment in (START, START + timedelta(minutes=4, microseconds=567), HOUR + timedelta(hours=1, microseconds=-1)):
        clock.move_to(moment)
        read(ready, header="a")
    read_counts.flush()
    assert counted() == {("a", HOUR): 3}


def test_a_refused_read_is_not_counted(ready: Bot) -> None:
    read(ready, header="NO")
    read(ready, "?min_ttl=9999")
    ready.in_chat("DELETE", "/token")
    read(ready)
    read_counts.flush()
    assert counted() == {}


def test_the_common_read_writes_nothing(ready: Bot) -> None:
    read(ready)
    with CaptureQueriesContext(connection) as queries:
        read(ready, header="a")
    assert len(queries) == 1


def test_a_bot_that_makes_up_purposes_does_not_make_rows_of_them(ready: Bot) -> None:
    for number in range(60):
        read(ready, header=f"made-up-{number}")
    read_counts.flush()
    assert len(counted()) == 51
    assert counted()["(other)", HOUR] == 10


def test_made_up_purposes_are_limited_in_an_hour_and_not_in_each_minute_of_it(ready: Bot, clock: Any) -> None:
    for number in range(60):
        read(ready, header=f"made-up-{number}")
    clock.shift(timedelta(minutes=1))
    read(ready, header="made-up-0")
    read(ready, header="made-up-a-minute-later")
    read_counts.flush()
    assert len(counted()) == 51
    assert (counted()["made-up-0", HOUR], counted()["(other)", HOUR]) == (2, 11)


@pytest.mark.parametrize("lost", [DatabaseError, InterfaceError])
def test_what_could_not_be_added_up_is_added_up_later(
    ready: Bot, monkeypatch: pytest.MonkeyPatch, lost: type[Exception]
) -> None:
    """The database's trouble with a counter fails no read. The bug: a closed connection's is no DatabaseError."""

    def trouble(*_: Any) -> None:
        raise lost

    read(ready, header="a")
    with monkeypatch.context() as patched:
        patched.setattr(read_counts, "_store", trouble)
        read_counts.flush()
    assert counted() == {}
    read_counts.flush()
    assert counted() == {("a", HOUR): 1}


def test_what_is_read_while_the_database_is_in_trouble_is_counted_beside_what_was_read_before(
    ready: Bot, caplog: pytest.LogCaptureFixture
) -> None:
    """Other threads go on reading, and their counts are not lost to those that are given back."""
    key = BotKey.objects.get()

    def trouble(execute: Any, sql: str, *arguments: Any) -> Any:
        if "INSERT INTO conversations_tokenreadcount" not in sql:
            return execute(sql, *arguments)
        read_counts.count_read(key.pk, "b", START)
        raise DatabaseError

    read(ready, header="a")
    with connection.execute_wrapper(trouble):
        read_counts.flush()
    (noted,) = [line for line in caplog.records if line.name == "consumer_delegation.read_counts"]
    assert noted.getMessage() == "token read counts could not be stored; another try follows in a minute"
    read_counts.flush()
    assert counted() == {("a", HOUR): 1, ("b", HOUR): 1}


def test_what_was_read_in_the_hour_before_is_added_to_that_hour(ready: Bot, clock: Any) -> None:
    """A process that ends after the hour has nothing of the new one to compare."""
    read(ready, header="a")
    clock.move_to(HOUR + timedelta(hours=1))
    read_counts.flush()
    assert counted() == {("a", HOUR): 1}
    assert warnings() == []


def count_of(hours_ago: int, times: int, purpose: str = "") -> None:
    key = BotKey.objects.get(brand__slug="acme")
    TokenReadCount.objects.create(bot_key=key, hour=HOUR - timedelta(hours=hours_ago), purpose=purpose, times=times)


def warnings() -> list[tuple[str, Any, Any]]:
    events = AuditEvent.objects.filter(kind="token.reads_unusual")
    return [(event.outcome, event.brand_uuid, event.object_uuid) for event in events]


@pytest.mark.parametrize(
    ("before", "now", "warned"),
    [
        ({}, 599, False),
        ({}, 600, True),
        ({1: 2400}, 999, False),
        ({1: 2400}, 1000, True),
        ({24: 2400}, 999, False),
        ({25: 2400}, 600, True),
    ],
)
def test_far_more_reads_than_usual_are_a_warning(
    ready: Bot, before: dict[int, int], now: int, warned: bool, caplog: Any
) -> None:
    """More than 600 in the hour, and more than ten times the mean of the 24 hours before."""
    for hours_ago, times in before.items():
        count_of(hours_ago, times)
    count_of(0, now - 100, "other")
    count_of(0, 100)
    read(ready)
    read_counts.flush()
    key = BotKey.objects.get()
    assert warnings() == ([(str(now + 1), key.brand.uuid, key.uuid)] if warned else [])
    lines = [line for line in caplog.records if line.levelno == logging.WARNING and line.msg == "token.reads_unusual"]
    assert len(lines) == warned


def test_a_warning_comes_once_for_each_key_and_hour(ready: Bot, clock: Any) -> None:
    count_of(0, 1000)
    for _ in range(3):
        clock.shift(timedelta(minutes=1))
        read(ready)
        read_counts.flush()
    assert len(warnings()) == 1
    clock.move_to(HOUR + timedelta(hours=1, minutes=1))
    count_of(-1, 11 * 1003)
    read(ready)
    read_counts.flush()
    assert len(warnings()) == 2


def test_a_warning_names_one_key_and_the_moment_and_is_no_other_keys(
    ready: Bot, rival: Brand, caplog: pytest.LogCaptureFixture
) -> None:
    make_bot(rival)
    count_of(0, 1000)
    read(ready)
    read_counts.flush(START + timedelta(minutes=1))
    key = BotKey.objects.get(brand__slug="acme")
    event = AuditEvent.objects.get(kind="token.reads_unusual")
    assert (event.at, event.actor, event.outcome) == (START + timedelta(minutes=1), "system", "1001")
    assert (event.brand_uuid, event.object_uuid) == (key.brand.uuid, key.uuid)
    (line,) = [vars(line) for line in caplog.records if line.name == "consumer_delegation.read_counts"]
    assert (line["brand_uuid"], line["object_uuid"], line["reads"]) == (str(key.brand.uuid), str(key.uuid), 1001)
    marked = {key.brand.slug: key.reads_unusual_at for key in BotKey.objects.select_related("brand")}
    assert marked == {"acme": START + timedelta(minutes=1), "rival": None}


def test_another_keys_reads_are_its_own(ready: Bot, rival: Brand) -> None:
    count_of(0, 1000)
    make_bot(rival)
    read_counts.flush()
    assert warnings() == []


def test_counts_are_kept_for_90_days(ready: Bot, clock: Any) -> None:
    count_of(0, 1)
    clock.move_to(HOUR + timedelta(days=90))
    sweep(datetime.now(UTC))
    assert len(counted()) == 1
    sweep(datetime.now(UTC) + timedelta(seconds=1))
    assert counted() == {}


@pytest.mark.django_db(transaction=True)
def test_two_processes_add_to_the_same_count(ready: Bot) -> None:
    """One statement: neither takes the other's away."""
    for _ in range(2):
        read(ready, header="a")
        read_counts.flush()
    assert counted() == {("a", HOUR): 2}
