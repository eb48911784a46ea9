"""`Idempotency-Key`: a request that is sent again gets the challenge that its first time got, and never a second one.

Only digests are kept, and the challenge's id: the answer is read anew each time, so that nothing stored holds a link,
a token or what the bot sent. The keys are a brand's own.
"""

from dataclasses import dataclass, field
from datetime import datetime

from conversations.flow.errors import IdempotencyKeyReused
from conversations.models import IDEMPOTENCY_LIFETIME, Challenge, Conversation, IdempotencyKey
from delegation_site.crypto import key_ring

_KEY, _REQUEST = "idempotency-key", "idempotent-request"


@dataclass(frozen=True)
class IdempotentRequest:
    """The key that a bot sent, and the body that came with it in one spelling."""

    key: str = field(repr=False)
    body: bytes = field(repr=False)


def challenge_of_request(conversation: Conversation, request: IdempotentRequest, now: datetime) -> Challenge | None:
    """Return what the request got at its first time, within 24 hours; None at the first time.

    The caller holds the conversation's lock. Raises `IdempotencyKeyReused`.
    """
    kept = IdempotencyKey.objects.filter(
        brand=conversation.brand, digest__in=key_ring().digests(_KEY, conversation.brand.uuid.bytes, request.key)
    )
    # An older one stands in the way of the constraint until the sweep has been here.
    kept.filter(created_at__lte=now - IDEMPOTENCY_LIFETIME).delete()
    row = kept.select_related("challenge__conversation__brand", "challenge__authorization_server").first()
    if row is None:
        return None
    _refuse_another_request(row, conversation, request)
    return row.challenge


def remember_request(
    conversation: Conversation, request: IdempotentRequest, challenge: Challenge, now: datetime
) -> None:
    """Keep that this request got this challenge, in the transaction that issued it. Raises `IdempotencyKeyReused`.

    Two conversations may come with one key at the same moment, each under its own lock. The constraint lets one in;
    the other's transaction is undone, challenge and all.
    """
    row, is_first = IdempotencyKey.objects.get_or_create(
        brand=conversation.brand,
        digest=key_ring().digest(_KEY, conversation.brand.uuid.bytes, request.key),
        defaults={
            "request_digest": key_ring().digest(_REQUEST, conversation.uuid.bytes, request.body),
            "challenge": challenge,
            "created_at": now,
        },
    )
    if not is_first:
        _refuse_another_request(row, conversation, request)


def _refuse_another_request(row: IdempotencyKey, conversation: Conversation, request: IdempotentRequest) -> None:
    if not key_ring().recognises(row.request_digest, _REQUEST, conversation.uuid.bytes, request.body):
        raise IdempotencyKeyReused
