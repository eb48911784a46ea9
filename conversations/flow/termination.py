"""End access: rejected or signed out by the bot, undone by the consumer, revoked by an admin, or closed."""

from collections.abc import Collection
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Final

from brands.models import AuthorizationServer
from conversations.flow.authorization_status import AuthorizationStatus, authorization_of
from conversations.flow.errors import ConversationClosed, WrongAuthorizationStatus
from conversations.flow.events import ConversationEvent, erase_payloads_of_closed, publish_closing, record
from conversations.flow.transitions import (
    end_access_token,
    end_challenge,
    end_expired,
    locked_conversation,
    move_challenge,
)
from conversations.models import (
    OPEN_STATUSES,
    AccessToken,
    AuthorizationRequest,
    Challenge,
    ChallengeStatus,
    Conversation,
    Revocation,
)
from infrastructure.audit import CONSUMER

_HOW_THEY_SIGNED_IN: Final = {"acr": "", "amr": "", "auth_time": None}


@dataclass(frozen=True)
class ClosingReceipt:
    """What closing a conversation did. A second call returns the same receipt."""

    closed_at: datetime
    access_tokens_erased: int
    challenges_withdrawn: int


@dataclass(frozen=True)
class EndingReceipt:
    """What an admin's ending did. `revocations_scheduled` wait for the worker to send them to the server."""

    access_tokens_ended: int
    revocations_scheduled: int
    links_ended: int


def end_live_token(
    conversation: Conversation,
    server: AuthorizationServer,
    reason: AccessToken.EndReason,
    *,
    actor: str,
    now: datetime,
    presented: AccessToken | None = None,
) -> AccessToken:
    """End the readable token and return its row. Raises `WrongAuthorizationStatus`, `ConversationClosed`.

    `presented` is the token that an API refused: if another one is live by now, it stays, and is returned (P9).
    """
    with locked_conversation(conversation.pk) as locked:
        if locked.closed_at is not None:
            raise ConversationClosed(locked)
        end_expired(locked, now)
        found = authorization_of(locked, server, now)
        if found.status != AuthorizationStatus.AUTHORIZED or found.access_token is None:
            raise WrongAuthorizationStatus(found)
        if presented in {None, found.access_token}:
            end_access_token(found.access_token, reason, now=now, actor=actor)
        return found.access_token


def revoke_token(access_token: AccessToken, *, actor: str, now: datetime) -> bool:
    """End one token, pending or live, for an admin. Return False if it had ended before."""
    with locked_conversation(access_token.conversation_id) as conversation:
        end_expired(conversation, now)
        rows = conversation.access_tokens.select_related("challenge__conversation__brand")
        current = rows.get(pk=access_token.pk)
        pending = current.confirmed_at is None
        ended = end_access_token(current, AccessToken.EndReason.REVOKED, now=now, actor=actor)
        if ended and pending:
            end_challenge(current.challenge, ChallengeStatus.WITHDRAWN, now=now, actor=actor)
        return ended


def end_access_tokens(conversation: Conversation, pks: Collection[int], *, actor: str, now: datetime) -> EndingReceipt:
    """End these tokens of a conversation, pending or live, on an admin's behalf. Tokens of other conversations stay."""
    with locked_conversation(conversation.pk) as locked:
        end_expired(locked, now)
        unended = locked.access_tokens.filter(pk__in=pks, ended_at=None)
        ended = [token for token in unended if revoke_token(token, actor=actor, now=now)]
        withdrawn = locked.challenges.filter(
            access_token__in=ended, status=ChallengeStatus.WITHDRAWN, ended_at=now
        ).count()
        scheduled = Revocation.objects.filter(access_token_uuid__in=[token.uuid for token in ended]).count()
        return EndingReceipt(len(ended), scheduled, withdrawn)


def close_and_count(conversation: Conversation, *, actor: str, now: datetime) -> EndingReceipt | None:
    """Close a conversation on an admin's behalf. Return None if it was closed before."""
    with locked_conversation(conversation.pk) as locked:
        if locked.closed_at is not None:
            return None
        closed = close_conversation(locked, actor=actor, now=now)
        scheduled = Revocation.objects.filter(conversation=locked, created_at=now).count()
        return EndingReceipt(closed.access_tokens_erased, scheduled, closed.challenges_withdrawn)


def undo(challenge: Challenge, *, now: datetime) -> bool:
    """End what the consumer allowed through this challenge (A9). Return False if nothing was left to end.

    The caller has checked that this browser has the cookie of one of the challenge's authorization requests (B22), or
    that the consumer has the receipt.
    """
    with locked_conversation(challenge.conversation_id) as conversation:
        end_expired(conversation, now)
        tokens = AccessToken.objects.filter(challenge=challenge, ended_at=None)
        ended = [
            end_access_token(access_token, AccessToken.EndReason.UNDONE, now=now, actor=CONSUMER)
            for access_token in tokens.select_related("conversation__brand", "challenge__authorization_server")
        ]
        # If the token of a completed challenge has already ended, nothing is undone and the challenge stays completed.
        undoable = (*OPEN_STATUSES, ChallengeStatus.COMPLETED) if ended else OPEN_STATUSES
        return move_challenge(challenge, ChallengeStatus.CANCELLED, now=now, actor=CONSUMER, from_statuses=undoable)


def close_conversation(conversation: Conversation, *, actor: str, now: datetime) -> ClosingReceipt:
    """Close this session for ever and erase its secrets. Return the receipt, also if it was closed before.

    If the brand's ids are reused, the next challenge under the id begins another session, with a row of its own.
    """
    with locked_conversation(conversation.pk) as locked:
        if locked.closed_at is not None:
            return _receipt(locked, locked.closed_at)
        end_expired(locked, now)
        _end_everything(locked, actor=actor, now=now)
        Conversation.objects.filter(pk=locked.pk, closed_at=None).update(closed_at=now)
        record(ConversationEvent.CONVERSATION_CLOSED, locked, now=now, actor=actor)
        receipt = _receipt(locked, now)
        publish_closing(locked, {"status": "closed", **asdict(receipt)}, now)
        return receipt


def _end_everything(conversation: Conversation, *, actor: str, now: datetime) -> None:
    open_challenges = conversation.challenges.filter(status__in=OPEN_STATUSES)
    for access_token in conversation.access_tokens.filter(ended_at=None).select_related("challenge"):
        end_access_token(access_token, AccessToken.EndReason.CLOSED, now=now, actor=actor)
    for challenge in open_challenges.select_related("conversation__brand"):
        end_challenge(challenge, ChallengeStatus.WITHDRAWN, now=now, actor=actor)
    conversation.challenges.update(
        link_token_ciphertext=None,
        context_ciphertext=None,
        completion_code_digest=None,
        completion_handle_digest=None,
        expected_subject_digest=None,
        expected_phone_number_digest=None,
        expected_email_digest=None,
        purpose="",
        purpose_by_locale={},
        last_error_detail="",
    )
    AuthorizationRequest.objects.filter(challenge__conversation=conversation).update(error_detail="")
    conversation.access_tokens.update(subject_ciphertext=None, receipt_digest=None, **_HOW_THEY_SIGNED_IN)
    # Idempotency keys stay for their 24 hours, also where ids are unique: the brand may switch to reused ids meanwhile,
    # and a repeated request must not begin the next session (S5).
    erase_payloads_of_closed(now, conversation)


def _receipt(conversation: Conversation, closed_at: datetime) -> ClosingReceipt:
    erased = conversation.access_tokens.filter(end_reason=AccessToken.EndReason.CLOSED)
    withdrawn = conversation.challenges.filter(status=ChallengeStatus.WITHDRAWN, ended_at=closed_at)
    return ClosingReceipt(closed_at, erased.count(), withdrawn.count())
