"""The button: a fresh attempt, and the address at the brand that its browser is sent to."""

from dataclasses import dataclass, field
from datetime import datetime

from django.utils import timezone

from brands.oauth import AuthorizationServerError, ErrorCode, authorization_url, pushed_authorization_url
from conversations.flow.attempts import BegunAttempt, begin_attempt, claim
from conversations.flow.capacity import ServerBusy, exchange_slot
from conversations.flow.results import record_failure
from conversations.models import AuthorizationRequest, Challenge
from delegation_site.crypto import DecryptionError, Secret


@dataclass(frozen=True)
class BegunSignIn:
    """Where to send the browser, None where the brand would not have it, and the cookie that it must bring back."""

    attempt: AuthorizationRequest
    cookie: Secret
    authorization_url: str | None = field(repr=False)


def begin_sign_in(challenge: Challenge, now: datetime) -> BegunSignIn | None:
    """Begin an attempt; where the brand takes them, push its request there first (RFC 9126, B21).

    The push runs after the transaction that inserts the attempt: a brand is slow on its worst day. When it fails, the
    attempt has ended as after a callback, and the consumer is offered another. Returns None where the challenge no
    longer accepts a sign-in.
    """
    begun = begin_attempt(challenge, now)
    if begun is None:
        return None
    try:
        url = _authorization_url(begun)
    except AuthorizationServerError as error:
        return _failed(begun, error.error, error.detail)
    except ServerBusy:
        return _failed(begun, ErrorCode.TEMPORARILY_UNAVAILABLE, "as many calls run as are allowed")
    except DecryptionError:
        return _failed(begun, ErrorCode.STORED_SECRET_UNREADABLE, "")
    return BegunSignIn(begun.attempt, begun.cookie, url)


def _authorization_url(begun: BegunAttempt) -> str:
    configuration = begun.attempt.stored_configuration()
    if not configuration.pushed_authorization_request_endpoint:
        return authorization_url(configuration, **begun.parameters)
    server = begun.attempt.challenge.authorization_server
    with exchange_slot(server.pk):
        return pushed_authorization_url(configuration, server.reveal_credentials(), **begun.parameters)


def _failed(begun: BegunAttempt, error: ErrorCode, detail: str) -> BegunSignIn:
    # Claimed first: pages tell how a claimed attempt ended. No callback can come, since no browser learned its state.
    claim(begun.attempt, timezone.now())
    record_failure(begun.attempt, error, detail, timezone.now())
    return BegunSignIn(begun.attempt, begun.cookie, None)
