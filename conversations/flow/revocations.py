"""Revocation at the brand (RFC 7009): schedule it in the transaction that ends the token.

The worker sends the request (`conversations.outbox.revocations`). In one case the web request does it: a token was
issued a moment ago, and the database can store neither the token nor its revocation.
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

MAY_STAY_VALID: Final = "a token that could not be stored may stay valid at the brand until it expires"

logger = logging.getLogger("consumer_delegation.revocation")


def schedule_revocation_of_unstored(
    authorization_request: AuthorizationRequest, access_token: Secret, now: datetime
) -> None:
    """Put a token that was not stored into the outbox, in the caller's transaction."""
    endpoint = authorization_request.stored_configuration().revocation_endpoint
    challenge, uuid = authorization_request.challenge, authorization_request.uuid
    conversation, server_pk = challenge.conversation, challenge.authorization_server_id
    _schedule(conversation, server_pk, access_token, access_token_uuid=uuid, endpoint=endpoint, now=now)


@dataclass(frozen=True)
class IssuedToken:
    """A token that the brand issued and that no row holds yet. It can be revoked without the database."""

    access_token: Secret
    expires_at: datetime
    credentials: ClientCredentials = field(repr=False)
    # The time for exchange and revocation, minus what the exchange took.
    seconds_left: float


def revoke_at_once(authorization_request: AuthorizationRequest, issued: IssuedToken) -> None:
    """Revoke a token that was certainly not stored, from the web request that received it. Log the result (A8).

    Some servers issue the same token value twice. So a new connection checks whether the conversation holds the value,
    if the database answers. Blocks for up to `issued.seconds_left`, so it must not run in a transaction.
    """
    extra = {"challenge": str(authorization_request.challenge.uuid), "expires_at": issued.expires_at.isoformat()}
    configuration = authorization_request.stored_configuration()
    if _is_held(authorization_request, issued.access_token):
        logger.warning("a token that could not be stored was not revoked: it is in use already", extra=extra)
        return
    if not configuration.revocation_endpoint:
        logger.error(MAY_STAY_VALID, extra=extra | {"error": "the server has no revocation endpoint"})
        return
    try:
        with within(issued.seconds_left):
            revoke_token(configuration, issued.access_token, issued.credentials)
    except AuthorizationServerError as error:
        logger.error(MAY_STAY_VALID, extra=extra | {"error": str(error)})  # noqa: TRY400  the error's code is enough
    else:
        logger.warning("a token that could not be stored was revoked", extra=extra)


def log_unknown_result(authorization_request: AuthorizationRequest, issued: IssuedToken) -> None:
    """Log that a token may be stored or not. It is not revoked, because a conversation may use it."""
    extra = {"challenge": str(authorization_request.challenge.uuid), "expires_at": issued.expires_at.isoformat()}
    logger.error(MAY_STAY_VALID, extra=extra | {"error": "the database did not say whether it was stored"})


def renew_connection() -> None:
    """Close the connection, which may be broken. The next statement opens a new one."""
    if not connection.in_atomic_block:
        connection.close()


def _is_held(authorization_request: AuthorizationRequest, access_token: Secret) -> bool:
    """Whether the conversation is known to hold this value; False if the database does not answer."""
    challenge, uuid = authorization_request.challenge, authorization_request.uuid
    try:
        renew_connection()
        return is_value_of_live_token(challenge.conversation, challenge.authorization_server_id, access_token, uuid)
    except Error:
        return False


def schedule_revocation(access_token: AccessToken, now: datetime) -> None:
    """Put a stored token into the outbox before it is erased, unless it has expired already."""
    if access_token.expires_at <= now:
        return
    try:
        value = access_token.reveal_access_token()
    except DecryptionError:
        # The token ends nevertheless. A value that we cannot decrypt cannot be read by a bot, nor be revoked.
        logger.warning(
            "a token that cannot be decrypted was erased, not revoked",
            extra={"access_token_uuid": str(access_token.uuid)},
        )
        return
    conversation, server_pk = access_token.conversation, access_token.authorization_server_id
    endpoint, uuid = access_token.revocation_endpoint, access_token.uuid
    _schedule(conversation, server_pk, value, access_token_uuid=uuid, endpoint=endpoint, now=now)


def is_value_of_live_token(conversation: Conversation, server_pk: int, value: Secret, except_uuid: UUID) -> bool:
    """Whether another live token of the conversation has this value. Some servers issue the same token again."""
    others = conversation.access_tokens.filter(authorization_server_id=server_pk, ended_at=None)
    return any(_has_value(other, value) for other in others.exclude(uuid=except_uuid))


def _has_value(access_token: AccessToken, value: Secret) -> bool:
    try:
        return access_token.reveal_access_token() == value
    except DecryptionError:
        return False


def _schedule(
    conversation: Conversation, server_pk: int, value: Secret, *, access_token_uuid: UUID, endpoint: str, now: datetime
) -> None:
    if not endpoint or is_value_of_live_token(conversation, server_pk, value, access_token_uuid):
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
    """Delete the revocation, with its token, and record the outcome: `revoked`, or the code of the last error."""
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


def _correct_future_rows(now: datetime) -> None:
    """Set dates in the future to `now`. They were written by a process with a wrong clock.

    A worker would wait until then. Meanwhile the token would stay valid at the brand, and stored here for more than 15
    minutes (K6).
    """
    in_future = Revocation.objects.filter(created_at__gt=now + CLOCK_TOLERANCE)
    in_future.update(created_at=now, next_attempt_at=now, lease_until=None)


def overdue_revocations(now: datetime) -> list[Revocation]:
    """Return revocations older than 15 minutes, which must be erased even if no worker runs (K6).

    The whole table is read on purpose. It holds only the revocations of about 15 minutes. An index on `created_at`
    would cost more at each termination than this read costs once a minute.
    """
    _correct_future_rows(now)
    overdue = Revocation.objects.filter(created_at__lte=now - REVOCATION_LIFETIME)
    return list(overdue.select_related("conversation__brand"))
