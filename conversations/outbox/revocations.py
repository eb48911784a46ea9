"""Revocation at the brand (RFC 7009), second half: the worker presents the token."""

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from brands.models import AuthorizationServer
from conversations.flow.revocations import finish_revocation, is_still_in_use
from conversations.models import Revocation
from infrastructure import database_clock
from infrastructure.crypto import DecryptionError
from infrastructure.outbox import Destinations, lease_due, pause_after, put_off
from oauth_client import AuthorizationServerError, ErrorCode, revoke_token

FIRST_PAUSE: Final = timedelta(seconds=5)
LONGEST_PAUSE: Final = timedelta(minutes=2)

logger = logging.getLogger("consumer_delegation.revocation")


def lease_revocations(now: datetime, limit: int) -> list[Revocation]:
    """Take due revocations, at most two of each authorization server and three of each brand at once."""
    rows = Revocation.objects.select_related("conversation__brand", "authorization_server__brand")
    return lease_due(rows, Destinations("authorization_server", AuthorizationServer.objects.all()), now, limit)


def present(revocation: Revocation) -> Callable[[], None]:
    """Present one token; return what writes the result down: the token is erased, or waits for the next attempt.

    Blocks for up to 10 seconds. What it returns may be called again where the database was away meanwhile.
    """
    server = revocation.authorization_server
    if server.revocation_endpoint != revocation.revocation_endpoint:
        # Whoever may edit the endpoint must not have consumers' live tokens sent to a host of their own.
        return _finish(revocation, ErrorCode.CONFIGURATION_CHANGED)
    try:
        access_token = revocation.reveal_access_token()
        if is_still_in_use(revocation.conversation, server.pk, access_token, revocation.access_token_uuid):
            return _finish(revocation, "in_use_again")
        revoke_token(server.configuration(""), access_token, server.reveal_credentials())
    except AuthorizationServerError as error:
        logger.warning("revocation failed", extra={"error": str(error), "revocation": str(revocation.uuid)})
        if error.is_retryable:
            return _put_off_or_give_up(revocation, error.error)
        return _finish(revocation, error.error)
    except DecryptionError:
        # While the keys are rotated, another process may write with a key that this one has not got yet.
        logger.warning("a revocation could not be read", extra={"revocation": str(revocation.uuid)})
        return _put_off_or_give_up(revocation, "unreadable")
    return _finish(revocation, "revoked")


def revoke(revocation: Revocation) -> None:
    """Present one token, and write the result down."""
    present(revocation)()


def _finish(revocation: Revocation, outcome: str) -> Callable[[], None]:
    return partial(finish_revocation, revocation, outcome, database_clock.now())


def _put_off_or_give_up(revocation: Revocation, outcome: str) -> Callable[[], None]:
    next_attempt_at = database_clock.now() + pause_after(revocation.attempts, FIRST_PAUSE, LONGEST_PAUSE)
    if next_attempt_at >= revocation.given_up_at:
        return _finish(revocation, outcome)
    return partial(put_off, revocation, next_attempt_at)
