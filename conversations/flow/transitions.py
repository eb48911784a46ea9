"""Transitions: conditional UPDATEs whose rows are counted, with their audit and webhook events in one transaction.

Callers hold the row lock of the conversation (`locked_conversation`), so no two transitions of one conversation run at
the same time.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

from django.db import models, transaction
from django.db.models import Min, OuterRef, Subquery

from brands.models import WebhookEvent
from conversations.flow.events import ConversationEvent, publish_challenge, publish_token, record, webhooks_of
from conversations.flow.revocations import schedule_revocation
from conversations.models import (
    OPEN_STATUSES,
    AccessToken,
    AuthorizationRequest,
    Challenge,
    ChallengeStatus,
    Conversation,
)
from infrastructure.audit import CONSUMER, SYSTEM
from infrastructure.compiled import CompiledQuery, CompiledRows, CompiledUpdate, Parameter

# The column that holds the time of a transition to this status; `ended_at` for all others.
_TIMESTAMPS = {
    ChallengeStatus.STARTED: "started_at",
    ChallengeStatus.CONFIRMATION_NEEDED: "confirmation_needed_at",
    ChallengeStatus.COMPLETED: "completed_at",
}
_NOW, _CONVERSATION = Parameter("now", models.DateTimeField()), Parameter("conversation", models.BigIntegerField())
_PK: Final = Parameter("pk", models.BigIntegerField())
_LOCK: Final = CompiledRows(
    lambda: Conversation.objects.select_for_update().filter(pk=_PK).order_by().values_list("pk")
)
_LOCKED: Final = CompiledQuery(
    lambda: (
        Conversation.objects.select_related("brand")  # type: ignore[no-redef]  # the class says what the query sets
        .filter(pk=_PK)
        .annotate(
            has_webhooks=webhooks_of("brand_id"),
            first_challenge=_first_expiry(Challenge.objects.filter(status__in=OPEN_STATUSES)),
            first_token=_first_expiry(AccessToken.objects.filter(ended_at=None)),
        )
        .order_by()
    )
)
_EXPIRED_CHALLENGES: Final = CompiledQuery(
    lambda: (
        Challenge.objects.expired_not_ended(_NOW)
        .filter(conversation_id=_CONVERSATION)
        .select_related("conversation__brand")
    )
)
_EXPIRED_TOKENS: Final = CompiledQuery(
    lambda: (
        AccessToken.objects.expired_not_ended(_NOW)
        .filter(conversation_id=_CONVERSATION)
        .select_related("conversation__brand", "challenge")
    )
)


@contextmanager
def locked_conversation(conversation_pk: int) -> Iterator[Conversation]:
    """Run the block in a transaction that locks the conversation's row. SQLite locks the whole database."""
    with transaction.atomic():
        lock_conversation(conversation_pk)
        conversation = _LOCKED.get(pk=conversation_pk)
        conversation.first_expiries = (conversation.first_challenge, conversation.first_token)  # type: ignore[attr-defined]
        yield conversation


def lock_conversation(conversation_pk: int) -> None:
    """Lock the row in the caller's transaction, with its next statement.

    That statement reads what was committed before the lock was granted: PostgreSQL takes a new snapshot for it. One
    that both waited for the lock and joined other tables would see those as they were before it waited.
    """
    _LOCK.run_later(pk=conversation_pk)


def _first_expiry(rows: models.QuerySet[Any]) -> Subquery:
    """Return the earliest `expires_at` of these rows of a conversation, as a part of a query for conversations."""
    of_conversation = rows.filter(conversation=OuterRef("pk")).order_by().values("conversation")
    return Subquery(of_conversation.annotate(first=Min("expires_at")).values("first"))


def move_challenge(
    challenge: Challenge,
    to: ChallengeStatus,
    *,
    now: datetime,
    actor: str,
    from_statuses: Collection[ChallengeStatus] = OPEN_STATUSES,
    **changes: Any,
) -> bool:
    """Change the status if it is still one of `from_statuses`. Return whether this call changed it."""
    changes |= {"status": to, _TIMESTAMPS.get(to, "ended_at"): now}
    if _move(tuple(changes), tuple(from_statuses)).run(pk=challenge.pk, **changes) != 1:
        return False
    _note_move(challenge, changes, now, actor)
    return True


def start_challenge(challenge: Challenge, now: datetime) -> None:
    """Note that a sign-in began, unless one has begun before.

    The challenge was read after its conversation was locked, so nobody can have moved it since, and the UPDATE travels
    with COMMIT.
    """
    if challenge.status != ChallengeStatus.ISSUED:
        return
    changes: dict[str, Any] = {"status": ChallengeStatus.STARTED, "started_at": now}
    _move(tuple(changes), (ChallengeStatus.ISSUED,)).run_later(pk=challenge.pk, **changes)
    _note_move(challenge, changes, now, CONSUMER)


def _note_move(challenge: Challenge, changes: dict[str, Any], now: datetime, actor: str) -> None:
    to = changes["status"]
    for name, value in changes.items():
        setattr(challenge, name, value)
    if to not in OPEN_STATUSES:
        _erase_exchange_secrets(challenge)
    record(
        ConversationEvent.CHALLENGE_CHANGED,
        challenge.conversation,
        now=now,
        actor=actor,
        outcome=f"{to.value}:{challenge.error}" if challenge.error else to.value,
        challenge=challenge,
    )
    publish_challenge(challenge, now)


@lru_cache(maxsize=32)
def _move(changed: tuple[str, ...], from_statuses: tuple[ChallengeStatus, ...]) -> CompiledUpdate:
    """Compile the UPDATE of these columns for a challenge with one of these statuses."""
    columns = {field.name: field for field in Challenge._meta.concrete_fields}
    values = {name: Parameter(name, columns[name]) for name in changed}
    rows = Challenge.objects.filter(pk=Parameter("pk", models.BigIntegerField()), status__in=from_statuses)
    return CompiledUpdate(lambda: rows, **values)


def end_challenge(challenge: Challenge, to: ChallengeStatus, *, now: datetime, actor: str, error: str = "") -> bool:
    """End an open challenge and erase its pending token. Return whether this call ended it."""
    if not move_challenge(challenge, to, now=now, actor=actor, error=error):
        return False
    for access_token in AccessToken.objects.pending().filter(challenge=challenge):
        end_access_token(access_token, AccessToken.EndReason.UNCONFIRMED, now=now, actor=actor)
    return True


def end_access_token(access_token: AccessToken, reason: AccessToken.EndReason, *, now: datetime, actor: str) -> bool:
    """End a token and erase its ciphertexts (K6). Return whether this call ended it."""
    rows = AccessToken.objects.filter(pk=access_token.pk, ended_at=None)
    erased = dict.fromkeys(("ciphertext", "response_members_ciphertext", "dpop_key_ciphertext"))
    if rows.update(ended_at=now, end_reason=reason, **erased) != 1:
        return False
    schedule_revocation(access_token, now)  # decrypts the instance's copy; the row's is erased
    access_token.ended_at, access_token.end_reason = now, reason
    access_token.ciphertext = access_token.response_members_ciphertext = access_token.dpop_key_ciphertext = None
    record(
        ConversationEvent.TOKEN_ENDED,
        access_token.conversation,
        now=now,
        actor=actor,
        outcome=reason.value,
        challenge=access_token.challenge,
        access_token_uuid=access_token.uuid,
    )
    if access_token.confirmed_at is not None:  # a token that was never readable was not published
        publish_token(access_token, WebhookEvent.TOKEN_ENDED, now)
    return True


def end_expired(conversation: Conversation, now: datetime) -> None:
    """End the expired challenges and tokens of this conversation, so that they do not violate a constraint later."""
    expiries = conversation.first_expiries
    if expiries is not None and not any(moment and moment <= now for moment in expiries):
        return
    for challenge in _EXPIRED_CHALLENGES.all(conversation=conversation.pk, now=now):
        end_challenge(challenge, ChallengeStatus.EXPIRED, now=now, actor=SYSTEM)
    for access_token in _EXPIRED_TOKENS.all(conversation=conversation.pk, now=now):
        end_access_token(access_token, AccessToken.EndReason.EXPIRED, now=now, actor=SYSTEM)


def _erase_exchange_secrets(challenge: Challenge) -> None:
    """Erase what only an exchange needs (K7). After a challenge has ended, no exchange is possible (A10)."""
    authorization_requests = AuthorizationRequest.objects.filter(challenge=challenge)
    authorization_requests.update(nonce_digest=None, code_verifier_ciphertext=None, dpop_key_ciphertext=None)
