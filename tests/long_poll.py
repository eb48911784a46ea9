"""Bots that wait: each in a thread of its own. For `django_db(transaction=True)` tests."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from django.db import connections

from conversations.api.waiting import waiters_now
from tests.cast import Bot

# Shorter than the wait itself: an answer that only came because the time was over is none.
_PATIENCE: Final = 15


@dataclass(frozen=True)
class Polled:
    """A long poll under way."""

    future: "Future[Any]"

    def done(self) -> bool:
        """Tell whether it was answered."""
        return self.future.done()

    def result(self) -> Any:
        """Return the response; fails where it was not answered before its time."""
        return self.future.result(timeout=_PATIENCE)


def poll(bot: Bot, challenge: dict[str, Any], seconds: int = 25, tag: str = "") -> Any:
    """Read the challenge with `wait`, and with what the bot has seen of it; return the whole response."""
    headers = {"If-None-Match": tag} if tag else {}
    return bot.send("GET", f"/challenges/{challenge['challenge_id']}?wait={seconds}", **headers)


@contextmanager
def waiting(bot: Bot, challenge: dict[str, Any], tag: str = "") -> Iterator[Polled]:
    """Run the block while one more long poll waits; it ends once that is answered and nobody watches any more."""

    def call() -> Any:
        try:
            return poll(bot, challenge, tag=tag)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(max_workers=1) as threads:
        before = waiters_now()
        answer = Polled(threads.submit(call))
        until(lambda: waiters_now() > before or answer.done())
        assert not answer.done(), answer.result().content
        yield answer
    if not before:
        until(lambda: "long-poll" not in {thread.name for thread in threading.enumerate()})


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that is about to happen; fail where it does not."""
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)
