"""Redis that cannot be used: whatever its state, everybody gets in, limits go on, and the log says once what it is."""

import logging
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import time_machine
from django.core.cache import cache
from redis import Redis

from infrastructure import rate_limits
from infrastructure.rate_limits import Limit, RateLimited
from tests import redis_server
from tests.concurrency import at_once
from tests.site.test_sign_in import SignIn

FIVE = Limit("test", 5, 600)
NOON = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
PLANTED = "PLANTED-password"


def use_redis(settings: Any, url: str) -> None:
    settings.REDIS_URL = url
    settings.CACHES = {
        "default": {
            "BACKEND": "infrastructure.cache.RedisOrMemoryCache",
            "LOCATION": [url],
            "KEY_PREFIX": "consumer-delegation",
        },
    }


def passes(subject: str = "ada") -> bool:
    try:
        rate_limits.count(FIVE, subject)
    except RateLimited:
        return False
    return True


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "consumer_delegation.redis"]


class Servers:
    """Starts servers that end with the test."""

    def __init__(self, executable: Path, stack: ExitStack) -> None:
        self.executable, self.stack = executable, stack

    def redis(self, *options: str) -> str:
        # A socket's path has at most 107 characters; pytest's own folders are longer.
        folder = self.stack.enter_context(tempfile.TemporaryDirectory())
        return self.stack.enter_context(redis_server.running(self.executable, Path(folder), *options))

    def saying(self, answer: bytes) -> str:
        return self.stack.enter_context(redis_server.saying(answer))


@pytest.fixture
def servers(requires_redis: Path) -> Iterator[Servers]:
    with ExitStack() as stack:
        yield Servers(requires_redis, stack)


def with_password(url: str, password: str) -> str:
    return url.replace("://", f"://:{password}@")


def without_permission(url: str) -> str:
    with Redis.from_url(url) as client:
        client.acl_setuser("default", enabled=True, nopass=True, keys="*", commands=["+@all", "-set"])
    return url


STATES: dict[str, tuple[Any, str]] = {
    "refusing": (lambda _: f"redis://:{PLANTED}@127.0.0.1:1/0", "it cannot be reached"),
    "hanging": (lambda servers: servers.saying(b""), "it does not answer in time"),
    "no socket": (lambda _: "unix:///nowhere/redis.sock", "it cannot be reached"),
    "no password": (lambda servers: servers.redis("--requirepass", "right"), "WRONGPASS, NOAUTH"),
    "wrong password": (
        lambda servers: with_password(servers.redis("--requirepass", "right"), PLANTED), "WRONGPASS, NOAUTH",
    ),
    "no permission": (
        lambda servers: without_permission(servers.redis()), "NOPERM",
    ),
    "read-only replica": (lambda servers: servers.redis("--replicaof", "127.0.0.1", "1"), "READONLY"),
    "stale replica": (
        lambda servers: servers.saying(b"-MASTERDOWN Link with MASTER is down\r\n"), "MASTERDOWN",
    ),
    "full": (lambda servers: servers.redis("--maxmemory", "1", "--maxmemory-policy", "noeviction"), "OOM"),
    "cannot save": (lambda servers: servers.saying(b"-MISCONF Redis is configured to save\r\n"), "MISCONF"),
    "too few replicas": (lambda servers: servers.redis("--min-replicas-to-write", "1"), "NOREPLICAS"),
    "loading": (lambda servers: servers.saying(b"-LOADING Redis is loading the dataset in memory\r\n"), "LOADING"),
    "moved": (lambda servers: servers.saying(b"-MOVED 3999 127.0.0.1:6381\r\n"), "MOVED"),
    "a cluster without slots": (lambda servers: servers.redis("--cluster-enabled", "yes"), "CLUSTERDOWN"),
    "no such database": (lambda servers: f"{servers.redis()}?db=99", "no database with the number"),
    "a command that it does not know": (
        lambda servers: with_password(servers.saying(b"-ERR unknown command 'AUTH' 'PLANTED-password'\r\n"), PLANTED),
        "it refuses our commands",
    ),
    "a web server": (lambda servers: servers.saying(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "speak the Redis protocol"),
    "something else": (lambda servers: servers.saying(b":PLANTED-password\r\n"), "speak the Redis protocol"),
    "TLS that is none": (
        lambda servers: servers.saying(b"+OK\r\n").replace("redis://", "rediss://"), "no TLS connection",
    ),
}  # fmt: skip


@pytest.mark.django_db
@pytest.mark.parametrize("state", STATES)
@time_machine.travel(NOON, tick=False)
def test_what_is_wrong_with_redis_is_said_once_and_limits_go_on(
    servers: Servers, settings: Any, caplog: pytest.LogCaptureFixture, state: str
) -> None:
    """G8, H1. The bugs: a 500 for allauth's limits; one text for every state, and a line for each five seconds."""
    start, words = STATES[state]
    use_redis(settings, start(servers))
    caplog.set_level(logging.INFO)
    assert [passes() for _ in range(6)] == [True] * 5 + [False]
    cache.set("history", [1.0, 2.0], timeout=60)
    assert cache.get("history") == [1.0, 2.0]
    (line,) = lines(caplog)
    assert words in line
    pool = cache._cache.get_client().connection_pool  # type: ignore[attr-defined]
    assert PLANTED not in caplog.text + repr(cache) + repr(cache._cache) + repr(pool)  # type: ignore[attr-defined]


def test_a_host_that_is_not_known_is_said(
    settings: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_known(*_: Any, **__: Any) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", not_known)
    use_redis(settings, "redis://redis.example/0")
    assert cache.get("history") is None
    assert ["the host name in REDIS_URL is not known" in line for line in lines(caplog)] == [True]


@pytest.mark.parametrize("state", ["read-only replica", "full", "refusing", "hanging"])
def test_what_was_counted_in_memory_holds_until_redis_takes_writes_again(
    servers: Servers, settings: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """G10. A replica answers reads, and knows nothing of five wrong passwords: five seconds would free the sixth."""
    use_redis(settings, STATES[state][0](servers))
    monkeypatch.setattr("infrastructure.cache._SECONDS_WITHOUT_REDIS", 0)
    for number in range(1, 6):
        history = [*cache.get("history", []), float(number)]
        cache.set("history", history, timeout=60)
    assert cache.get("history") == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert len(lines(caplog)) == 1


@pytest.mark.django_db
@pytest.mark.parametrize("state", ["refusing", "hanging", "no password", "read-only replica", "full", "moved"])
def test_an_admin_signs_in_whatever_redis_does(
    servers: Servers, settings: Any, acme_admin: Any, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """G10. The bug: a 500 of allauth's limits. They go on: after five wrong passwords the right one waits, too."""
    use_redis(settings, STATES[state][0](servers))
    assert SignIn().sign_in()["Location"] == "/admin/"
    monkeypatch.setattr("infrastructure.cache._SECONDS_WITHOUT_REDIS", 0)
    for _ in range(5):
        assert "not correct" in SignIn().sign_in(password="wrong").content.decode()
    assert "Too many failed login attempts" in SignIn().sign_in().content.decode()


def test_redis_is_used_again_once_it_takes_writes(
    servers: Servers, settings: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G8: without a restart, and said."""
    caplog.set_level(logging.INFO)
    use_redis(settings, url := servers.redis("--maxmemory", "1", "--maxmemory-policy", "noeviction"))
    with time_machine.travel(NOON, tick=False):
        assert passes()
        with Redis.from_url(url) as client:
            client.config_set("maxmemory", "0")
            assert passes()
            assert client.dbsize() == 0
            monkeypatch.setattr("infrastructure.cache.time", _Later(6))
            assert passes()
            assert client.dbsize() == 2  # the counter and the probe
    assert ["OOM" in line for line in lines(caplog)] == [True, False]
    assert lines(caplog)[1] == "Redis is used again."


class _Later:
    """A clock that is some seconds ahead."""

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds

    def monotonic(self) -> float:
        return time.monotonic() + self.seconds


def test_of_many_threads_one_waits_for_a_redis_that_hangs(
    servers: Servers, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G8: the others go on at once."""
    asked: list[str] = []
    use_redis(settings, servers.saying(b""))
    cache.get("history")
    monkeypatch.setattr("infrastructure.cache.time", _Later(6))
    send = Redis.execute_command

    def noted(client: Any, *arguments: Any, **options: Any) -> Any:
        asked.append(arguments[0])
        return send(client, *arguments, **options)

    monkeypatch.setattr(Redis, "execute_command", noted)
    at_once(16, lambda _: cache.get("history"))
    assert asked == ["SET"]


@pytest.mark.parametrize(
    ("operation", "answer"),
    [
        (lambda: cache.add("new", 1), True),
        (lambda: cache.get("key"), 7),
        (lambda: cache.get_or_set("new", 3), 3),
        (lambda: cache.touch("key", 60), True),
        (lambda: cache.delete("key"), True),
        (lambda: cache.get_many(["key", "none"]), {"key": 7}),
        (lambda: cache.has_key("key"), True),
        (lambda: cache.incr("key", 2), 9),
        (lambda: cache.decr("key"), 6),
        (lambda: cache.set_many({"key": 1, "new": 2}), []),
        (lambda: cache.delete_many(["key"]), None),
    ],
)
@pytest.mark.parametrize("state", ["used", "refusing"])
def test_each_operation_works_with_redis_and_without(
    servers: Servers, settings: Any, state: str, operation: Any, answer: Any
) -> None:
    use_redis(settings, servers.redis() if state == "used" else "redis://127.0.0.1:1/0")
    cache.set("key", 7)
    assert operation() == answer


@pytest.mark.parametrize("state", ["used", "refusing"])
def test_it_can_be_cleared_with_redis_and_without(servers: Servers, settings: Any, state: str) -> None:
    use_redis(settings, servers.redis() if state == "used" else "redis://127.0.0.1:1/0")
    cache.set("key", 7)
    cache.clear()
    assert cache.get("key") is None


@pytest.mark.parametrize("state", ["used", "refusing"])
def test_a_counter_that_is_not_there_is_no_failure_of_redis(
    servers: Servers, settings: Any, caplog: pytest.LogCaptureFixture, state: str
) -> None:
    use_redis(settings, servers.redis() if state == "used" else "redis://127.0.0.1:1/0")
    with pytest.raises(ValueError, match="nothing"):
        cache.incr("nothing")
    assert len(lines(caplog)) == (state == "refusing")


def test_a_password_with_a_comma_names_one_server(servers: Servers, settings: Any) -> None:
    """The bug: Django splits a text at commas and semicolons."""
    url = servers.redis("--requirepass", "a,b;c")
    use_redis(settings, with_password(url, "a,b;c"))
    assert cache.add("key", 1)
    with Redis.from_url(with_password(url, "a,b;c")) as client:
        assert client.dbsize() == 1
