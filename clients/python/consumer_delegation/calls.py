"""The calls of the API: which request each makes, and how its answer is read."""

from collections.abc import Mapping
from time import monotonic
from typing import Any, Literal, TypedDict
from urllib.parse import quote
from uuid import uuid4

import httpx

from consumer_delegation.answers import (
    AccessToken,
    CallResult,
    Challenge,
    ClosedConversation,
    Confirmation,
    Conversation,
    EndedToken,
    Operation,
    OperationList,
    Text,
    read,
)
from consumer_delegation.exchange import LONGEST_POLL, PAUSE, Pause, Request, Steps, exchange
from consumer_delegation.ids import accepted
from consumer_delegation.problems import NothingToConfirm, NoToken, Problem, json_of, problem_of, retry_after

PURPOSE_HEADER = "X-Purpose"


class ExpectedClaims(TypedDict, total=False):
    """What your channel has verified of the consumer."""

    phone_number: str
    email: str


class ChallengeWishes(TypedDict, total=False):
    """What a challenge asks for; see `ChallengeRequest` in the contract."""

    authorization_server: str
    same_person_check: str
    expected_subject: str
    expected_claims: ExpectedClaims
    scope: str
    purpose: Text
    locale: str
    context: str
    replace: bool
    session: int


class AuthorizeWishes(ChallengeWishes, total=False):
    """`min_ttl` is how many seconds the token must still live."""

    min_ttl: int


class At(TypedDict, total=False):
    """Which server a call is for, where the brand has several, and which session, where ids are reused."""

    authorization_server: str
    session: int


class CallWishes(TypedDict, total=False):
    """What an operation takes. With `challenge`, a call without a token that fits issues one."""

    arguments: Mapping[str, Any]
    body: Any
    session: int
    challenge: ChallengeWishes


class TokenWishes(At, total=False):
    """What a token has to be good for."""

    min_ttl: int
    scope: str


def create_challenge(
    patience: float, conversation_id: str, idempotency_key: str | None, wishes: ChallengeWishes
) -> Steps[Challenge]:
    headers = {"Idempotency-Key": idempotency_key or str(uuid4())}
    request = Request("POST", _chat(conversation_id, "/challenges"), True, body={**wishes}, headers=headers)
    return _challenge(_ok((yield from exchange(request, patience))))


def authorize(
    patience: float, conversation_id: str, read_purpose: str, wishes: AuthorizeWishes
) -> Steps[AccessToken | Challenge]:
    # Done twice, `replace` would make a second link.
    is_repeatable = not wishes.get("replace")
    path, headers = _chat(conversation_id, "/authorize"), _purpose(read_purpose)
    answer = _ok(
        (yield from exchange(Request("POST", path, is_repeatable, body={**wishes}, headers=headers), patience))
    )
    return _challenge(answer) if answer.status_code == 202 else read(AccessToken, json_of(answer))


def call(
    patience: float, conversation_id: str, operation: str, purpose: str, wishes: CallWishes
) -> Steps[CallResult | Challenge]:
    # The brand's API may have done it: only the bot knows whether doing it again does harm.
    path = _chat(conversation_id, f"/calls/{quote(operation, safe='')}")
    request = Request("POST", path, False, body={**wishes}, headers=_purpose(purpose))
    answer = _ok((yield from exchange(request, patience)))
    return _challenge(answer) if answer.status_code == 202 else read(CallResult, json_of(answer))


def operations(patience: float) -> Steps[list[Operation]]:
    found: list[Operation] = []
    query: dict[str, Any] = {}
    while True:
        page = read(
            OperationList, json_of(_ok((yield from exchange(Request("GET", "/operations", True, query), patience))))
        )
        found += page.operations
        # The second condition: with it, no answer makes a loop without an end.
        if page.next_after is None or not page.operations:
            return found
        query = {"after": page.next_after}


def complete(
    patience: float, conversation_id: str, kind: Literal["code", "handle"], value: str, at: At
) -> Steps[Confirmation]:
    # A code is accepted once, and a wrong one uses up a try.
    request = Request("POST", _chat(conversation_id, "/completion"), False, body={kind: value, **at})
    return read(Confirmation, json_of(_ok((yield from exchange(request, patience)), NothingToConfirm)))


def token(patience: float, conversation_id: str, read_purpose: str, wishes: TokenWishes) -> Steps[AccessToken]:
    query: dict[str, Any] = {**wishes}
    request = Request("GET", _chat(conversation_id, "/token"), True, query, headers=_purpose(read_purpose))
    return read(AccessToken, json_of(_ok((yield from exchange(request, patience)))))


def end_token(
    patience: float, conversation_id: str, reason: Literal["rejected", "signed_out"], at: At
) -> Steps[EndedToken]:
    # It ends whichever token is live when it arrives: done twice, it could end a newer one.
    query: dict[str, Any] = {"reason": reason, **at}
    request = Request("DELETE", _chat(conversation_id, "/token"), False, query)
    return read(EndedToken, json_of(_ok((yield from exchange(request, patience)))))


def conversation(patience: float, conversation_id: str, at: At) -> Steps[Conversation]:
    query: dict[str, Any] = {**at}
    answer = yield from exchange(Request("GET", _chat(conversation_id), True, query), patience)
    return read(Conversation, json_of(_ok(answer)))


def close(patience: float, conversation_id: str, session: int | None) -> Steps[ClosedConversation]:
    query: dict[str, Any] = {} if session is None else {"session": session}
    answer = yield from exchange(Request("DELETE", _chat(conversation_id), True, query), patience)
    return read(ClosedConversation, json_of(_ok(answer)))


def challenge(patience: float, challenge_id: str) -> Steps[Challenge]:
    return _challenge(_ok((yield from exchange(Request("GET", _of(challenge_id), True), patience))))


def withdraw(patience: float, challenge_id: str) -> Steps[Challenge]:
    return _challenge(_ok((yield from exchange(Request("DELETE", _of(challenge_id), True), patience))))


def wait(patience: float, known: Challenge, timeout: float) -> Steps[Challenge]:
    """Poll until the consumer has signed in or will not, a sign-in has failed, or `timeout` seconds are over."""
    until, newest = monotonic() + timeout, known
    while newest.waits_for_sign_in and newest.last_error == known.last_error:
        seconds = int(min(until - monotonic(), LONGEST_POLL))
        if seconds < 1:
            break
        tag = {"If-None-Match": newest.etag} if newest.etag else {}
        request = Request("GET", _of(known.challenge_id), True, {"wait": seconds}, headers=tag)
        answer = yield from exchange(request, patience)
        if answer.status_code != 304:
            newest = _challenge(_ok(answer))
        # Too many calls wait already: this one was answered at once.
        if (pause := retry_after(answer)) is not None:
            yield Pause(min(max(pause, PAUSE), max(until - monotonic(), 0)))
    return newest


def _chat(conversation_id: str, rest: str = "") -> str:
    return f"/conversations/{quote(accepted(conversation_id), safe='')}{rest}"


def _of(challenge_id: str) -> str:
    return f"/challenges/{quote(challenge_id, safe='')}"


def _purpose(code: str) -> Mapping[str, str]:
    return {PURPOSE_HEADER: code} if code else {}


def _ok(answer: httpx.Response, conflict: type[Problem] = NoToken) -> httpx.Response:
    """Pass a good answer through. Raises `Problem` for any other, also for a redirect: the key goes nowhere else."""
    if not answer.is_success:
        raise problem_of(answer, conflict)
    return answer


def _challenge(answer: httpx.Response) -> Challenge:
    return read(Challenge, json_of(answer), etag=answer.headers.get("ETag", ""))
