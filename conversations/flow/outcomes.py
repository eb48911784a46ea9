"""Record how an authorization request ended: a denial, a failure that leaves the challenge open, or a token."""

import logging
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import uuid4

from django.db import models

from brands.audited_changes import BrandEvent
from brands.models import AuthorizationServer, SamePersonCheck, WebhookEvent
from brands.operation_requests import HostNotNamed, host_named_for
from conversations.flow.authorization_requests import (
    UNEXPECTED_SUBJECT,
    Returned,
    finish_authorization_request,
    record_return,
)
from conversations.flow.events import ConversationEvent, publish_challenge, publish_token, record
from conversations.flow.expectations import accepts_claims, matched_claims, matches_expected_subject
from conversations.flow.revocations import renew_connection, schedule_revocation_of_unstored
from conversations.flow.step_up import drop_demand
from conversations.flow.transitions import (
    end_access_token,
    end_challenge,
    end_expired,
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
from infrastructure.audit import CONSUMER, SYSTEM, record_event
from infrastructure.compiled import CompiledInsert, CompiledQuery, Parameter
from infrastructure.crypto import Secret, key_ring
from infrastructure.database_errors import is_refusal
from oauth_client import Account, ErrorCode, TokenResponse

RECEIPT_PURPOSE = "receipt"
_RECEIPT_TOKEN_PURPOSE = "receipt-token"
COMPLETION_CODE_PURPOSE = "completion-code"
COMPLETION_HANDLE_PURPOSE = "completion-handle"
# Whether the right account signed in depends on these columns of the server alone.
_UNREAD_OF_SERVER: Final = tuple(
    f"authorization_server__{field.name}"
    for field in AuthorizationServer._meta.concrete_fields
    if field.name not in {"id", "subject_claim", "expected_claims_policy"}
)
_CHALLENGE: Final = CompiledQuery(
    lambda: (
        Challenge.objects.select_related("authorization_server")
        .defer(*_UNREAD_OF_SERVER)
        .filter(pk=Parameter("pk", models.BigIntegerField()))
        .order_by()
    )
)
_NEW_ACCESS_TOKEN: Final = CompiledInsert(AccessToken)
_CONFIRMED_IN_CHAT: Final = frozenset({SamePersonCheck.COMPLETION_CODE, SamePersonCheck.CHAT_PAGE})

logger = logging.getLogger("consumer_delegation.sign_in")


def receipt_digest(access_token: AccessToken, cookie: str) -> bytes:
    """Compute the digest of the receipt's token, which the row of the access token stores."""
    ring = key_ring()
    return ring.digest(RECEIPT_PURPOSE, ring.derived_tokens(_RECEIPT_TOKEN_PURPOSE, access_token.uuid, cookie)[0])


def derived_receipt_token(access_token: AccessToken, cookie: str) -> str | None:
    """Derive the receipt's token from the cookie of the successful request; None for another cookie."""
    ring = key_ring()
    for token in ring.derived_tokens(_RECEIPT_TOKEN_PURPOSE, access_token.uuid, cookie):
        if ring.recognises(access_token.receipt_digest, RECEIPT_PURPOSE, token):
            return token
    return None


def access_token_of_receipt(receipt_token: str) -> AccessToken | None:
    """Find the access token, ended or not, of a receipt; None if the receipt is unknown.

    Also None before the same-person check is passed, because nothing was granted until then.
    """
    rows = AccessToken.objects.filter(
        receipt_digest__in=key_ring().digests(RECEIPT_PURPOSE, receipt_token),
        confirmed_at__isnull=False,
        conversation__closed_at=None,
        conversation__brand__is_active=True,
    )
    return rows.select_related("challenge__conversation__brand", "challenge__authorization_server").first()


def is_same_subject(challenge: Challenge, account: Account) -> bool:
    """Whether a re-challenge returned the account that this conversation had before (A7).

    Without an identifier there is nothing to compare: the brand's admin removed openid from the scope, or the endpoint
    that named the account. A sign-in that its consumer has undone is ignored, because the consumer said that it was not
    theirs. Raises `DecryptionError`.
    """
    if account.identifier is None:
        return True
    confirmed = challenge.conversation.access_tokens.filter(
        authorization_server_id=challenge.authorization_server_id,
        confirmed_at__isnull=False,
        subject_ciphertext__isnull=False,
    )
    last = confirmed.exclude(end_reason=AccessToken.EndReason.UNDONE).order_by("-confirmed_at", "-id").first()
    return last is None or last.reveal_subject() == account.identifier


class CommitUnknown(Exception):
    """The database did not confirm a COMMIT, so its changes may be stored or not. The cause is the database's error."""


def record_denial(authorization_request: AuthorizationRequest, detail: str, now: datetime) -> None:
    """End the challenge because the consumer refused at the brand (B14).

    The server's description is stored for the admin. It may show that a rule of the server refused, and not the
    consumer.
    """
    challenge = authorization_request.challenge
    with locked_conversation(challenge.conversation_id) as conversation:
        record_return(authorization_request, conversation, Returned.ERROR, now)
        end_expired(conversation, now)
        _finish(authorization_request, conversation, ErrorCode.ACCESS_DENIED, detail, now)
        # From these statuses only: a denial in a second tab must not undo the success of the first.
        is_moved = move_challenge(
            challenge,
            ChallengeStatus.DENIED,
            now=now,
            actor=CONSUMER,
            from_statuses=SIGN_IN_STATUSES,
            last_error="",
            last_error_detail=detail,
        )
        if not is_moved:
            _record_failed(challenge, conversation, ErrorCode.ACCESS_DENIED, now, actor=CONSUMER)


def record_failure(
    authorization_request: AuthorizationRequest,
    error: str,
    detail: str,
    now: datetime,
    access_token: Secret | None = None,
    *,
    returned: Returned | None = None,
) -> None:
    """End this authorization request only. The challenge stays open, so that the consumer can try again (B14).

    If the brand issued a token, its revocation is scheduled. `returned` is None if there was no callback.
    """
    logger.warning(
        "sign-in failed",
        extra={"error": error, "detail": detail, "challenge": str(authorization_request.challenge.uuid)},
    )
    # Under the conversation's lock like every change. Without it, this would lock request and challenge in the opposite
    # order of a termination, and PostgreSQL would abort one of the two as a deadlock.
    with locked_conversation(authorization_request.challenge.conversation_id) as conversation:
        if returned:
            record_return(authorization_request, conversation, returned, now)
        _finish(authorization_request, conversation, error, detail, now)
        _record_failed(authorization_request.challenge, conversation, error, now, actor=SYSTEM)
        if access_token is not None:
            schedule_revocation_of_unstored(authorization_request, access_token, now)
        rows = Challenge.objects.filter(pk=authorization_request.challenge_id, status__in=SIGN_IN_STATUSES)
        if rows.update(last_error=error, last_error_detail=detail):
            # Only what a read tells too: a challenge that another authorization request has taken further keeps quiet.
            publish_challenge(authorization_request.challenge, now, WebhookEvent.AUTHORIZATION_REQUEST_FAILED)


def _finish(
    authorization_request: AuthorizationRequest, conversation: Conversation, error: str, detail: str, now: datetime
) -> None:
    """Write an end without a token. A closed conversation keeps no words of the server's (K6)."""
    finish_authorization_request(authorization_request, now, error, "" if conversation.closed_at else detail)


def _record_failed(challenge: Challenge, conversation: Conversation, error: str, now: datetime, *, actor: str) -> None:
    failed = ConversationEvent.AUTHORIZATION_REQUEST_FAILED
    record(failed, conversation, now=now, actor=actor, outcome=error, challenge=challenge)


def store_result(
    authorization_request: AuthorizationRequest,
    cookie: str,
    response: TokenResponse,
    account: Account,
    now: datetime,
) -> None:
    """Store the token for its conversation, or discard it if it can no longer be used.

    All conditions are checked again in the storing transaction. Since the claim, the conversation may have been closed
    (A8), the challenge replaced (A10), or another account may have signed in (A7, A12, A14).

    Raises `CommitUnknown` if the COMMIT was not confirmed, and `AuthorizationServerError` if the ID token does not say
    which account it is. After any other error, nothing was stored.
    """
    is_committing = False
    try:
        with locked_conversation(authorization_request.challenge.conversation_id) as conversation:
            record_return(authorization_request, conversation, Returned.CODE, now)
            end_expired(conversation, now)
            _store(authorization_request, conversation, response, account, now, cookie=cookie)
            is_committing = True
    except Exception as error:
        if is_committing and not is_refusal(error):
            raise CommitUnknown from error
        raise


def is_result_stored(authorization_request: AuthorizationRequest) -> bool:
    """Check, on a new connection, whether the authorization request's result was stored.

    The check takes the conversation's lock. The transaction in doubt may still be running in the database, and without
    the lock the check would come too early. Raises the database's errors.
    """
    renew_connection()
    with locked_conversation(authorization_request.challenge.conversation_id):
        return AuthorizationRequest.objects.filter(pk=authorization_request.pk, finished_at__isnull=False).exists()


def _store(
    authorization_request: AuthorizationRequest,
    conversation: Conversation,
    response: TokenResponse,
    account: Account,
    now: datetime,
    *,
    cookie: str,
) -> None:
    challenge = _CHALLENGE.get(pk=authorization_request.challenge_id)
    challenge.conversation = conversation
    if conversation.closed_at is not None or challenge.status not in SIGN_IN_STATUSES:
        _discard(authorization_request, challenge, response.access_token, "challenge_ended", now)
    elif mismatch := _mismatch(challenge, account):
        _discard(authorization_request, challenge, response.access_token, mismatch, now)
        error = Challenge.Error.SUBJECT_MISMATCH
        end_challenge(challenge, ChallengeStatus.FAILED, now=now, actor=SYSTEM, error=error)
    elif not _is_strong_enough(authorization_request, challenge, account):
        error = Challenge.Error.ASSURANCE_NOT_MET
        _discard(authorization_request, challenge, response.access_token, error, now)
        end_challenge(challenge, ChallengeStatus.FAILED, now=now, actor=SYSTEM, error=error)
        drop_demand(challenge)
    else:
        finish_authorization_request(authorization_request, now)
        access_token = _insert_access_token(authorization_request, challenge, response, account, now, cookie=cookie)
        if authorization_request.stored_configuration().token_response_members:
            _record_refused_hosts(challenge, access_token, response.members.found, now)
        _confirm_or_wait(challenge, access_token, cookie, now)


def _mismatch(challenge: Challenge, account: Account) -> str:
    """Return how the account differs from the required one; empty if it does not."""
    if not is_same_subject(challenge, account):
        return Challenge.Error.SUBJECT_MISMATCH
    is_expected = matches_expected_subject(challenge, account.claims) and accepts_claims(challenge, account.claims)
    return "" if is_expected else UNEXPECTED_SUBJECT


def _is_strong_enough(authorization_request: AuthorizationRequest, challenge: Challenge, account: Account) -> bool:
    """Whether the sign-in is what an API demanded. A server may ignore `acr_values` and `max_age` (P33)."""
    if challenge.demand.is_empty:
        return True
    return account.claims is not None and account.claims.meets(challenge.demand, authorization_request.created_at)


def confirm(challenge: Challenge, access_token: AccessToken, *, now: datetime, actor: str) -> None:
    """Make a token readable. The token that it replaces ends in the same transaction."""
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


def _confirm_or_wait(challenge: Challenge, access_token: AccessToken, cookie: str, now: datetime) -> None:
    """Confirm the token if no check remains; otherwise wait for the code or the handle."""
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
    # The code must expire no later than the token.
    expires_at = min(now + lifetime, access_token.expires_at)
    to = ChallengeStatus.CONFIRMATION_NEEDED
    move_challenge(
        challenge, to, now=now, actor=CONSUMER, from_statuses=SIGN_IN_STATUSES, expires_at=expires_at, **digest
    )


def _insert_access_token(
    authorization_request: AuthorizationRequest,
    challenge: Challenge,
    response: TokenResponse,
    account: Account,
    now: datetime,
    *,
    cookie: str,
) -> AccessToken:
    access_token = AccessToken(
        uuid=uuid4(),
        conversation=challenge.conversation,
        authorization_server_id=challenge.authorization_server_id,
        challenge=challenge,
        revocation_endpoint=authorization_request.stored_configuration().revocation_endpoint,
        token_type=response.token_type,
        scope=response.scope,
        scope_widened=response.scope_widened,
        assurance=challenge.same_person_check,
        matched_claims=" ".join(matched_claims(challenge, account.claims)),
        **_authentication_of(account),
        issued_at=now,
        expires_at=response.expires_at,
        lifetime_assumed=response.lifetime_assumed,
        response_members_left_out=" ".join(response.members.left_out),
    )
    access_token.set_access_token(response.access_token)
    access_token.set_proof_key(authorization_request.reveal_proof_key())
    access_token.set_response_members(response.members.found)
    access_token.set_subject(account.identifier)
    access_token.receipt_digest = receipt_digest(access_token, cookie)
    # If the chat has to confirm the token first, nobody needs its number yet.
    is_needed = challenge.same_person_check not in _CONFIRMED_IN_CHAT
    (_NEW_ACCESS_TOKEN.insert if is_needed else _NEW_ACCESS_TOKEN.insert_later)(access_token)
    return access_token


def _authentication_of(account: Account) -> dict[str, Any]:
    claims = account.claims
    return {"acr": claims.acr, "amr": " ".join(claims.amr), "auth_time": claims.auth_time} if claims else {}


def _record_refused_hosts(
    challenge: Challenge, access_token: AccessToken, members: Secret | None, now: datetime
) -> None:
    """Tell the admins of each API that cannot be called with this token, because its response named no host (P2)."""
    conversation = challenge.conversation
    for api in challenge.authorization_server.apis.filter(is_active=True).exclude(host_member=""):
        try:
            host_named_for(api, members)
        except HostNotNamed as refused:
            record_event(
                BrandEvent.API_HOST_REFUSED,
                brand_uuid=conversation.brand.uuid,
                actor=SYSTEM,
                now=now,
                outcome=refused.reason,
                conversation_uuid=conversation.uuid,
                session=conversation.session,
                challenge_uuid=challenge.uuid,
                access_token_uuid=access_token.uuid,
                object_uuid=api.uuid,
            )


def _discard(
    authorization_request: AuthorizationRequest, challenge: Challenge, access_token: Secret, outcome: str, now: datetime
) -> None:
    """Do not store a new token. Schedule its revocation, because no conversation will use it (A8)."""
    finish_authorization_request(authorization_request, now, outcome)
    schedule_revocation_of_unstored(authorization_request, access_token, now)
    record(
        ConversationEvent.TOKEN_DISCARDED,
        challenge.conversation,
        now=now,
        actor=SYSTEM,
        outcome=outcome,
        challenge=challenge,
    )
