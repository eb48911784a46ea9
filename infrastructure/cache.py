"""Django's cache in Redis, and in the memory of each process while Redis cannot be used.

Rate limits of ours (`rate_limits.py`) and of allauth count here. Circuit breaker, one for all threads: after an error
Redis is left alone for five seconds, since trying it again would cost every request a time-out. Then one thread tries a
*write*, and only its success brings Redis back: a read-only replica and a full Redis go on answering reads, and what is
read there knows nothing of what was counted in memory meanwhile.

The log names the cause in words of ours and never in the server's: Redis repeats what it does not understand, and the
password can be part of that.
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

_SECONDS_WITHOUT_REDIS: Final = 5
_SECONDS_TO_ANSWER: Final = 0.5
_MOST_KEPT_IN_PROCESS: Final = 20_000
_PROBE: Final = "consumer-delegation:probe"
_SCHEMES: Final = ("redis://", "rediss://", "unix://")
_WRITTEN: Final = re.compile(r"[!-~]+")
_HOST: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,251}[A-Za-z0-9_.])?|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")
_NUMBER: Final = re.compile("[0-9]{1,9}")
_OPTION: Final = re.compile("db|ssl_[a-z_]+")
# ValueError and IndexError: what redis-py raises where something that is not Redis answers.
_FAILURES: Final = (exceptions.RedisError, OSError, ValueError, IndexError)

logger = logging.getLogger("consumer_delegation.redis")

# The first that fits; by class, else by the word with which the answer begins.
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
    (exceptions.InvalidResponse, "what answers there does not speak Redis' protocol"),
    (exceptions.TimeoutError, "it does not answer in time"),
    (exceptions.ResponseError, "it refuses our commands"),
    (exceptions.ConnectionError, "it cannot be reached"),
    (OSError, "it cannot be reached"),
    (ValueError, "what answers there does not speak Redis' protocol"),
    (IndexError, "what answers there does not speak Redis' protocol"),
    (Exception, "its client failed"),
)
_BY_FIRST_WORD: Final = {
    "MISCONF": "it cannot save to its disk and refuses writes (MISCONF)",
    "NOREPLICAS": "it has too few replicas and refuses writes (NOREPLICAS)",
    "MASTERDOWN": "it is a replica that has lost its primary (MASTERDOWN)",
    "DB index": "it has no database of the number in REDIS_URL",
    "invalid DB": "it has no database of the number in REDIS_URL",
    "max number": "it has as many clients as it allows (maxclients)",
}


class CircuitBreaker:
    """Decides whether Redis is asked, and says once what is wrong with it, and once that it is back."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._not_before: float | None = None
        self._said = ""

    def call(self, in_redis: Callable[[], Any], in_memory: Callable[[], Any], probe: Callable[[], object]) -> Any:
        """Return the answer of Redis, or of this process's memory where Redis cannot be used."""
        if not self._lets_through(probe):
            return in_memory()
        try:
            return in_redis()
        except _FAILURES as error:
            self._open(error)
            return in_memory()

    def forget(self) -> None:
        """Begin as a new process does."""
        with self._lock:
            self._not_before, self._said = None, ""

    def _lets_through(self, probe: Callable[[], object]) -> bool:
        with self._lock:
            if self._not_before is None:
                return True
            if time.monotonic() < self._not_before:
                return False
            # This thread tries; the others go on without Redis meanwhile.
            self._not_before = time.monotonic() + _SECONDS_WITHOUT_REDIS
        try:
            probe()
        except _FAILURES as error:
            self._open(error)
            return False
        self._close()
        return True

    def _open(self, error: Exception) -> None:
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
    """Return why Redis cannot be used, without a word of what the server or the address said."""
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
    """Return what keeps `REDIS_URL` from naming a Redis, empty where nothing does. No word repeats a part of it.

    redis-py itself reads a missing host as localhost and what is no number of a database as 0, and finds an option
    that it does not know when the first request needs it.
    """
    try:
        parts = urlsplit(address)
        port, host = parts.port, parts.hostname or ""
    except ValueError:
        return "its port is no number, or its brackets do not match"
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    number = options.get("db", "0" if parts.scheme == "unix" else parts.path.removeprefix("/") or "0")
    found = {
        "it must begin with redis://, rediss:// or unix://": not address.startswith(_SCHEMES),
        "it holds a space or another character that has to be percent-encoded": not _WRITTEN.fullmatch(address),
        "# and what follows has no meaning there": "#" in address,
        "it names no host": parts.scheme != "unix" and not _HOST.fullmatch(host),
        "it names a host; a socket's path begins with unix:///": parts.scheme == "unix" and bool(host),
        "it names no socket": parts.scheme == "unix" and parts.path in {"", "/"},
        "its port is not between 1 and 65535": port == 0,
        "the number of its database is no number": not _NUMBER.fullmatch(number),
        "its options may be db and those that begin with ssl_": any(not _OPTION.fullmatch(name) for name in options),
    }
    return next((words for words, holds in found.items() if holds), "") or _unusable(address)


def _unusable(address: str) -> str:
    try:
        ConnectionPool.from_url(address).make_connection()  # connects to nothing
    except (exceptions.RedisError, OSError, ValueError, TypeError):
        return "an option of it cannot be used"
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
    """Django's client; each operation goes through the breaker. No retries: INCR would count twice."""

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
        """Write to Redis. Raises what it answers."""
        self.get_client(write=True).set(_PROBE, 1, ex=_SECONDS_WITHOUT_REDIS)

    def incr(self, key: Any, delta: int) -> int:
        """Add to a counter. Raises `ValueError` where there is none, as Django's caches do."""

        def in_redis() -> int | None:
            # None and no ValueError yet: the breaker reads that as an answer that is not Redis'.
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
    """A cache backend for `CACHES`, to be set up as Django's own for Redis; `LOCATION` is a list of one address."""

    def __init__(self, server: list[str], params: dict[str, Any]) -> None:
        super().__init__(server, params)
        self._class = _Client


def forget_in_process() -> None:
    """Forget what this process counted without Redis, and that Redis was away; tests begin with neither."""
    breaker.forget()
    _memory().clear()


def _memory() -> LocMemCache:
    return LocMemCache("without-redis", {"OPTIONS": {"MAX_ENTRIES": _MOST_KEPT_IN_PROCESS}})
