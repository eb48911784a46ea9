"""Each reason of the flow as a problem document, with the status that the contract promises."""

from typing import Any

from conversations.flow import errors
from delegation_site.problems import Problem

_NEXT_STEP = {
    "confirmation_needed": "Ask the consumer for the code on their page and post it to completion.",
    "challenged": "Wait for the consumer to sign in at the link.",
    "rechallenge_required": "Create a challenge: the consumer has to sign in again.",
    "unchallenged": "Create a challenge first.",
    "authorized": "Read the token.",
}


def problem_of(error: errors.FlowError) -> Problem:
    """Return the problem document of a flow error."""
    match error:
        case errors.ConversationClosed():
            return closed()
        case errors.NotInThisStatus():
            return _not_in_this_status(error)
        case errors.ChallengeDiffers():
            detail = "Another challenge is open. Use it, withdraw it, or set replace to true."
            return Problem(409, "challenge_differs", detail, challenge_id=str(error.challenge.uuid))
        case errors.InsufficientLifetime():
            detail = "The token lives, but not for min_ttl seconds. Create a challenge."
            return Problem(409, "insufficient_lifetime", detail, expires_in=error.expires_in)
        case errors.CompletionCodeIncorrect():
            return _completion_code_incorrect(error)
        case errors.CompletionCodeMalformed():
            return Problem(422, "completion_code_malformed", "A completion code has six digits. No try was counted.")
        case errors.InvalidScope():
            detail = "Ask for a subset of the authorization server's scope that holds all it requires."
            return Problem(422, "invalid_scope", detail)
        case errors.SamePersonCheckRefused():
            return Problem(422, "same_person_check_refused", "The authorization server does not accept this check.")
    raise error


def closed() -> Problem:
    """Return the answer to every call on a closed conversation but the status read and DELETE."""
    return Problem(410, "conversation_closed", "This conversation was closed and never reopens.")


def _not_in_this_status(error: errors.NotInThisStatus) -> Problem:
    standing = error.standing
    if standing.status == "closed":
        return closed()
    members: dict[str, Any] = {"reason": standing.reason} if standing.reason else {}
    if standing.challenge is not None:
        members["challenge_id"] = str(standing.challenge.uuid)
    return Problem(409, standing.status.value, _NEXT_STEP[standing.status.value], **members)


def _completion_code_incorrect(error: errors.CompletionCodeIncorrect) -> Problem:
    left = error.attempts_left
    detail = "Ask the consumer to look at the page again." if left else "Too many wrong codes: create a new challenge."
    return Problem(422, "completion_code_incorrect", detail, attempts_left=left)
