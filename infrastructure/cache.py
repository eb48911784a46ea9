"""Cache backend: Redis, with a fallback to process memory while Redis is unavailable.

Our rate limits (`rate_limits.py`) and those of allauth are counted here. One circuit breaker serves all threads. After
an error it skips Redis for five seconds, because every request would otherwise wait for a timeout. Then one thread
probes with a *write*. Only a successful write closes the breaker: a read-only replica or a full Redis still answers
reads, but with counters that miss what was counted in memory.

Log lines describe the cause in our own words. A Redis error can repeat its input, which may contain the password.
"""

import logging
import re
import ssl
import time
from collections.abc import Callable
from socket import gaierror
from threading import Lock
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from django.core.cache.backends.locmem import LocMemCache
from django.core.cache.backends.redis import RedisCache, RedisCacheClient
from redis import ConnectionPool, exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from infrastructure import metrics

_SECONDS_WITHOUT_REDIS: Final = 5
_SECONDS_TO_ANSWER: Final = 0.5
_MOST_KEPT_IN_PROCESS: Final = 20_000
_PROBE: Final = "consumer-delegation:probe"
_SCHEMES: Final = ("redis://", "rediss://", "unix://")
_WRITTEN: Final = re.compile(r"[!-~]+")
_HOST: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,251}[A-Za-z0-9_.])?|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")
_NUMBER: Final = re.compile("[0-9]{1,9}")
_OPTION: Final = re.compile("db|ssl_[a-z_]+")
# redis-py raises ValueError and IndexError if the peer does not speak the Redis protocol.
_FAILURES: Final = (exceptions.RedisError, OSError, ValueError, IndexError)

logger = logging.getLogger("consumer_delegation.redis")

# The first matching class wins. `_BY_FIRST_WORD` is tried before this table.
_CAUSES: Final[tuple[tuple[type[Exception], str], ...]] = (
    (exceptions.NoPermissionError, "the user in REDIS_URL may not use its commands or keys (NOPERM)"),
    (exceptions.AuthorizationError, "the user in REDIS_URL may not use its commands or keys (NOPERM)"),
    (exceptions.AuthenticationError, "the password or user in REDIS_URL is wrong or missing (WRONGPASS, NOAUTH)"),
    (exceptions.AuthenticationWrongNumberOfArgsError, "the password or user in REDIS_URL is wrong or missing"),
    (exceptions.ReadOnlyError, "it is a read-only replica (READONLY); REDIS_URL must name the primary"),
    (exceptions.OutOfMemoryError, "its memory is full (OOM); raise maxmemory or let it evict keys"),
    (exceptions.BusyLoadingError, "it is still loading its data (LOADING)"),
    (exceptions.MasterDownError, "it is a replica that has lost its primary (MASTERDOWN)"),
    (exceptions.ClusterDownError, "its cluster is down (CLUSTERDOWN)"),
    (exceptions.AskError, "it is a node of a cluster (MOVED); REDIS_URL must name a single server"),
    (exceptions.InvalidResponse, "the server does not speak the Redis protocol"),
    (exceptions.TimeoutError, "it does not answer in time"),
    (exceptions.ResponseError, "it refuses our commands"),
    (exceptions.ConnectionError, "it cannot be reached"),
    (OSError, "it cannot be reached"),
    (ValueError, "the server does not speak the Redis protocol"),
    (IndexError, "the server does not speak the Redis protocol"),
    (Exception, "its client failed"),
)
_BY_FIRST_WORD: Final = {
    "MISCONF": "it cannot save to its disk and refuses writes (MISCONF)",
    "NOREPLICAS": "it has too few replicas and refuses writes (NOREPLICAS)",
    "MASTERDOWN": "it is a replica that has lost its primary (MASTERDOWN)",
    "DB index": "it has no database with the number in REDIS_URL",
    "invalid DB": "it has no database with the number in REDIS_URL",
    "max number": "it has reached its limit of clients (maxclients)",
}


class CircuitBreaker:
    """Decides whether Redis is called. Logs an outage once for each cause, and the recovery once."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._not_before: float | None = None
        self._said = ""

    def call(self, in_redis: Callable[[], Any], in_memory: Callable[[], Any], probe: Callable[[], object]) -> Any:
        """Call `in_redis`, or `in_memory` if the breaker is open or Redis fails."""
        if not self._lets_through(probe):
            return in_memory()
        try:
            return in_redis()
        except _FAILURES as error:
            self._open(error)
            return in_memory()

    def forget(self) -> None:
        """Close the breaker."""
        with self._lock:
            self._not_before, self._said = None, ""

    def _lets_through(self, probe: Callable[[], object]) -> bool:
        with self._lock:
            if self._not_before is None:
                return True
            if time.monotonic() < self._not_before:
                return False
            # This thread probes. The other threads keep using memory until it is done.
            self._not_before = time.monotonic() + _SECONDS_WITHOUT_REDIS
        try:
            probe()
        except _FAILURES as error:
            self._open(error)
            return False
        self._close()
        return True

    def _open(self, error: Exception) -> None:
        metrics.count_redis_failure()
        cause = cause_of(error)
        with self._lock:
            self._not_before = time.monotonic() + _SECONDS_WITHOUT_REDIS
            said, self._said = self._said, cause
        if said != cause:
            logger.warning("Redis is not used: %s. Until it is back, limits are counted in each process.", cause)

    def _close(self) -> None:
        self.forget()
        logger.info("Redis is used again.")


def cause_of(error: BaseException) -> str:
    """Say why Redis is unavailable, without any text from the server or the address."""
    for inner in _with_its_causes(error):
        if isinstance(inner, gaierror):
            return "the host name in REDIS_URL is not known"
        if isinstance(inner, ssl.SSLError):
            return "no TLS connection to it can be made, or its certificate is not trusted"
    named = [words for beginning, words in _BY_FIRST_WORD.items() if str(error).startswith(beginning)]
    return (named or [words for kind, words in _CAUSES if isinstance(error, kind)])[0]


def _with_its_causes(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def address_mistake(address: str) -> str:
    """Say what is wrong with `REDIS_URL`; "" if it is valid. The text repeats no part of the URL.

    redis-py reads a missing host as localhost and an invalid database number as 0. It reports an unknown option only
    at the first request.
    """
    try:
        parts = urlsplit(address)
        port, host = parts.port, parts.hostname or ""
    except ValueError:
        return "its port is not a number, or its brackets do not match"
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    number = options.get("db", "0" if parts.scheme == "unix" else parts.path.removeprefix("/") or "0")
    found = {
        "it must begin with redis://, rediss:// or unix://": not address.startswith(_SCHEMES),
        "it contains a space or another character that must be percent-encoded": not _WRITTEN.fullmatch(address),
        "it must not contain a #": "#" in address,
        "it names no host": parts.scheme != "unix" and not _HOST.fullmatch(host),
        "it names a host; a socket's path begins with unix:///": parts.scheme == "unix" and bool(host),
        "it names no socket": parts.scheme == "unix" and parts.path in {"", "/"},
        "its port is not between 1 and 65535": port == 0,
        "its database is not a number": not _NUMBER.fullmatch(number),
        "only the options db and ssl_... are allowed": any(not _OPTION.fullmatch(name) for name in options),
    }
    return next((words for words, holds in found.items() if holds), "") or _unusable(address)


def _unusable(address: str) -> str:
    try:
        ConnectionPool.from_url(address).make_connection()  # opens no connection
    except (exceptions.RedisError, OSError, ValueError, TypeError):
        return "one of its options is invalid"
    return ""


breaker = CircuitBreaker()


def _or_in_memory(name: str) -> Any:
    in_redis, in_memory = getattr(RedisCacheClient, name), getattr(LocMemCache, name)

    def operation(client: "_Client", *arguments: Any) -> Any:
        return breaker.call(
            lambda: in_redis(client, *arguments), lambda: in_memory(client.memory, *arguments), client.probe
        )

    return operation


class _Client(RedisCacheClient):
    """Django's client behind the circuit breaker. It never retries: a repeated INCR would count twice."""

    def __init__(self, servers: list[str], **options: Any) -> None:
        super().__init__(
            servers,
            retry=Retry(NoBackoff(), 0),
            socket_connect_timeout=_SECONDS_TO_ANSWER,
            socket_timeout=_SECONDS_TO_ANSWER,
            **options,
        )
        self.memory = _memory()

    def probe(self) -> None:
        self.get_client(write=True).set(_PROBE, 1, ex=_SECONDS_WITHOUT_REDIS)

    def incr(self, key: Any, delta: int) -> int:
        """Add to a counter. Raises `ValueError` if the key is missing, as Django's caches do."""

        def in_redis() -> int | None:
            # Do not raise ValueError here: the breaker would treat it as a Redis failure.
            client = self.get_client(key, write=True)
            return client.incr(key, delta) if client.exists(key) else None

        reached: int | None = breaker.call(in_redis, lambda: self.memory.incr(key, delta), self.probe)
        if reached is None:
            raise ValueError(key)
        return reached

    add = _or_in_memory("add")
    get = _or_in_memory("get")
    set = _or_in_memory("set")
    touch = _or_in_memory("touch")
    delete = _or_in_memory("delete")
    get_many = _or_in_memory("get_many")
    has_key = _or_in_memory("has_key")
    set_many = _or_in_memory("set_many")
    delete_many = _or_in_memory("delete_many")
    clear = _or_in_memory("clear")


class RedisOrMemoryCache(RedisCache):
    """Cache backend for `CACHES`, configured like Django's Redis backend. `LOCATION` is a list with one URL."""

    def __init__(self, server: list[str], params: dict[str, Any]) -> None:
        super().__init__(server, params)
        self._class = _Client


def reset_in_process() -> None:
    """Clear the memory fallback and close the breaker. Tests call it before each test."""
    breaker.forget()
    _memory().clear()


def _memory() -> LocMemCache:
    return LocMemCache("without-redis", {"OPTIONS": {"MAX_ENTRIES": _MOST_KEPT_IN_PROCESS}})
