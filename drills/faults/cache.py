"""Faults of Redis: gone, closed by another password, full."""

import time
from typing import Final

import redis

from drills.promises import Drill
from drills.proofs import fails_with
from drills.stage import Stage, wait_until

_SECONDS: Final = 12
_PASSWORD: Final = "another one"
_PROMISE: Final = "no error: limits are counted in each process; used again without a restart"


def _client(stage: Stage) -> redis.Redis:
    return redis.Redis(unix_socket_path=str(stage.redis_socket))


def gone(stage: Stage) -> None:
    """Killed, and started again."""
    stage.redis.end()
    stage.prove("connections refused", holds=fails_with(redis.ConnectionError, _client(stage).ping))
    time.sleep(_SECONDS)
    stage.redis.start()
    if not wait_until(stage.redis_socket.exists, 20):
        raise RuntimeError("Redis did not start again")


def wrong_password(stage: Stage) -> None:
    """It wants a password that `REDIS_URL` does not have, also on open connections."""
    with _client(stage) as client:
        client.config_set("requirepass", _PASSWORD)
        client.client_kill_filter(_type="normal", skipme=True)
        stage.prove("a password is wanted", holds=fails_with(redis.AuthenticationError, _client(stage).ping))
        time.sleep(_SECONDS)
        client.config_set("requirepass", "")


def full(stage: Stage) -> None:
    """No memory is left, and it evicts nothing: it answers reads and refuses writes."""
    with _client(stage) as client:
        client.config_set("maxmemory", 1)
        stage.prove("writes are refused", holds=fails_with(redis.OutOfMemoryError, lambda: client.set("much", "more")))
        time.sleep(_SECONDS)
        client.config_set("maxmemory", 0)


DRILLS: Final = (
    Drill(name="redis_gone", promise=_PROMISE, inject=gone),
    Drill(name="redis_wrong_password", promise=_PROMISE, inject=wrong_password),
    Drill(name="redis_full", promise=_PROMISE, inject=full),
)
