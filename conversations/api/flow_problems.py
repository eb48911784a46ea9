"""Each reason of the flow as a problem document, with the status that the contract promises."""

from functools import singledispatch
from typing import Any

from conversations.flow import errors
from delegation_site.problems import Problem, rate_limited

_NEXT_STEP = {
    "confirmation_needed": "Post the code on the consumer's page, or the chat page's handle, to completion.",
    "challenged": "Wait for the consumer to sign in at the link.",
    "rechallenge_required": "Create a challenge: the consumer has to sign in again.",
    "unchallenged": "Create a challenge first.",
    "authorized": "Read the token.",
}

# Errors that say all there is to say by their class: status, code, and what to do next.
_PLAIN: dict[type[errors.FlowError], tuple[int, str, str]] = {
    errors.ConversationClosed: (410, "conversation_closed", "This conversation was closed and never reopens."),
    errors.CompletionCodeMalformed: (
        422,
        "completion_code_malformed",
        "A completion code has six digits. No try was counted.",
    ),
    errors.HandleUnknown: (
        422,
        "handle_unknown",
        "No sign-in waits for this handle. Handles work once, for 60 seconds.",
    ),
    errors.HandleOfOtherConversation: (
        409,
        "other_conversation",
        "The handle belongs to another conversation. That sign-in was ended; create a challenge here.",
    ),
    errors.IdempotencyKeyReused: (
        422,
        "idempotency_key_reused",
        "This Idempotency-Key came with another body or conversation before. Send a new key with a new request.",
    ),
    errors.InvalidScope: (
        422,
        "invalid_scope",
        "Ask for a subset of the authorization server's scope that holds all it requires.",
    ),
    errors.SamePersonCheckRefused: (
        422,
        "same_person_check_refused",
        "The authorization server does not accept this check.",
    ),
    errors.ExpectedSubjectRefused: (
        422,
        "expected_subject_refused",
        "expected_subject goes with same_person_check expected_subject, and with no other.",
    ),
}


@singledispatch
def problem_of(error: errors.FlowError) -> Problem:
    """Return the problem document of a flow error."""
    return Problem(*_PLAIN[type(error)])


@problem_of.register
def _(error: errors.ChallengeDiffers) -> Problem:
    detail = "Another challenge is open. Use it, withdraw it, or set replace to true."
    return Problem(409, "challenge_differs", detail, challenge_id=str(error.challenge.uuid))


@problem_of.register
def _(error: errors.InsufficientLifetime) -> Problem:
    detail = "The token lives, but not for min_ttl seconds. Create a challenge."
    return Problem(409, "insufficient_lifetime", detail, expires_in=error.expires_in)


@problem_of.register
def _(error: errors.TooManyChallenges) -> Problem:
    detail = "This conversation has had too many new challenges. Hand out the live one, or wait."
    return rate_limited(error.retry_after, detail)


@problem_of.register
def _(error: errors.CompletionCodeIncorrect) -> Problem:
    left = error.attempts_left
    detail = "Ask the consumer to look at the page again." if left else "Too many wrong codes: create a new challenge."
    return Problem(422, "completion_code_incorrect", detail, attempts_left=left)


@problem_of.register
def _(error: errors.NotInThisStatus) -> Problem:
    standing = error.standing
    if standing.status == "closed":
        return Problem(*_PLAIN[errors.ConversationClosed])
    members: dict[str, Any] = {"reason": standing.reason} if standing.reason else {}
    if standing.challenge is not None:
        members["challenge_id"] = str(standing.challenge.uuid)
    return Problem(409, standing.status.value, _NEXT_STEP[standing.status.value], **members)
