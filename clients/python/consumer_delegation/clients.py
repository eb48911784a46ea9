"""The two clients: `Delegation` blocks, `AsyncDelegation` is for asyncio. They have the same methods."""

import asyncio
import re
import time
from types import TracebackType
from typing import Any, Literal, Self, Unpack

import httpx

from consumer_delegation import calls
from consumer_delegation.answers import (
    AccessToken,
    CallResult,
    Challenge,
    ClosedConversation,
    Confirmation,
    Conversation,
    EndedToken,
    Operation,
)
from consumer_delegation.calls import At, AuthorizeWishes, CallWishes, ChallengeWishes, TokenWishes
from consumer_delegation.exchange import LONGEST_POLL, Pause, Request, Result, Steps

# Above the longest poll, so that no poll is cut off.
TIMEOUT = httpx.Timeout(10.0, read=LONGEST_POLL + 10.0)
PATIENCE = 10.0
_BASE = re.compile(r"https?://[^/?#\s@]+(/[^?#\s]*)?/api/v1")


class _Client:
    """`base_url` ends in `/api/v1`. `patience` is how long one call may wait for `Retry-After`, in seconds."""

    def __init__(self, base_url: str, bot_key: str, patience: float) -> None:
        self._base_url = base_url.rstrip("/")
        if not _BASE.fullmatch(self._base_url):
            raise ValueError("base_url is the address of the API, and ends in /api/v1")
        if not bot_key.isascii() or not bot_key.isprintable() or bot_key.strip() != bot_key or not bot_key:
            raise ValueError("bot_key is not a key that the admin has shown")
        self._bot_key, self._patience = bot_key, patience

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._base_url!r})"

    def _arguments(self, request: Request) -> dict[str, Any]:
        return {
            "method": request.method,
            "url": f"{self._base_url}{request.path}",
            "params": request.query or None,
            "json": request.body,
            "headers": {**request.headers, "Authorization": f"Bearer {self._bot_key}"},
            "follow_redirects": False,
        }


class Delegation(_Client):
    """The blocking client; threads may share it.

    Every method raises `Problem` for an answer that is an error, `NoAnswer` without one, and `ValueError` for an id
    that `conversation_id_of` has to encode first.
    """

    def __init__(
        self, base_url: str, bot_key: str, *, patience: float = PATIENCE, http: httpx.Client | None = None
    ) -> None:
        super().__init__(base_url, bot_key, patience)
        self._http = http or httpx.Client(timeout=TIMEOUT)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def authorize(
        self, conversation_id: str, *, read_purpose: str = "", **wishes: Unpack[AuthorizeWishes]
    ) -> AccessToken | Challenge:
        """Return a live token, or the open challenge whose link the consumer needs. Call it for each use."""
        return self._run(calls.authorize(self._patience, conversation_id, read_purpose, wishes))

    def call(
        self, conversation_id: str, operation: str, *, purpose: str = "", **wishes: Unpack[CallWishes]
    ) -> CallResult | Challenge:
        """Call a declared operation of the brand's API. With `challenge=`, a chat without a token gets its link."""
        return self._run(calls.call(self._patience, conversation_id, operation, purpose, wishes))

    def operations(self) -> list[Operation]:
        """Return the operations that the brand's admin has declared."""
        return self._run(calls.operations(self._patience))

    def wait(self, challenge: Challenge, timeout: float = 300) -> Challenge:
        """Wait until the consumer has signed in or will not, a sign-in has failed, or the time is over."""
        return self._run(calls.wait(self._patience, challenge, timeout))

    def complete(self, conversation_id: str, code: str, **at: Unpack[At]) -> Confirmation:
        """Pass on the digits that the consumer typed. Raises `CodeIncorrect` and `NothingToConfirm`."""
        return self._run(calls.complete(self._patience, conversation_id, "code", code, at))

    def complete_with_handle(self, conversation_id: str, handle: str, **at: Unpack[At]) -> Confirmation:
        """Pass on the handle of the chat's own page."""
        return self._run(calls.complete(self._patience, conversation_id, "handle", handle, at))

    def token(self, conversation_id: str, *, read_purpose: str = "", **wishes: Unpack[TokenWishes]) -> AccessToken:
        """Return a live token; never creates a challenge. Raises `NoToken`, which says why there is none."""
        return self._run(calls.token(self._patience, conversation_id, read_purpose, wishes))

    def end_token(
        self, conversation_id: str, reason: Literal["rejected", "signed_out"], **at: Unpack[At]
    ) -> EndedToken:
        """End the token: the brand's API refused it, or the consumer signs out."""
        return self._run(calls.end_token(self._patience, conversation_id, reason, at))

    def create_challenge(
        self, conversation_id: str, *, idempotency_key: str | None = None, **wishes: Unpack[ChallengeWishes]
    ) -> Challenge:
        """Issue a challenge, or return the live one. Name a key of your own to repeat the call in another process."""
        return self._run(calls.create_challenge(self._patience, conversation_id, idempotency_key, wishes))

    def challenge(self, challenge_id: str) -> Challenge:
        return self._run(calls.challenge(self._patience, challenge_id))

    def withdraw(self, challenge_id: str) -> Challenge:
        return self._run(calls.withdraw(self._patience, challenge_id))

    def conversation(self, conversation_id: str, **at: Unpack[At]) -> Conversation:
        return self._run(calls.conversation(self._patience, conversation_id, at))

    def close(self, conversation_id: str, session: int | None = None) -> ClosedConversation:
        """End the chat: all that was granted in it is erased. Where ids are reused, name the session."""
        return self._run(calls.close(self._patience, conversation_id, session))

    def _run(self, steps: Steps[Result]) -> Result:
        try:
            step = next(steps)
            while True:
                if isinstance(step, Pause):
                    time.sleep(step.seconds)
                    step = steps.send(None)
                    continue
                try:
                    answer = self._http.request(**self._arguments(step))
                except httpx.RequestError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration as done:
            result: Result = done.value
            return result


class AsyncDelegation(_Client):
    """The client for asyncio; otherwise as `Delegation`."""

    def __init__(
        self, base_url: str, bot_key: str, *, patience: float = PATIENCE, http: httpx.AsyncClient | None = None
    ) -> None:
        super().__init__(base_url, bot_key, patience)
        self._http = http or httpx.AsyncClient(timeout=TIMEOUT)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def authorize(
        self, conversation_id: str, *, read_purpose: str = "", **wishes: Unpack[AuthorizeWishes]
    ) -> AccessToken | Challenge:
        """Return a live token, or the open challenge whose link the consumer needs. Call it for each use."""
        return await self._run(calls.authorize(self._patience, conversation_id, read_purpose, wishes))

    async def call(
        self, conversation_id: str, operation: str, *, purpose: str = "", **wishes: Unpack[CallWishes]
    ) -> CallResult | Challenge:
        """Call a declared operation of the brand's API. With `challenge=`, a chat without a token gets its link."""
        return await self._run(calls.call(self._patience, conversation_id, operation, purpose, wishes))

    async def operations(self) -> list[Operation]:
        """Return the operations that the brand's admin has declared."""
        return await self._run(calls.operations(self._patience))

    async def wait(self, challenge: Challenge, timeout: float = 300) -> Challenge:  # as in `Delegation`
        """Wait until the consumer has signed in or will not, a sign-in has failed, or the time is over."""
        return await self._run(calls.wait(self._patience, challenge, timeout))

    async def complete(self, conversation_id: str, code: str, **at: Unpack[At]) -> Confirmation:
        """Pass on the digits that the consumer typed. Raises `CodeIncorrect` and `NothingToConfirm`."""
        return await self._run(calls.complete(self._patience, conversation_id, "code", code, at))

    async def complete_with_handle(self, conversation_id: str, handle: str, **at: Unpack[At]) -> Confirmation:
        """Pass on the handle of the chat's own page."""
        return await self._run(calls.complete(self._patience, conversation_id, "handle", handle, at))

    async def token(
        self, conversation_id: str, *, read_purpose: str = "", **wishes: Unpack[TokenWishes]
    ) -> AccessToken:
        """Return a live token; never creates a challenge. Raises `NoToken`, which says why there is none."""
        return await self._run(calls.token(self._patience, conversation_id, read_purpose, wishes))

    async def end_token(
        self, conversation_id: str, reason: Literal["rejected", "signed_out"], **at: Unpack[At]
    ) -> EndedToken:
        """End the token: the brand's API refused it, or the consumer signs out."""
        return await self._run(calls.end_token(self._patience, conversation_id, reason, at))

    async def create_challenge(
        self, conversation_id: str, *, idempotency_key: str | None = None, **wishes: Unpack[ChallengeWishes]
    ) -> Challenge:
        """Issue a challenge, or return the live one. Name a key of your own to repeat the call in another process."""
        return await self._run(calls.create_challenge(self._patience, conversation_id, idempotency_key, wishes))

    async def challenge(self, challenge_id: str) -> Challenge:
        return await self._run(calls.challenge(self._patience, challenge_id))

    async def withdraw(self, challenge_id: str) -> Challenge:
        return await self._run(calls.withdraw(self._patience, challenge_id))

    async def conversation(self, conversation_id: str, **at: Unpack[At]) -> Conversation:
        return await self._run(calls.conversation(self._patience, conversation_id, at))

    async def close(self, conversation_id: str, session: int | None = None) -> ClosedConversation:
        """End the chat: all that was granted in it is erased. Where ids are reused, name the session."""
        return await self._run(calls.close(self._patience, conversation_id, session))

    async def _run(self, steps: Steps[Result]) -> Result:
        try:
            step = next(steps)
            while True:
                if isinstance(step, Pause):
                    await asyncio.sleep(step.seconds)
                    step = steps.send(None)
                    continue
                try:
                    answer = await self._http.request(**self._arguments(step))
                except httpx.RequestError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration as done:
            result: Result = done.value
            return result
