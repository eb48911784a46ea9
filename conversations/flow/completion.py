"""Same-person checks that end in the chat: a typed completion code, or a handle from the chat's page (A1, A11)."""

import unicodedata
from datetime import datetime

from django.db.models import F

from brands.models import AuthorizationServer
from conversations.flow.authorization_status import authorization_of
from conversations.flow.errors import (
    CompletionCodeIncorrect,
    CompletionCodeMalformed,
    ConversationClosed,
    HandleOfOtherConversation,
    HandleUnknown,
    WrongAuthorizationStatus,
)
from conversations.flow.outcomes import COMPLETION_CODE_PURPOSE, COMPLETION_HANDLE_PURPOSE, confirm
from conversations.flow.transitions import end_challenge, end_expired, locked_conversation
from conversations.models import (
    COMPLETION_ATTEMPTS,
    AccessToken,
    Challenge,
    ChallengeStatus,
    Conversation,
)
from infrastructure.crypto import COMPLETION_CODE_DIGITS, key_ring


def complete(conversation: Conversation, server: AuthorizationServer, typed: str, *, actor: str, now: datetime) -> None:
    """Confirm the pending token with the code that the consumer typed.

    A wrong code is counted before it is compared. The fifth wrong code ends the challenge and erases the token. Raises
    `CompletionCodeMalformed` (not counted), `CompletionCodeIncorrect`, `WrongAuthorizationStatus`,
    `ConversationClosed`.
    """
    code = normalised_code(typed)
    if code is None:
        # Whoever has refused, or whose time is over, is not asked for a code again.
        authorization = authorization_of(conversation, server, now)
        challenge = authorization.challenge
        if challenge is None or challenge.status != ChallengeStatus.CONFIRMATION_NEEDED:
            raise WrongAuthorizationStatus(authorization)
        raise CompletionCodeMalformed
    with locked_conversation(conversation.pk) as locked:
        attempts_left = _try_code(locked, server, code, actor=actor, now=now)
    # Raised outside the transaction, because the count must be committed.
    if attempts_left is not None:
        raise CompletionCodeIncorrect(attempts_left)


def normalised_code(typed: str) -> str | None:
    """Return the six digits of a typed code, or None if it is not a completion code.

    `493 027`, `493-027` and `٤٩٣٠٢٧` are the same code.
    """
    kept = [character for character in typed if character not in " \u00a0\u202f-\u2013\u2014\u00b7."]
    digits = [str(unicodedata.digit(character, -1)) for character in kept]
    return "".join(digits) if len(digits) == COMPLETION_CODE_DIGITS and "-1" not in digits else None


def complete_with_handle(conversation: Conversation, handle: str, *, actor: str, now: datetime) -> AuthorizationServer:
    """Confirm the pending token with the handle from the chat's page; return the authorization server (A11).

    A handle identifies its challenge. If that belongs to another conversation, a link was forwarded: the challenge ends
    and its token is erased. Raises `HandleUnknown`, `HandleOfOtherConversation`, `WrongAuthorizationStatus`,
    `ConversationClosed`.
    """
    digests = key_ring().digests(COMPLETION_HANDLE_PURPOSE, handle)
    rows = Challenge.objects.filter(conversation__brand=conversation.brand, completion_handle_digest__in=digests)
    challenge = rows.select_related("conversation__brand", "authorization_server__brand").first()
    if challenge is None:
        raise HandleUnknown
    with locked_conversation(challenge.conversation_id) as locked:
        end_expired(locked, now)
        if challenge.conversation_id == conversation.pk:
            _confirm_pending(locked, challenge, actor=actor, now=now)
            return challenge.authorization_server
        error = Challenge.Error.OTHER_CONVERSATION
        if not end_challenge(challenge, ChallengeStatus.FAILED, now=now, actor=actor, error=error):
            raise HandleUnknown
    raise HandleOfOtherConversation


def derived_code(challenge: Challenge, cookie: str) -> str | None:
    """Derive the completion code from the cookie of the successful request; None for another cookie (A3)."""
    ring = key_ring()
    for code in ring.completion_codes(challenge.uuid, cookie):
        if _is_code_of(challenge, code):
            return code
    return None


def _confirm_pending(conversation: Conversation, challenge: Challenge, *, actor: str, now: datetime) -> None:
    if conversation.closed_at is not None:
        raise ConversationClosed(conversation)
    pending = AccessToken.objects.pending().filter(challenge=challenge)
    access_token = pending.select_related("conversation__brand", "challenge__conversation__brand").first()
    if access_token is None:
        raise WrongAuthorizationStatus(authorization_of(conversation, challenge.authorization_server, now))
    confirm(challenge, access_token, now=now, actor=actor)


def derived_handle(challenge: Challenge, cookie: str) -> str | None:
    """Derive the handle for the chat's page from the cookie of the successful request; None for another cookie."""
    ring = key_ring()
    for handle in ring.derived_tokens(COMPLETION_HANDLE_PURPOSE, challenge.uuid, cookie):
        if ring.recognises(challenge.completion_handle_digest, COMPLETION_HANDLE_PURPOSE, handle):
            return handle
    return None


def _try_code(
    conversation: Conversation, server: AuthorizationServer, code: str, *, actor: str, now: datetime
) -> int | None:
    """Return None if the code was right, else the number of attempts left."""
    end_expired(conversation, now)
    pending = AccessToken.objects.pending().filter(conversation=conversation, authorization_server=server)
    access_token = pending.select_related("conversation__brand", "challenge__conversation__brand").first()
    if conversation.closed_at is not None:
        raise ConversationClosed(conversation)
    if access_token is None:
        raise WrongAuthorizationStatus(authorization_of(conversation, server, now))
    challenge = access_token.challenge
    counted = Challenge.objects.filter(
        pk=challenge.pk,
        status=ChallengeStatus.CONFIRMATION_NEEDED,
        completion_attempts__lt=COMPLETION_ATTEMPTS,
    ).update(completion_attempts=F("completion_attempts") + 1)
    if counted == 1 and _is_code_of(challenge, code):
        confirm(challenge, access_token, now=now, actor=actor)
        return None
    attempts_left = COMPLETION_ATTEMPTS - challenge.completion_attempts - 1
    if attempts_left <= 0:
        end_challenge(challenge, ChallengeStatus.FAILED, now=now, actor=actor, error=Challenge.Error.TOO_MANY_CODES)
    return max(attempts_left, 0)


def _is_code_of(challenge: Challenge, code: str) -> bool:
    return key_ring().recognises(challenge.completion_code_digest, COMPLETION_CODE_PURPOSE, challenge.uuid.bytes, code)
