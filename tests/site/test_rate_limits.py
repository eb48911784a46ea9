"""The counters behind every limit: exact, shared by all processes, and deaf to what a client claims (G8)."""

import re
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from django.core.cache import cache
from django.db import connection
from django.test import RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from redis import Redis

from infrastructure import rate_limits
from infrastructure.models import RateCounter
from infrastructure.rate_limits import Limit, RateLimited
from tests import redis_server
from tests.concurrency import at_once
from tests.site.test_cache import use_redis
from web.limits import client_address

FIVE = Limit("test", 5, 600)
NOON = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


def passes(limit: Limit, subject: str) -> bool:
    try:
        rate_limits.count(limit, subject)
    except RateLimited:
        return False
    return True


@pytest.fixture
def redis_url(requires_redis: Path) -> Iterator[str]:
    # A socket's path has at most 107 characters; pytest's own folders are longer.
    with tempfile.TemporaryDirectory() as folder, redis_server.running(requires_redis, Path(folder)) as url:
        yield url


@pytest.fixture
def with_redis(redis_url: str, settings: Any) -> None:
    use_redis(settings, redis_url)


@pytest.fixture(params=["database", "redis"])
def store(request: pytest.FixtureRequest) -> str:
    """Run the test on each store."""
    if request.param == "redis":
        request.getfixturevalue("with_redis")
    return str(request.param)


@pytest.mark.django_db
@time_machine.travel(NOON, tick=False)
def test_the_sixth_of_five_is_refused_until_the_window_ends(store: str) -> None:
    """G8: a whole number of seconds, after which the next one passes."""
    assert [passes(FIVE, "ada") for _ in range(7)] == [True] * 5 + [False] * 2
    with pytest.raises(RateLimited) as refused:
        rate_limits.count(FIVE, "ada")
    wait = refused.value.retry_after
    assert isinstance(wait, int)
    assert 1 <= wait <= 600
    with time_machine.travel(NOON + timedelta(seconds=wait - 1), tick=False):
        assert not passes(FIVE, "ada")
    with time_machine.travel(NOON + timedelta(seconds=wait), tick=False):
        assert passes(FIVE, "ada")


@pytest.mark.django_db
@time_machine.travel(NOON, tick=False)
def test_subjects_and_limits_do_not_share_a_counter(store: str) -> None:
    """G8: one address that is over a limit stops nobody else, and nothing else."""
    assert [passes(FIVE, "ada") for _ in range(6)][-1] is False
    assert passes(FIVE, "rita")
    assert passes(Limit("another", 5, 600), "ada")


@pytest.mark.django_db(transaction=True)
@time_machine.travel(NOON, tick=False)
def test_of_twenty_at_once_exactly_five_pass(store: str) -> None:
    """G8: counted exactly, whoever comes at the same moment."""
    assert sorted(at_once(20, lambda _: passes(FIVE, "ada"))) == [False] * 15 + [True] * 5


@pytest.mark.django_db(transaction=True)
@time_machine.travel(NOON, tick=False)
def test_another_process_counts_on(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """G8: what is counted is in the store; a process that has seen nothing yet refuses the sixth."""
    assert all(passes(FIVE, "ada") for _ in range(5))
    rate_limits.reset_in_process()
    assert not passes(FIVE, "ada")


@pytest.mark.django_db
@time_machine.travel(NOON, tick=False)
def test_a_flood_costs_one_write_more_than_the_limit() -> None:
    """G8: a process does not write for those whom it has refused already."""
    for _ in range(50):
        passes(FIVE, "ada")
    assert list(RateCounter.objects.values_list("times", flat=True)) == [6]


def passes_in_shares(limit: Limit, subject: str = "acme-bot") -> bool:
    try:
        rate_limits.count_in_shares(limit, subject)
    except RateLimited:
        return False
    return True


@pytest.mark.django_db
@time_machine.travel(NOON, tick=False)
def test_shares_let_through_as_many_as_the_limit_and_write_once_for_each_share(store: str) -> None:
    """G8: the last share has fewer; a refused window is not written to again."""
    limit = Limit("test", 1_101, 60)  # shares of five
    with CaptureQueriesContext(connection) as asked:
        assert [passes_in_shares(limit) for _ in range(1_110)] == [True] * 1_101 + [False] * 9
    assert len(asked) == (222 if store == "database" else 0)
    assert passes_in_shares(limit, "rival-bot")


@pytest.mark.django_db(transaction=True)
@time_machine.travel(NOON, tick=False)
def test_threads_that_take_shares_at_once_let_through_no_more_than_the_limit(store: str) -> None:
    """G8: two threads that find no share left each take one."""
    limit = Limit("test", 400, 60)  # shares of two
    passed = at_once(8, lambda _: sum(passes_in_shares(limit) for _ in range(80)))
    assert sum(passed) == 400


@pytest.mark.django_db
@time_machine.travel(NOON, tick=False)
def test_a_process_that_ends_takes_the_rest_of_its_share_with_it(store: str) -> None:
    """G8: never more than the limit in all processes together, and less by at most a share for each process."""
    limit = Limit("test", 1_000, 60)  # shares of five
    passed = 0
    for _ in range(300):
        rate_limits.reset_in_process()
        passed += sum(passes_in_shares(limit) for _ in range(3))
    assert passed == 600


@pytest.mark.django_db
def test_a_share_ends_with_its_window() -> None:
    """G8: what is left of it is of no use in the next window, nor in an earlier one if the clock is set back."""
    limit = Limit("test", 1_000, 60)
    with time_machine.travel(NOON, tick=False) as clock:
        assert passes_in_shares(limit)
        for minutes in (1, -2):
            clock.shift(timedelta(minutes=minutes))
            assert [passes_in_shares(limit) for _ in range(1_001)] == [True] * 1_000 + [False]


@pytest.mark.django_db
def test_a_share_that_the_store_grants_late_counts_in_its_own_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """G8. The bug: its window seemed to last as much longer as the answer took, and let four more through."""
    limit, added = Limit("test", 1_000, 60), rate_limits._added
    with time_machine.travel(NOON, tick=False) as clock:

        def late(windows: list[Any], times: int) -> list[int]:
            reached = list(added(windows, times))
            clock.shift(timedelta(seconds=windows[0].seconds_left))
            return reached

        with monkeypatch.context() as patched:
            patched.setattr(rate_limits, "_added", late)
            assert passes_in_shares(limit)
        assert [passes_in_shares(limit) for _ in range(1_001)] == [True] * 1_000 + [False]


@pytest.mark.django_db
@time_machine.travel(NOON, tick=False)
def test_a_limit_that_the_operator_narrows_counts_at_once() -> None:
    """G12: what is left of a share of the wider limit is not used any more."""
    assert [passes_in_shares(Limit("test", 6_000, 60)) for _ in range(3)] == [True] * 3
    assert not passes_in_shares(Limit("test", 10, 60))


@pytest.mark.django_db
def test_no_subject_is_stored() -> None:
    """G8, K1: neither an address nor a link token can be read from the counters, nor tried out without our key."""
    rate_limits.count(FIVE, "203.0.113.7")
    (key,) = RateCounter.objects.values_list("key", flat=True)
    assert re.fullmatch("[0-9a-f]{64}:[0-9]+", key)


@pytest.mark.django_db
def test_windows_that_are_over_are_swept_and_the_others_stay() -> None:
    """G8: in chunks; a counter never outlives its window by more than the sweep's minute."""
    with time_machine.travel(NOON, tick=False):
        for number in range(7):
            rate_limits.count(FIVE, f"long ago {number}")
    rate_limits.count(FIVE, "now")
    assert rate_limits.sweep(timezone.now(), chunk=3) == 7
    assert RateCounter.objects.count() == 1


@time_machine.travel(NOON, tick=False)
def test_in_process_limits_touch_no_store(django_assert_num_queries: Any) -> None:
    """G8: a token read writes nothing. Without `django_db` a query would fail this test."""
    for _ in range(5):
        rate_limits.count_in_process(FIVE, "key")
    with pytest.raises(RateLimited):
        rate_limits.count_in_process(FIVE, "key")
    rate_limits.count_in_process(Limit("another", 5, 60), "key")


def test_the_memory_of_a_process_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """G8: a flood of subjects is no flood of memory."""
    monkeypatch.setattr(rate_limits, "_MOST_KEPT_IN_PROCESS", 10)
    for number in range(100):
        rate_limits.count_in_process(FIVE, f"subject {number}")
    assert len(rate_limits._memory._counters) <= 10


def test_a_process_without_room_forgets_what_is_over_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """G8: whoever fills the memory does not free everybody else of their limits."""
    monkeypatch.setattr(rate_limits, "_MOST_KEPT_IN_PROCESS", 10)
    with time_machine.travel(NOON, tick=False) as clock:
        for number in range(9):
            rate_limits.count_in_process(FIVE, f"subject {number}")
        clock.shift(timedelta(seconds=601))
        for _ in range(5):
            rate_limits.count_in_process(FIVE, "ada")
        rate_limits.count_in_process(FIVE, "rita")
        with pytest.raises(RateLimited):
            rate_limits.count_in_process(FIVE, "ada")
    assert len(rate_limits._memory._counters) == 2


@time_machine.travel(NOON, tick=False)
def test_without_redis_each_process_counts_alone(settings: Any, caplog: pytest.LogCaptureFixture) -> None:
    """G8: neither open nor closed; said once, and the next requests do not wait for it."""
    use_redis(settings, "redis://127.0.0.1:1/0")
    assert [passes(FIVE, "ada") for _ in range(6)] == [True] * 5 + [False]
    assert len([record for record in caplog.records if record.name == "consumer_delegation.redis"]) == 1


def test_a_counter_that_redis_lost_between_two_commands_begins_anew(
    with_redis: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The window, or Redis's memory, ended there: nobody is refused for it, and nothing fails."""
    keep = Redis.set

    def lose(client: Any, key: str, *arguments: Any, **options: Any) -> Any:
        kept = keep(client, key, *arguments, **options)
        client.delete(key)
        return kept

    monkeypatch.setattr(Redis, "set", lose)
    assert [passes(FIVE, "ada") for _ in range(6)] == [True] * 6


def test_redis_holds_counters_only_as_long_as_their_window(with_redis: None) -> None:
    """G8: nothing has to sweep there."""
    rate_limits.count(FIVE, "ada")
    client = cache._cache.get_client()  # type: ignore[attr-defined]
    (key,) = client.keys("*")
    assert 0 < client.ttl(key) <= 601


@pytest.mark.parametrize(
    ("trusted", "forwarded", "expected"),
    [
        (0, None, "198.51.100.1"),
        (0, "203.0.113.7", "198.51.100.1"),
        (1, None, "198.51.100.1"),
        (1, "203.0.113.7", "203.0.113.7"),
        (1, "10.9.9.9, 203.0.113.7", "203.0.113.7"),
        (2, "10.9.9.9, 203.0.113.7, 192.0.2.1", "203.0.113.7"),
        (2, "203.0.113.7", "198.51.100.1"),
        (1, "203.0.113.7:51234", "203.0.113.7"),
        (1, "nonsense", "198.51.100.1"),
        (1, "203.0.113.7,", "198.51.100.1"),
        (1, "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        (1, "[2001:db8:1:2:3:4:5:6]:443", "2001:db8:1:2::/64"),
        (1, "::ffff:203.0.113.7", "203.0.113.7"),
    ],
)
def test_the_address_is_what_our_own_proxies_saw(
    settings: Any, trusted: int, forwarded: str | None, expected: str
) -> None:
    """G8: counted from the right, so that nothing a client writes itself is believed; of IPv6 the /64 network."""
    settings.TRUSTED_PROXY_COUNT = trusted
    headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}
    request = RequestFactory().get("/", headers=headers, REMOTE_ADDR="198.51.100.1")
    assert client_address(request) == expected


def test_a_connection_without_an_address_is_one_subject() -> None:
    """G8: behind a Unix socket, with no proxy trusted."""
    assert client_address(RequestFactory().get("/", REMOTE_ADDR="")) == ""
