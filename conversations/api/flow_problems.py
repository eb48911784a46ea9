"""Turn a `FlowError` into a problem document (RFC 9457): status, code, detail, and the next call to make."""

import re
from collections.abc import Mapping
from functools import singledispatch
from secrets import randbelow
from typing import Any, Final
from urllib.parse import quote

from django.http import HttpRequest
from django.utils import timezone

from conversations.flow import errors
from conversations.flow.authorization_requests import retry_in_progress
from conversations.flow.authorization_status import (
    Authorization,
    AuthorizationStatus,
    ended_challenge_representation,
)
from conversations.models import Challenge, ChallengeStatus
from oauth_client import MEANINGS
from web.errors import Problem, rate_limited

# Operation ids, methods and paths of openapi.yaml. tests/test_contract.py compares them.
OPERATIONS: Final = {
    "createChallenge": ("POST", "/api/v1/conversations/{conversation_id}/challenges"),
    "readChallenge": ("GET", "/api/v1/challenges/{challenge_id}"),
    "withdrawChallenge": ("DELETE", "/api/v1/challenges/{challenge_id}"),
    "complete": ("POST", "/api/v1/conversations/{conversation_id}/completion"),
    "authorize": ("POST", "/api/v1/conversations/{conversation_id}/authorize"),
    "readToken": ("GET", "/api/v1/conversations/{conversation_id}/token"),
    "endToken": ("DELETE", "/api/v1/conversations/{conversation_id}/token"),
    "readConversation": ("GET", "/api/v1/conversations/{conversation_id}"),
    "closeConversation": ("DELETE", "/api/v1/conversations/{conversation_id}"),
    "callOperation": ("POST", "/api/v1/conversations/{conversation_id}/calls/{operation}"),
    "listOperations": ("GET", "/api/v1/operations"),
}
# Characters that need no percent-encoding in a path segment, in addition to letters and digits (RFC 3986 section 3.3).
_UNENCODED: Final = "-._~!$()*+,;=:@"
_PATH_PARAMETER: Final = re.compile(r"\{(\w+)\}")

# For each authorization status: the detail, and the operation to call next.
_NEXT_STEP: Final = {
    "confirmation_needed": (
        "Post the code on the consumer's page, or the chat page's handle, to completion.",
        "complete",
    ),
    "challenged": (
        "Wait for the consumer. To send the link again, POST challenges with the same body: 200, the same url.",
        "readChallenge",
    ),
    "rechallenge_required": ("Create a challenge: the consumer has to sign in again.", "createChallenge"),
    "unchallenged": (
        "Create a challenge. If there was one before, last_challenge says how it ended.",
        "createChallenge",
    ),
    "authorized": ("No sign-in waits for a confirmation. Read the token.", "readToken"),
}

_CHANGE_FIRST: Final = "Another sign-in cannot succeed until the brand's admin or the operator has changed something."

# Errors without attributes: status, code, detail, and the operation to call next.
_WITHOUT_ATTRIBUTES: Final[dict[type[errors.FlowError], tuple[int, str, str, str]]] = {
    errors.SessionRequired: (
        422,
        "session_required",
        "This brand's conversation ids are reused: name the session, as the last answer did. A later one is not met.",
        "readConversation",
    ),
    errors.CompletionCodeMalformed: (
        422,
        "completion_code_malformed",
        "A completion code has six digits. This was not counted as a try. Ask the consumer for the code again.",
        "complete",
    ),
    errors.HandleUnknown: (
        422,
        "handle_unknown",
        "No sign-in waits for this handle. A handle works once, for 60 seconds. Read the conversation's status.",
        "readConversation",
    ),
    errors.HandleOfOtherConversation: (
        409,
        "other_conversation",
        "The handle belongs to another conversation. That sign-in was ended. Create a challenge in this conversation.",
        "createChallenge",
    ),
    errors.IdempotencyKeyReused: (
        422,
        "idempotency_key_reused",
        "This Idempotency-Key was used before, with another body, conversation or session. Send a new key.",
        "",
    ),
    errors.InvalidScope: (
        422,
        "invalid_scope",
        "Ask for a subset of the authorization server's scopes that contains every required one.",
        "",
    ),
    errors.SamePersonCheckRefused: (
        422,
        "same_person_check_refused",
        "The authorization server does not accept this check. Leave it out, or name one that it accepts.",
        "",
    ),
    errors.SamePersonCheckForbidden: (
        403,
        "same_person_check_forbidden",
        "This bot key may use none of the checks that fit. Name one that it may use, or use another key.",
        "",
    ),
    errors.ExpectedSubjectRefused: (
        422,
        "expected_subject_refused",
        "Send expected_subject if same_person_check is expected_subject, and only then.",
        "",
    ),
    errors.ApiHostChanged: (
        409,
        "rechallenge_required",
        "The brand's API has moved since the consumer signed in, and this token is not sent there. Create a challenge.",
        "createChallenge",
    ),
    errors.TokenIsSenderConstrained: (
        409,
        "token_is_sender_constrained",
        "The brand's tokens work only with a key that stays here (DPoP), so no bot can read them. Call operations.",
        "callOperation",
    ),
    errors.TokenReplaced: (
        409,
        "authorized",
        "The brand's API refused a token that was replaced meanwhile. Call again: the new one is used.",
        "callOperation",
    ),
    errors.ExpectedClaimsRefused: (
        422,
        "expected_claims_refused",
        "This authorization server sends no ID token, so claims cannot be compared. Leave expected_claims out.",
        "",
    ),
}


_HOW_TO_WRITE: Final = {
    "phone_number": "Send the number's international digits, with or without a plus, and no extension.",
    "email": "Send one address, without a name around it.",
}


def next_call(problem: Problem, request: HttpRequest, path: Mapping[str, str]) -> dict[str, str] | None:
    """Say which call the bot makes next; None if no call helps. `path` holds the path parameters of the refused call.

    After `rate_limited` it is the refused call itself. Query parameters such as `authorization_server` are left out:
    the bot sends the same ones again.
    """
    operation = _own_operation(request, path) if problem.code == "rate_limited" else problem.next_operation
    if not operation:
        return None
    method, address = OPERATIONS[operation]
    values = {**path, **problem.members}
    return {
        "operation": operation,
        "method": method,
        # `{operation}` stays, encoded, where the bot has to choose one.
        "path": _PATH_PARAMETER.sub(lambda parameter: _quoted(values.get(parameter[1], parameter[0])), address),
    }


def _own_operation(request: HttpRequest, path: Mapping[str, str]) -> str:
    called = (request.method, request.path)
    found = (
        operation
        for operation, (method, address) in OPERATIONS.items()
        if (method, _PATH_PARAMETER.sub(lambda parameter: path.get(parameter[1], ""), address)) == called
    )
    return next(found, "")


def _quoted(value: str) -> str:
    return quote(value, safe=_UNENCODED)


@singledispatch
def problem_of(error: errors.FlowError) -> Problem:
    status, code, detail, operation = _WITHOUT_ATTRIBUTES[type(error)]
    return Problem(status, code, detail, next_operation=operation)


@problem_of.register
def _(error: errors.ConversationClosed) -> Problem:
    detail, operation = (
        ("This session was closed. Create a challenge: it begins the next session.", "createChallenge")
        if error.can_begin_next
        else ("This conversation was closed and never reopens. Use a new conversation id.", "")
    )
    return Problem(410, "conversation_closed", detail, next_operation=operation)


@problem_of.register
def _(error: errors.SessionMismatch) -> Problem:
    detail = "The call names another session, so nothing was done. It is late, or a new session has begun."
    # `session` is null if none has begun: there is nothing to read then.
    operation = "readConversation" if error.session else "createChallenge"
    return Problem(409, "session_mismatch", detail, next_operation=operation, session=error.session)


@problem_of.register
def _(error: errors.ChallengeDiffers) -> Problem:
    detail = (
        "Another challenge is open. Use it, withdraw it, or set replace to true."
        " To send its link again, POST challenges with its own body: 200, the same url."
    )
    challenge_id = str(error.challenge.uuid)
    return Problem(409, "challenge_differs", detail, next_operation="readChallenge", challenge_id=challenge_id)


@problem_of.register
def _(error: errors.ExpectedClaimInvalid) -> Problem:
    detail = f"expected_claims.{error.claim} can never match. {_HOW_TO_WRITE[error.claim]}"
    return Problem(422, "expected_claim_invalid", detail, claim=error.claim)


@problem_of.register
def _(error: errors.InsufficientLifetime) -> Problem:
    issued_for = f"The brand issued this token for {error.lifetime} seconds"
    detail, operation = (
        (f"{issued_for}, so another sign-in does not help. Use a smaller min_ttl.", "")
        if error.is_permanent
        else ("The token expires in less than min_ttl seconds. Create a challenge.", "createChallenge")
    )
    return Problem(409, "insufficient_lifetime", detail, next_operation=operation, expires_in=error.expires_in)


@problem_of.register
def _(error: errors.MissingScope) -> Problem:
    members: dict[str, Any] = {
        "requested_scope": error.requested,
        "scope": error.granted,
        "missing_scope": error.missing,
    }
    detail = (
        "The token was not granted every scope that the bot needs. Create a challenge that asks for them."
        " The consumer has to allow them this time."
    )
    return Problem(409, "missing_scope", detail, next_operation="createChallenge", **members)


@problem_of.register
def _(error: errors.TooManyChallenges) -> Problem:
    detail = "This conversation has had too many new challenges. Send the open challenge's link again, or wait."
    return rate_limited(error.retry_after, detail)


@problem_of.register
def _(error: errors.CompletionCodeIncorrect) -> Problem:
    left = error.attempts_left
    detail, operation = (
        ("Ask the consumer to look at the page again.", "complete")
        if left
        else ("Too many wrong codes: create a new challenge.", "createChallenge")
    )
    return Problem(422, "completion_code_incorrect", detail, next_operation=operation, attempts_left=left)


@problem_of.register
def _(error: errors.WrongAuthorizationStatus) -> Problem:
    authorization = error.authorization
    members: dict[str, Any] = {"reason": authorization.reason} if authorization.reason else {}
    if authorization.challenge is not None:
        members["challenge_id"] = str(authorization.challenge.uuid)
        if authorization.status == AuthorizationStatus.CHALLENGED and authorization.challenge.last_error:
            members["last_error"] = authorization.challenge.last_error
    if authorization.last_challenge is not None:
        members["last_challenge"] = ended_challenge_representation(authorization.last_challenge, timezone.now())
    detail, operation = _after_failed_authorization_request(authorization) or _NEXT_STEP[authorization.status.value]
    return Problem(409, authorization.status.value, detail, next_operation=operation, **members)


def _after_failed_authorization_request(authorization: Authorization) -> tuple[str, str] | None:
    """Choose detail and next operation after a failed authorization request; None if none has failed.

    The request belongs to the open challenge or to the last one that ended. `MEANINGS` says if another try helps.
    """
    waiting, ended = authorization.challenge, authorization.last_challenge
    if waiting and waiting.last_error and waiting.status == ChallengeStatus.STARTED:
        failed = f"The last sign-in failed with {waiting.last_error}."
        if _another_try_helps(waiting) or retry_in_progress(waiting):
            return f"{failed} The consumer can try again: wait, or send the same link again.", "readChallenge"
        return f"{failed} {_CHANGE_FIRST} Tell the consumer, and withdraw the challenge.", "withdrawChallenge"
    if ended and ended.last_error and not _another_try_helps(ended):
        return (
            f"The last sign-in failed with {ended.last_error}. {_CHANGE_FIRST} Then create a challenge.",
            "createChallenge",
        )
    return None


def _another_try_helps(challenge: Challenge) -> bool:
    row = MEANINGS.get(challenge.last_error)
    return row is None or row.another_try_helps


@problem_of.register
def _(error: errors.ScopeRefusedByApi) -> Problem:
    detail = (
        "The brand's API wants a scope that another sign-in cannot bring. Tell the brand's admin: either the"
        " authorization server's scope or the operation's is wrong."
    )
    return Problem(409, "missing_scope", detail, missing_scope=error.wanted)


@problem_of.register
def _(error: errors.StepUpRequired) -> Problem:
    detail = (
        "The brand's API demands a stronger or newer sign-in for this. Create a challenge: it asks for that by itself."
        " The token stays, and other calls still work."
    )
    demand = error.demand
    members: dict[str, Any] = {"acr_values": demand.acr_values} if demand.acr_values else {}
    members |= {} if demand.max_age is None else {"max_age": demand.max_age}
    return Problem(409, "step_up_required", detail, next_operation="createChallenge", **members)


@problem_of.register
def _(error: errors.StepUpUnavailable) -> Problem:
    why = (
        "what it demands cannot be read"
        if error.is_unreadable
        else "the authorization server's scope lacks openid, so nothing could say how somebody signed in"
    )
    detail = (
        f"The brand's API demands a stronger sign-in, and no challenge can bring it: {why}. Tell the brand's admin."
    )
    return Problem(409, "step_up_unavailable", detail)


@problem_of.register
def _(_error: errors.ApiBusy) -> Problem:
    detail = "Too many calls of this brand's APIs are running. Nothing was sent. Wait as long as Retry-After says."
    return Problem(503, "api_busy", detail, headers={"Retry-After": _spread_pause()}, was_sent=False)


def _spread_pause() -> str:
    """Two to six seconds: bots that were refused together would otherwise all come back in one moment (P7)."""
    return str(2 + randbelow(5))


# For each outcome of a call: the status, and what happened.
_NO_ANSWER: Final = {
    errors.CallOutcome.UNREACHABLE: (502, "The brand's API cannot be reached, or its answer cannot be read."),
    errors.CallOutcome.TIMEOUT: (504, "The brand's API did not answer within 10 seconds."),
    errors.CallOutcome.TOO_LARGE: (502, "The brand's API answered more than 256 KB."),
    errors.CallOutcome.TOKEN_IN_ANSWER: (
        502,
        "The brand's API repeated the access token, so its answer is not passed on.",
    ),
    errors.CallOutcome.PROOF_REFUSED: (
        502,
        "The brand's API does not accept our proof (DPoP): its clock and ours differ, or its nonces do.",
    ),
    errors.CallOutcome.HOST_REFUSED: (
        502,
        "The sign-in named no host of the brand's API that its admin allows. Tell the brand's admin.",
    ),
}
_MAY_BE_DONE: Final = " It may have done what it was asked: look before you call again."
_NOT_DONE: Final = " Nothing was sent, so it was not done."
_REFUSED: Final = " So it was not done. The token stays, and another sign-in does not help: tell the brand's admin."


@problem_of.register
def _(error: errors.NoApiAnswer) -> Problem:
    status, happened = _NO_ANSWER[error.outcome]
    left = _MAY_BE_DONE if error.was_sent else _NOT_DONE
    detail = happened + (_REFUSED if error.outcome == errors.CallOutcome.PROOF_REFUSED else left)
    return Problem(status, error.outcome.value, detail, was_sent=error.was_sent)
