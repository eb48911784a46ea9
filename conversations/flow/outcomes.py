"""What an attempt comes to: a denial, a failure that leaves the challenge open, or a stored token."""

import json
import logging
from datetime import datetime, timedelta
from typing import Final
from uuid import uuid4

from django.db import models

from brands.models import SamePersonCheck, WebhookEvent
from conversations.flow.attempts import UNEXPECTED_SUBJECT, Returned, finish_attempt, record_return
from conversations.flow.events import ConversationEvent, publish_token, record
from conversations.flow.revocations import renew_connection, schedule_revocation_of_fresh
from conversations.flow.transitions import (
    close_clock_expired,
    end_access_token,
    end_challenge,
    locked_conversation,
    move_challenge,
)
from conversations.models import (
    COMPLETION_LIFETIME,
    HANDLE_LIFETIME,
    SIGN_IN_STATUSES,
    AccessToken,
    AuthorizationRequest,
    Challenge,
    ChallengeStatus,
    Conversation,
)
from infrastructure.audit import CONSUMER, SYSTEM
from infrastructure.compiled import CompiledInsert, CompiledQuery, Parameter
from infrastructure.crypto import Secret, key_ring
from oauth_client import AuthorizationServerError, ErrorCode, IDTokenClaims, TokenResponse

RECEIPT_PURPOSE = "receipt"
_TOKEN_PURPOSE = "receipt-token"


def receipt_digest(access_token: AccessToken, cookie: str) -> bytes:
    """Return what the row keeps of its receipt."""
    ring = key_ring()
    return ring.digest(RECEIPT_PURPOSE, ring.derived_tokens(_TOKEN_PURPOSE, access_token.uuid, cookie)[0])


def shown_receipt(access_token: AccessToken, cookie: str) -> str | None:
    """Return the receipt's token to the holder of the successful attempt's cookie; None for every other cookie."""
    ring = key_ring()
    for token in ring.derived_tokens(_TOKEN_PURPOSE, access_token.uuid, cookie):
        if ring.recognises(access_token.receipt_digest, RECEIPT_PURPOSE, token):
            return token
    return None


def access_token_of_receipt(receipt_token: str) -> AccessToken | None:
    """Return the access token, ended or not, that a receipt tells of; None for an unknown one.

    None, too, before the same-person check was passed: until then nothing has been granted to anybody.
    """
    rows = AccessToken.objects.filter(
        receipt_digest__in=key_ring().digests(RECEIPT_PURPOSE, receipt_token),
        confirmed_at__isnull=False,
        conversation__closed_at=None,
        conversation__brand__is_active=True,
    )
    return rows.select_related("challenge__conversation__brand", "challenge__authorization_server").first()


_EXPECTED_SUBJECT = "expected-subject"
# Claims that anybody may put into a profile mean nothing until the provider has verified them (OpenID Connect 5.7).
_VERIFIED_BY = {"email": "email_verified", "phone_number": "phone_number_verified"}


def subject_of(claims: IDTokenClaims | None) -> Secret | None:
    """Return what identifies an account: `iss` and `sub` together (OpenID Connect Core section 5.7)."""
    return Secret(json.dumps([claims.issuer, claims.subject])) if claims else None


def is_same_subject(challenge: Challenge, claims: IDTokenClaims | None) -> bool:
    """Tell whether a re-challenge came back with the account that this conversation had before (A7).

    No claims mean that the brand's admin took openid out of the scope: then there is nothing to compare. A sign-in that
    its consumer has undone binds nobody: she said that it was not hers. Raises `DecryptionError`.
    """
    subject = subject_of(claims)
    if subject is None:
        return True
    confirmed = challenge.conversation.access_tokens.filter(
        authorization_server_id=challenge.authorization_server_id,
        confirmed_at__isnull=False,
        subject_ciphertext__isnull=False,
    )
    last = confirmed.exclude(end_reason=AccessToken.EndReason.UNDONE).order_by("-confirmed_at", "-id").first()
    return last is None or last.reveal_subject() == subject


def expected_subject_digest(conversation: Conversation, expected: Secret | None) -> bytes | None:
    """Return what to keep of the customer that the bot expects."""
    if expected is None:
        return None
    return key_ring().digest(_EXPECTED_SUBJECT, conversation.uuid.bytes, expected.reveal())


def expects(challenge: Challenge, expected: Secret | None) -> bool:
    """Tell whether the challenge was issued for this very customer, or for nobody in particular."""
    if expected is None or challenge.expected_subject_digest is None:
        return expected is None and challenge.expected_subject_digest is None
    return _is_expected(challenge, expected.reveal())


def is_expected_subject(challenge: Challenge, claims: IDTokenClaims | None) -> bool:
    """Tell whether the verified ID token names the customer that the bot expects (A12); true for the other checks.

    A claim that is missing or not verified tells nothing about who signed in: raises `AuthorizationServerError` with
    `claim_unusable`.
    """
    if challenge.same_person_check != SamePersonCheck.EXPECTED_SUBJECT:
        return True
    return _is_expected(challenge, _usable(challenge.authorization_server.subject_claim, claims))


def _usable(name: str, claims: IDTokenClaims | None) -> str:
    """Return the claim as a text. A whole number is its decimal digits, as the bot writes it; nothing else is read."""
    if claims is None:
        raise _unusable("no ID token was asked for: the scope has no openid")
    said, value = claims.claims, claims.claims.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value:
        raise _unusable(f"the ID token has no {name} that is a text or a whole number")
    # Cognito and Apple write the boolean as the text "true". Nothing else, a 1 or a "True", means yes.
    if name in _VERIFIED_BY and said.get(_VERIFIED_BY[name]) is not True and said.get(_VERIFIED_BY[name]) != "true":
        raise _unusable(f"{_VERIFIED_BY[name]} is not true in the ID token, so {name} may be anybody's")
    return value


def _unusable(detail: str) -> AuthorizationServerError:
    return AuthorizationServerError(ErrorCode.CLAIM_UNUSABLE, detail)


def _is_expected(challenge: Challenge, value: str) -> bool:
    digest, conversation = challenge.expected_subject_digest, challenge.conversation
    return key_ring().recognises(digest, _EXPECTED_SUBJECT, conversation.uuid.bytes, value)


COMPLETION_CODE_PURPOSE = "completion-code"
COMPLETION_HANDLE_PURPOSE = "completion-handle"
_CHALLENGE: Final = CompiledQuery(
    lambda: (
        Challenge.objects.select_related("conversation__brand", "authorization_server__brand")
        .filter(pk=Parameter("pk", models.BigIntegerField()))
        .order_by()
    )
)
_NEW_ACCESS_TOKEN: Final = CompiledInsert(AccessToken)

logger = logging.getLogger("consumer_delegation.sign_in")


class CommitUnknown(Exception):
    """The database did not confirm a COMMIT. What it was to store may be there or not; the cause says what happened."""


def record_denial(attempt: AuthorizationRequest, detail: str, now: datetime) -> None:
    """The consumer said no at the brand: an outcome, which ends the challenge (B14).

    The server's words are kept for the admin: where they tell of a rule of the server's, it was not the consumer's no.
    """
    with locked_conversation(attempt.challenge.conversation_id) as conversation:
        record_return(attempt, conversation, Returned.ERROR, now)
        close_clock_expired(conversation, now)
        finish_attempt(attempt, now, ErrorCode.ACCESS_DENIED)
        # From these statuses only: a second tab's no does not undo what the first one has brought.
        denied, from_statuses = ChallengeStatus.DENIED, SIGN_IN_STATUSES
        move_challenge(
            attempt.challenge,
            denied,
            now=now,
            actor=CONSUMER,
            from_statuses=from_statuses,
            last_error="",
            last_error_detail=detail,
        )


def record_failure(
    attempt: AuthorizationRequest,
    error: str,
    detail: str,
    now: datetime,
    access_token: Secret | None = None,
    *,
    returned: Returned | None = None,
) -> None:
    """End this attempt alone; the challenge stays open and another try is offered (B14).

    A token that the brand has issued all the same is not left alive there. `returned` is None where no callback came.
    """
    logger.warning("sign-in failed", extra={"error": error, "detail": detail, "challenge": str(attempt.challenge.uuid)})
    # Under the conversation's lock as everything else: without it this would lock attempt and challenge in the other
    # order than an ending does, and PostgreSQL would end one of the two as a deadlock.
    with locked_conversation(attempt.challenge.conversation_id) as conversation:
        if returned:
            record_return(attempt, conversation, returned, now)
        finish_attempt(attempt, now, error)
        failed, challenge = ConversationEvent.AUTHORIZATION_REQUEST_FAILED, attempt.challenge
        record(failed, conversation, now=now, actor=SYSTEM, outcome=error, challenge=challenge)
        if access_token is not None:
            schedule_revocation_of_fresh(attempt, access_token, now)
        rows = Challenge.objects.filter(pk=attempt.challenge_id, status__in=SIGN_IN_STATUSES)
        rows.update(last_error=error, last_error_detail=detail)


def store_result(
    attempt: AuthorizationRequest, cookie: str, response: TokenResponse, claims: IDTokenClaims | None, now: datetime
) -> None:
    """Store the token for its conversation, or throw it away where it no longer has a place to go.

    Everything is looked at again inside the storing transaction: meanwhile the conversation may have been closed (A8),
    the challenge replaced (A10), or another account signed in (A7, A12).

    Raises `CommitUnknown` where the COMMIT was not confirmed, and `AuthorizationServerError` where the ID token cannot
    say which account that is. Whatever else it raises, nothing was stored.
    """
    is_committing = False
    try:
        with locked_conversation(attempt.challenge.conversation_id) as conversation:
            record_return(attempt, conversation, Returned.CODE, now)
            close_clock_expired(conversation, now)
            _store(attempt, conversation, response, claims, now, cookie=cookie)
            is_committing = True
    except Exception as error:
        if is_committing:
            raise CommitUnknown from error
        raise


def has_come_to_a_result(attempt: AuthorizationRequest) -> bool:
    """Look, on a new connection, whether the attempt's result was stored.

    Under the conversation's lock: the transaction that is in doubt may still be under way in the database, and would
    be seen too early without it. Raises the database's errors.
    """
    renew_connection()
    with locked_conversation(attempt.challenge.conversation_id):
        return AuthorizationRequest.objects.filter(pk=attempt.pk, finished_at__isnull=False).exists()


def _store(
    attempt: AuthorizationRequest,
    conversation: Conversation,
    response: TokenResponse,
    claims: IDTokenClaims | None,
    now: datetime,
    *,
    cookie: str,
) -> None:
    challenge = _CHALLENGE.get(pk=attempt.challenge_id)
    if conversation.closed_at is not None or challenge.status not in SIGN_IN_STATUSES:
        _discard(attempt, challenge, response.access_token, "challenge_ended", now)
    elif mismatch := _mismatch(challenge, claims):
        _discard(attempt, challenge, response.access_token, mismatch, now)
        error = Challenge.Error.SUBJECT_MISMATCH
        end_challenge(challenge, ChallengeStatus.FAILED, now=now, actor=SYSTEM, error=error)
    else:
        finish_attempt(attempt, now)
        access_token = _insert_access_token(attempt, challenge, response, claims, now, cookie=cookie)
        _advance(challenge, access_token, cookie, now)


def _mismatch(challenge: Challenge, claims: IDTokenClaims | None) -> str:
    """Return how the account is not the one that it has to be; empty where it is."""
    if not is_same_subject(challenge, claims):
        return Challenge.Error.SUBJECT_MISMATCH
    return "" if is_expected_subject(challenge, claims) else UNEXPECTED_SUBJECT


def confirm(challenge: Challenge, access_token: AccessToken, *, now: datetime, actor: str) -> None:
    """Make a token readable; the one it replaces ends in the same transaction."""
    previous = AccessToken.objects.live().filter(
        conversation=access_token.conversation_id, authorization_server=access_token.authorization_server_id
    )
    for replaced in previous.select_related("conversation__brand", "challenge"):
        end_access_token(replaced, AccessToken.EndReason.REPLACED, now=now, actor=actor)
    AccessToken.objects.filter(pk=access_token.pk, ended_at=None, confirmed_at=None).update(confirmed_at=now)
    move_challenge(challenge, ChallengeStatus.COMPLETED, now=now, actor=actor)
    record(
        ConversationEvent.TOKEN_ISSUED,
        challenge.conversation,
        now=now,
        actor=actor,
        outcome=access_token.assurance,
        challenge=challenge,
        access_token_uuid=access_token.uuid,
    )
    publish_token(access_token, WebhookEvent.TOKEN_ISSUED, now)


def _advance(challenge: Challenge, access_token: AccessToken, cookie: str, now: datetime) -> None:
    """Confirm at once where nothing is left to check; otherwise wait for the code or the handle."""
    ring, row = key_ring(), challenge.uuid
    if challenge.same_person_check == SamePersonCheck.COMPLETION_CODE:
        code = ring.completion_codes(row, cookie)[0]
        digest = {"completion_code_digest": ring.digest(COMPLETION_CODE_PURPOSE, row.bytes, code)}
        _wait_for_confirmation(challenge, access_token, digest, now, COMPLETION_LIFETIME)
    elif challenge.same_person_check == SamePersonCheck.CHAT_PAGE:
        handle = ring.derived_tokens(COMPLETION_HANDLE_PURPOSE, row, cookie)[0]
        digest = {"completion_handle_digest": ring.digest(COMPLETION_HANDLE_PURPOSE, handle)}
        _wait_for_confirmation(challenge, access_token, digest, now, HANDLE_LIFETIME)
    else:
        confirm(challenge, access_token, now=now, actor=CONSUMER)


def _wait_for_confirmation(
    challenge: Challenge, access_token: AccessToken, digest: dict[str, bytes], now: datetime, lifetime: timedelta
) -> None:
    # A code for a token that is dead before it could be typed would be a lie.
    expires_at = min(now + lifetime, access_token.expires_at)
    to = ChallengeStatus.CONFIRMATION_NEEDED
    move_challenge(
        challenge, to, now=now, actor=CONSUMER, from_statuses=SIGN_IN_STATUSES, expires_at=expires_at, **digest
    )


def _insert_access_token(
    attempt: AuthorizationRequest,
    challenge: Challenge,
    response: TokenResponse,
    claims: IDTokenClaims | None,
    now: datetime,
    *,
    cookie: str,
) -> AccessToken:
    access_token = AccessToken(
        uuid=uuid4(),
        conversation=challenge.conversation,
        authorization_server_id=challenge.authorization_server_id,
        challenge=challenge,
        revocation_endpoint=attempt.stored_configuration().revocation_endpoint,
        token_type=response.token_type,
        scope=response.scope,
        scope_widened=response.scope_widened,
        assurance=challenge.same_person_check,
        issued_at=now,
        expires_at=response.expires_at,
        lifetime_assumed=response.lifetime_assumed,
        response_members_left_out=" ".join(response.members.left_out),
    )
    access_token.set_access_token(response.access_token)
    access_token.set_response_members(response.members.found)
    access_token.set_subject(subject_of(claims))
    access_token.receipt_digest = receipt_digest(access_token, cookie)
    _NEW_ACCESS_TOKEN.insert(access_token)
    return access_token


def _discard(
    attempt: AuthorizationRequest, challenge: Challenge, access_token: Secret, outcome: str, now: datetime
) -> None:
    """Let a fresh token go, and ask the brand to end it too: nobody will ever use it (A8)."""
    finish_attempt(attempt, now, outcome)
    schedule_revocation_of_fresh(attempt, access_token, now)
    record(
        ConversationEvent.TOKEN_DISCARDED,
        challenge.conversation,
        now=now,
        actor=SYSTEM,
        outcome=outcome,
        challenge=challenge,
    )
