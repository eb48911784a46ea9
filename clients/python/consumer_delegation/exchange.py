"""One call, repeated where that is safe. A generator yields what has to be done, so both clients share every rule."""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx

from consumer_delegation.problems import NoAnswer, retry_after

LONGEST_POLL = 25
PAUSE = 0.5  # seconds, where the service names none
MOST_TRIES = 3
# The request was certainly not sent.
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


@dataclass(frozen=True)
class Request:
    """One HTTP request. `is_repeatable`: if it was done and the answer was lost, doing it again does no harm."""

    method: str
    path: str
    is_repeatable: bool
    query: Mapping[str, str | int] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Pause:
    seconds: float


Result = TypeVar("Result")
Steps = Generator[Request | Pause, httpx.Response | None, Result]


def exchange(request: Request, patience: float) -> Steps[httpx.Response]:
    """Send a request, and again after `Retry-After` if that is safe and within `patience` seconds.

    A 429 was not done. Of a 503 or a lost answer nobody knows: only what does no harm twice is repeated. Raises
    `NoAnswer`.
    """
    tries = 0
    while True:
        tries += 1
        try:
            answer = yield request
        except httpx.RequestError as error:
            not_sent = isinstance(error, _NOT_SENT)
            if tries >= MOST_TRIES or not (not_sent or request.is_repeatable) or patience < PAUSE:
                raise NoAnswer(f"{request.method}: {type(error).__name__}", may_be_done=not not_sent) from error
            pause = PAUSE
        else:
            assert answer is not None  # noqa: S101  # a request is answered by a response, a pause by None
            repeatable = answer.status_code == 429 or (answer.status_code == 503 and request.is_repeatable)
            pause = retry_after(answer) or PAUSE
            if tries >= MOST_TRIES or not repeatable or pause > patience:
                return answer
        patience -= pause
        yield Pause(pause)
