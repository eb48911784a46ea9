"""Revocation at the brand (RFC 7009), first half: written down with the change that ends the token.

The second half, presenting the token, is the worker's (`conversations.outbox`). One token is presented by the request
that holds it: the one that was issued a moment ago, and that the database takes neither as a token nor as a revocation.
"""

import logging
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID

from django.db import Error, connection, transaction

from conversations.flow.events import ConversationEvent, record
from conversations.models import (
    REVOCATION_LIFETIME,
    AccessToken,
    AuthorizationRequest,
    Conversation,
    Revocation,
)
from infrastructure.audit import SYSTEM
from infrastructure.crypto import DecryptionError, Secret
from infrastructure.database_clock import CLOCK_TOLERANCE
from oauth_client import AuthorizationServerError, ClientCredentials, revoke_token
from oauth_client.transport import within

MAY_STAY_VALID: Final = "a token that could not be stored may live at the brand until it expires"

logger = logging.getLogger("consumer_delegation.revocation")


def schedule_revocation_of_unstored(
    authorization_request: AuthorizationRequest, access_token: Secret, now: datetime
) -> None:
    """Put a token that was never stored into the outbox. Runs in the caller's transaction."""
    endpoint = authorization_request.stored_configuration().revocation_endpoint
    conversation, server_pk = (
        authorization_request.challenge.conversation,
        authorization_request.challenge.authorization_server_id,
    )
    _schedule(
        conversation, server_pk, access_token, access_token_uuid=authorization_request.uuid, endpoint=endpoint, now=now
    )


@dataclass(frozen=True)
class IssuedToken:
    """A token from the brand's answer to the moment at which a row knows it; it can be revoked without the database."""

    access_token: Secret
    expires_at: datetime
    credentials: ClientCredentials = field(repr=False)
    # What the exchange has left of the time for both.
    seconds_left: float


def revoke_at_once(authorization_request: AuthorizationRequest, issued: IssuedToken) -> None:
    """Revoke a token that was certainly not stored, from the request that holds it; log how that went (A8).

    Where the database can be asked, it is asked on a new connection whether the conversation holds the very same value:
    some servers hand one out twice. Blocks for up to `issued.seconds_left`: no transaction around it.
    """
    extra = {"challenge": str(authorization_request.challenge.uuid), "expires_at": issued.expires_at.isoformat()}
    configuration = authorization_request.stored_configuration()
    if _is_held(authorization_request, issued.access_token):
        logger.warning("a token that could not be stored is in use already: it was not revoked", extra=extra)
        return
    if not configuration.revocation_endpoint:
        logger.error(MAY_STAY_VALID, extra=extra | {"error": "the server has no revocation endpoint"})
        return
    try:
        with within(issued.seconds_left):
            revoke_token(configuration, issued.access_token, issued.credentials)
    except AuthorizationServerError as error:
        logger.error(MAY_STAY_VALID, extra=extra | {"error": str(error)})  # noqa: TRY400  its code says it all
    else:
        logger.warning("a token that could not be stored was revoked", extra=extra)


def log_unknown_result(authorization_request: AuthorizationRequest, issued: IssuedToken) -> None:
    """Log that nobody knows whether a token was stored: it is not revoked, since a conversation may hold it."""
    extra = {"challenge": str(authorization_request.challenge.uuid), "expires_at": issued.expires_at.isoformat()}
    logger.error(MAY_STAY_VALID, extra=extra | {"error": "whether it was stored cannot be found out"})


def renew_connection() -> None:
    """Drop the connection, which may be broken; the next statement opens another."""
    if not connection.in_atomic_block:
        connection.close()


def _is_held(authorization_request: AuthorizationRequest, access_token: Secret) -> bool:
    """Tell whether the conversation holds this value; False where the database cannot be asked."""
    try:
        renew_connection()
        conversation, server_pk = (
            authorization_request.challenge.conversation,
            authorization_request.challenge.authorization_server_id,
        )
        return is_still_in_use(conversation, server_pk, access_token, authorization_request.uuid)
    except Error:
        return False


def schedule_revocation(access_token: AccessToken, now: datetime) -> None:
    """Put a stored token into the outbox before it is erased; one that has expired is not worth a call."""
    if access_token.expires_at <= now:
        return
    try:
        value = access_token.reveal_access_token()
    except DecryptionError:
        # It ends all the same: what we cannot read, nobody reads here, and it cannot be presented anywhere.
        logger.warning("an unreadable token was erased unrevoked", extra={"access_token_uuid": str(access_token.uuid)})
        return
    conversation, server_pk = access_token.conversation, access_token.authorization_server_id
    endpoint, uuid = access_token.revocation_endpoint, access_token.uuid
    _schedule(conversation, server_pk, value, access_token_uuid=uuid, endpoint=endpoint, now=now)


def is_still_in_use(conversation: Conversation, server_pk: int, value: Secret, except_uuid: UUID) -> bool:
    """Tell whether another token of the conversation is this very value: some servers hand the same one out again."""
    others = conversation.access_tokens.filter(authorization_server_id=server_pk, ended_at=None)
    return any(_is(other, value) for other in others.exclude(uuid=except_uuid))


def _is(access_token: AccessToken, value: Secret) -> bool:
    try:
        return access_token.reveal_access_token() == value
    except DecryptionError:
        return False


def _schedule(
    conversation: Conversation, server_pk: int, value: Secret, *, access_token_uuid: UUID, endpoint: str, now: datetime
) -> None:
    if not endpoint or is_still_in_use(conversation, server_pk, value, access_token_uuid):
        return
    revocation = Revocation(
        conversation=conversation,
        authorization_server_id=server_pk,
        access_token_uuid=access_token_uuid,
        revocation_endpoint=endpoint,
        created_at=now,
        next_attempt_at=now,
    )
    revocation.set_access_token(value)
    revocation.save(force_insert=True)


def finish_revocation(revocation: Revocation, outcome: str, now: datetime) -> None:
    """Erase the token for good and say how it went: `revoked`, or the error of the last try."""
    with transaction.atomic():
        deleted, _ = Revocation.objects.filter(pk=revocation.pk).delete()
        if deleted:
            record(
                ConversationEvent.TOKEN_REVOCATION,
                revocation.conversation,
                now=now,
                actor=SYSTEM,
                outcome=outcome,
                access_token_uuid=revocation.access_token_uuid,
            )


def _put_right_what_lies_ahead(now: datetime) -> None:
    """Date rows of the future, which a process with a wrong clock has written, back to now.

    A worker would wait for them while the token lives on at the brand, and here beyond its quarter of an hour (K6).
    """
    ahead = Revocation.objects.filter(created_at__gt=now + CLOCK_TOLERANCE)
    ahead.update(created_at=now, next_attempt_at=now, lease_until=None)


def overdue_revocations(now: datetime) -> list[Revocation]:
    """Return what has waited for a quarter of an hour and is to be erased, also where no worker ever came (K6).

    The table is read whole, and that is right: it holds what ended in the last quarter of an hour at the most, and an
    index on `created_at` would cost each ending more than this costs once a minute.
    """
    _put_right_what_lies_ahead(now)
    overdue = Revocation.objects.filter(created_at__lte=now - REVOCATION_LIFETIME)
    return list(overdue.select_related("conversation__brand"))
