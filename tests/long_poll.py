"""Bots that wait, each in its own thread. For `django_db(transaction=True)` tests."""

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

# Shorter than the wait itself: an answer that came only because the wait was over does not count.
_PATIENCE: Final = 15


@dataclass(frozen=True)
class Polled:
    """A running long poll."""

    future: "Future[Any]"

    def done(self) -> bool:
        """Whether it was answered."""
        return self.future.done()

    def result(self) -> Any:
        """The response. Fails if it does not come in time."""
        return self.future.result(timeout=_PATIENCE)


def poll(bot: Bot, challenge: dict[str, Any], seconds: int = 25, tag: str = "") -> Any:
    """Read the challenge with `wait`, and with the entity tag that the bot has. Returns the response."""
    headers = {"If-None-Match": tag} if tag else {}
    return bot.send("GET", f"/challenges/{challenge['challenge_id']}?wait={seconds}", **headers)


@contextmanager
def polling(bot: Bot, challenge: dict[str, Any], tag: str = "") -> Iterator[Polled]:
    """Run the block while a long poll is on its way, whether it may wait or not. Ends when it was answered."""

    def call() -> Any:
        try:
            return poll(bot, challenge, tag=tag)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(max_workers=1) as threads:
        yield Polled(threads.submit(call))


@contextmanager
def waiting(bot: Bot, challenge: dict[str, Any], tag: str = "") -> Iterator[Polled]:
    """Run the block while one more long poll waits. Ends when it was answered and the polling thread has stopped."""
    before = waiters_now()
    with polling(bot, challenge, tag) as answer:
        until(lambda: waiters_now() > before or answer.done())
        assert not answer.done(), answer.result().content
        yield answer
    if not before:
        until(lambda: "long-poll" not in {thread.name for thread in threading.enumerate()})


def until(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds. Fails if it does not in time."""
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)
