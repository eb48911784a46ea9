"""Revocation at the brand (RFC 7009), first half: written down with the change that ends the token.

The second half, presenting the token, is the worker's (`conversations.outbox`).
"""

import logging
from datetime import datetime
from uuid import UUID, uuid4

from conversations.flow.audit import SYSTEM, record
from conversations.models import AccessToken, AuditEvent, Challenge, Revocation
from delegation_site.crypto import DecryptionError, Secret

logger = logging.getLogger("consumer_delegation.revocation")


def schedule_revocation(challenge: Challenge, access_token: Secret, access_token_uuid: UUID, now: datetime) -> None:
    """Put a token into the outbox, where the brand has a revocation endpoint. Runs in the caller's transaction."""
    if not challenge.authorization_server.revocation_endpoint:
        return
    revocation = Revocation(
        uuid=uuid4(),
        conversation=challenge.conversation,
        authorization_server=challenge.authorization_server,
        access_token_uuid=access_token_uuid,
        created_at=now,
        next_attempt_at=now,
    )
    revocation.set_access_token(access_token)
    revocation.save(force_insert=True)


def schedule_revocation_of(access_token: AccessToken, now: datetime) -> None:
    """Put a stored token into the outbox before it is erased; one that has expired is not worth a call."""
    if access_token.expires_at <= now:
        return
    try:
        value = access_token.reveal_access_token()
    except DecryptionError:
        # It ends all the same: what we cannot read, nobody reads here, and it cannot be presented anywhere.
        logger.warning("an unreadable token was erased unrevoked", extra={"access_token_uuid": str(access_token.uuid)})
        return
    schedule_revocation(access_token.challenge, value, access_token.uuid, now)


def finish_revocation(revocation: Revocation, outcome: str, now: datetime) -> None:
    """Erase the token for good and say how it went: `revoked`, or the error that the last attempt ended with."""
    deleted, _ = Revocation.objects.filter(pk=revocation.pk).delete()
    if deleted:
        record(
            AuditEvent.Kind.TOKEN_REVOCATION,
            revocation.conversation,
            now=now,
            actor=SYSTEM,
            outcome=outcome,
            access_token_uuid=revocation.access_token_uuid,
        )


def give_up_old_revocations(now: datetime) -> int:
    """Erase what has waited for a quarter of an hour, also where no worker ever came (K6); return how many."""
    overdue = [
        revocation
        for revocation in Revocation.objects.select_related("conversation__brand").filter(created_at__lte=now)
        if revocation.given_up_at <= now
    ]
    for revocation in overdue:
        finish_revocation(revocation, "given_up", now)
    return len(overdue)
