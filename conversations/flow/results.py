"""What an attempt comes to: a denial, a failure that leaves the challenge open, or a stored token."""

import logging
from datetime import datetime
from uuid import uuid4

from django.db import transaction

from brands.models import SamePersonCheck
from brands.oauth import ErrorCode, IDTokenClaims, TokenResponse
from conversations.flow.attempts import finish_attempt
from conversations.flow.audit import CONSUMER, SYSTEM, record
from conversations.flow.transitions import (
    close_clock_expired,
    end_access_token,
    end_challenge,
    locked_conversation,
    move_challenge,
)
from conversations.models import (
    COMPLETION_LIFETIME,
    SIGN_IN_STATUSES,
    AccessToken,
    AuditEvent,
    AuthorizationRequest,
    Challenge,
    ChallengeStatus,
    Conversation,
)
from delegation_site.crypto import key_ring

COMPLETION_CODE_PURPOSE = "completion-code"

logger = logging.getLogger("consumer_delegation.sign_in")


def record_denial(attempt: AuthorizationRequest, now: datetime) -> None:
    """The consumer said no at the brand: an outcome, which ends the challenge (B14)."""
    with locked_conversation(attempt.challenge.conversation_id):
        finish_attempt(attempt, now, ErrorCode.ACCESS_DENIED)
        end_challenge(attempt.challenge, ChallengeStatus.DENIED, now=now, actor=CONSUMER)


def record_failure(attempt: AuthorizationRequest, error: str, detail: str, now: datetime) -> None:
    """End this attempt alone; the challenge stays open and another try is offered (B14)."""
    logger.warning("sign-in failed", extra={"error": error, "detail": detail, "challenge": str(attempt.challenge.uuid)})
    with transaction.atomic():
        finish_attempt(attempt, now, error)
        rows = Challenge.objects.filter(pk=attempt.challenge_id, status__in=SIGN_IN_STATUSES)
        rows.update(last_error=error, last_error_detail=detail[:200])


def store_result(
    attempt: AuthorizationRequest, cookie: str, response: TokenResponse, claims: IDTokenClaims | None, now: datetime
) -> None:
    """Store the token for its conversation, or throw it away where it no longer has a place to go.

    Everything is looked at again inside the storing transaction: meanwhile the conversation may have been closed (A8),
    the challenge replaced (A10), or another account signed in (A7).
    """
    with locked_conversation(attempt.challenge.conversation_id) as conversation:
        close_clock_expired(conversation, now)
        challenge = Challenge.objects.select_related("conversation__brand").get(pk=attempt.challenge_id)
        subject = _subject_digest_parts(conversation, claims)
        if conversation.closed_at is not None or challenge.status not in SIGN_IN_STATUSES:
            _discard(attempt, challenge, "challenge_ended", now)
        elif not _same_subject(conversation, challenge, subject):
            _discard(attempt, challenge, Challenge.Error.SUBJECT_MISMATCH, now)
            end_challenge(
                challenge, ChallengeStatus.FAILED, now=now, actor=SYSTEM, error=Challenge.Error.SUBJECT_MISMATCH
            )
        else:
            finish_attempt(attempt, now)
            access_token = _insert_access_token(challenge, response, subject, now)
            _advance(challenge, access_token, cookie, now)


def confirm(challenge: Challenge, access_token: AccessToken, *, now: datetime, actor: str) -> None:
    """Make a token readable; the one it replaces ends in the same transaction."""
    previous = AccessToken.objects.live().filter(
        conversation=access_token.conversation, authorization_server=access_token.authorization_server
    )
    for replaced in previous.select_related("conversation__brand", "challenge"):
        end_access_token(replaced, AccessToken.EndReason.REPLACED, now=now, actor=actor)
    AccessToken.objects.filter(pk=access_token.pk, ended_at=None, confirmed_at=None).update(confirmed_at=now)
    move_challenge(challenge, ChallengeStatus.COMPLETED, now=now, actor=actor)
    record(
        AuditEvent.Kind.TOKEN_ISSUED,
        challenge.conversation,
        now=now,
        actor=actor,
        outcome=access_token.assurance,
        challenge=challenge,
        access_token=access_token,
    )


def _advance(challenge: Challenge, access_token: AccessToken, cookie: str, now: datetime) -> None:
    if challenge.same_person_check == SamePersonCheck.NONE:
        confirm(challenge, access_token, now=now, actor=CONSUMER)
        return
    ring = key_ring()
    code = ring.completion_codes(challenge.uuid, cookie)[0]
    move_challenge(
        challenge,
        ChallengeStatus.CONFIRMATION_NEEDED,
        now=now,
        actor=CONSUMER,
        frm=SIGN_IN_STATUSES,
        completion_code_digest=ring.digest(COMPLETION_CODE_PURPOSE, challenge.uuid.bytes, code),
        # A code for a token that is dead before it could be typed would be a lie.
        expires_at=min(now + COMPLETION_LIFETIME, access_token.expires_at),
    )


def _insert_access_token(
    challenge: Challenge, response: TokenResponse, subject: tuple[str | bytes, ...], now: datetime
) -> AccessToken:
    access_token = AccessToken(
        uuid=uuid4(),
        conversation=challenge.conversation,
        authorization_server_id=challenge.authorization_server_id,
        challenge=challenge,
        token_type=response.token_type,
        scope=response.scope,
        scope_widened=response.scope_widened,
        assurance=challenge.same_person_check,
        subject_digest=key_ring().digest("subject", *subject) if subject else None,
        issued_at=now,
        expires_at=response.expires_at,
        lifetime_assumed=response.lifetime_assumed,
    )
    access_token.set_access_token(response.access_token)
    access_token.save(force_insert=True)
    return access_token


def _subject_digest_parts(conversation: Conversation, claims: IDTokenClaims | None) -> tuple[str | bytes, ...]:
    """Bind the digest to the conversation: equal subjects of two conversations must not look equal in the database."""
    return (conversation.uuid.bytes, claims.issuer, claims.subject) if claims else ()


def _same_subject(conversation: Conversation, challenge: Challenge, subject: tuple[str | bytes, ...]) -> bool:
    confirmed = conversation.access_tokens.filter(
        authorization_server_id=challenge.authorization_server_id,
        confirmed_at__isnull=False,
        subject_digest__isnull=False,
    )
    last = confirmed.order_by("-confirmed_at", "-id").first()
    # No subject means that the brand's admin took openid out of the scope: then there is nothing to compare.
    return last is None or not subject or key_ring().recognises(last.subject_digest, "subject", *subject)


def _discard(attempt: AuthorizationRequest, challenge: Challenge, outcome: str, now: datetime) -> None:
    finish_attempt(attempt, now, outcome)
    record(
        AuditEvent.Kind.TOKEN_DISCARDED,
        challenge.conversation,
        now=now,
        actor=SYSTEM,
        outcome=outcome,
        challenge=challenge,
    )
