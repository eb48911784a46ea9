"""Revocations in the outbox: the worker sends the revocation requests (RFC 7009)."""

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from brands.models import AuthorizationServer
from conversations.flow.revocations import finish_revocation, is_value_of_live_token
from conversations.models import Revocation
from infrastructure import database_clock
from infrastructure.crypto import DecryptionError
from infrastructure.leases import Outbox, Places
from infrastructure.outbox import pause_after, put_off
from oauth_client import AuthorizationServerError, ErrorCode, revoke_token

FIRST_PAUSE: Final = timedelta(seconds=5)
LONGEST_PAUSE: Final = timedelta(minutes=2)

_OUTBOX: Final = Outbox(
    "authorization_server",
    lambda: Revocation.objects.select_related("conversation__brand", "authorization_server__brand"),
    AuthorizationServer.objects.all,
)

logger = logging.getLogger("consumer_delegation.revocation")


def lease_revocations(now: datetime, limit: int) -> list[Revocation]:
    """Lease due revocations, within the limits of `infrastructure.leases` for each authorization server and brand."""
    return [row for (row,) in _OUTBOX.lease(now, limit, Places())]


def attempt_revocation(revocation: Revocation) -> Callable[[], None]:
    """Ask the server to revoke one token. Return a function that stores the result, or schedules another attempt.

    A result is stored by erasing the token, even if it could not be revoked. Blocks for up to 10 seconds. It is safe to
    call the returned function again after a database failure.
    """
    server = revocation.authorization_server
    if server.revocation_endpoint != revocation.revocation_endpoint:
        # The endpoint has changed: do not send the token. An admin could otherwise have consumers' live tokens sent to
        # the admin's own host.
        return _finish(revocation, ErrorCode.CONFIGURATION_CHANGED)
    try:
        access_token = revocation.reveal_access_token()
        if is_value_of_live_token(revocation.conversation, server.pk, access_token, revocation.access_token_uuid):
            # The server has issued the same token again. To revoke it would end the live one.
            return _finish(revocation, "in_use_again")
        with server.in_private_networks():
            revoke_token(server.configuration(scope=""), access_token, server.reveal_credentials())
    except AuthorizationServerError as error:
        logger.warning("revocation failed", extra={"error": str(error), "revocation": str(revocation.uuid)})
        if error.is_retryable:
            return _put_off_or_give_up(revocation, error.error)
        return _finish(revocation, error.error)
    except DecryptionError:
        # During a key rotation another process may encrypt with a key that this process does not have yet. So try
        # again.
        logger.warning("a revocation could not be decrypted", extra={"revocation": str(revocation.uuid)})
        return _put_off_or_give_up(revocation, "unreadable")
    return _finish(revocation, "revoked")


def revoke(revocation: Revocation) -> None:
    """Do one `attempt_revocation`, and store its result at once."""
    attempt_revocation(revocation)()


def _finish(revocation: Revocation, outcome: str) -> Callable[[], None]:
    return partial(finish_revocation, revocation, outcome, database_clock.now())


def _put_off_or_give_up(revocation: Revocation, outcome: str) -> Callable[[], None]:
    """Try again later.

    If the lifetime of the revocation is over then, give up: the token is erased, still unrevoked.
    """
    next_attempt_at = database_clock.now() + pause_after(revocation.attempts, FIRST_PAUSE, LONGEST_PAUSE)
    if next_attempt_at >= revocation.give_up_at:
        return _finish(revocation, outcome)
    return partial(put_off, revocation, next_attempt_at)
