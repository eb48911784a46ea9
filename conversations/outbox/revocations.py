"""Revocation at the brand (RFC 7009), second half: the worker presents the token."""

import logging
from datetime import datetime, timedelta
from typing import Final

from django.utils import timezone

from brands.models import AuthorizationServer
from brands.oauth import AuthorizationServerError, ErrorCode, revoke_token
from conversations.flow.revocations import finish_revocation, is_still_in_use
from conversations.models import Revocation
from conversations.outbox.leases import Destinations, lease_due, pause_after
from delegation_site.crypto import DecryptionError

FIRST_PAUSE: Final = timedelta(seconds=5)
LONGEST_PAUSE: Final = timedelta(minutes=2)

logger = logging.getLogger("consumer_delegation.revocation")


def lease_revocations(now: datetime, limit: int) -> list[Revocation]:
    """Take due revocations, at most two of each authorization server and three of each brand at once."""
    rows = Revocation.objects.select_related("conversation__brand", "authorization_server__brand")
    return lease_due(rows, Destinations("authorization_server", AuthorizationServer.objects.all()), now, limit)


def revoke(revocation: Revocation) -> None:
    """Present one token; afterwards it is erased, or waits for the next attempt. Blocks for up to 10 seconds."""
    server = revocation.authorization_server
    if server.revocation_endpoint != revocation.revocation_endpoint:
        # Whoever may edit the endpoint must not have consumers' live tokens sent to a host of their own.
        finish_revocation(revocation, ErrorCode.CONFIGURATION_CHANGED, timezone.now())
        return
    try:
        access_token = revocation.reveal_access_token()
        if is_still_in_use(revocation.conversation, server.pk, access_token, revocation.access_token_uuid):
            finish_revocation(revocation, "in_use_again", timezone.now())
            return
        revoke_token(server.configuration(""), access_token, server.reveal_credentials())
    except AuthorizationServerError as error:
        logger.warning("revocation failed", extra={"error": str(error), "revocation": str(revocation.uuid)})
        if error.is_retryable:
            _put_off_or_give_up(revocation, error.error, timezone.now())
        else:
            finish_revocation(revocation, error.error, timezone.now())
    except DecryptionError:
        # While the keys are rotated, another process may write with a key that this one has not got yet.
        logger.warning("a revocation could not be read", extra={"revocation": str(revocation.uuid)})
        _put_off_or_give_up(revocation, "unreadable", timezone.now())
    else:
        finish_revocation(revocation, "revoked", timezone.now())


def _put_off_or_give_up(revocation: Revocation, outcome: str, now: datetime) -> None:
    next_attempt_at = now + pause_after(revocation.attempts, FIRST_PAUSE, LONGEST_PAUSE)
    if next_attempt_at >= revocation.given_up_at:
        finish_revocation(revocation, outcome, now)
        return
    # Only while the lease is still ours: another worker may have taken the row over.
    mine = Revocation.objects.filter(pk=revocation.pk, lease_until=revocation.lease_until)
    mine.update(next_attempt_at=next_attempt_at, lease_until=None)
