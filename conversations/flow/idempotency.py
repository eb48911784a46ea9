"""Idempotency keys: a repeated call gets the challenge that the first one got."""

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from conversations.flow.errors import IdempotencyKeyReused
from conversations.models import IDEMPOTENCY_LIFETIME, Challenge, Conversation, IdempotencyKey
from infrastructure.crypto import key_ring

_KEY, _REQUEST = "idempotency-key", "idempotent-request"


@dataclass(frozen=True)
class IdempotentRequest:
    """A bot's idempotency key and the canonical form of the body of the same call."""

    key: str = field(repr=False)
    body: bytes = field(repr=False)


def digests_of(request: IdempotentRequest, brand: UUID, conversation: UUID) -> tuple[bytes, bytes]:
    """Return the digests that are stored of the key and of the body, by the UUIDs of brand and conversation."""
    ring = key_ring()
    return ring.digest(_KEY, brand.bytes, request.key), ring.digest(_REQUEST, conversation.bytes, request.body)


def challenge_of_request(conversation: Conversation, request: IdempotentRequest, now: datetime) -> Challenge | None:
    """Return the challenge that an earlier call with this idempotency key got; None if the key is new or expired.

    The caller holds the conversation's lock. Raises `IdempotencyKeyReused`.
    """
    kept = IdempotencyKey.objects.filter(
        brand=conversation.brand, digest__in=key_ring().digests(_KEY, conversation.brand.uuid.bytes, request.key)
    )
    # An expired key would still violate the unique constraint, so delete it now.
    kept.filter(created_at__lte=now - IDEMPOTENCY_LIFETIME).delete()
    row = kept.select_related("challenge__conversation__brand", "challenge__authorization_server").first()
    if row is None:
        return None
    _refuse_another_request(row, conversation, request)
    return row.challenge


def remember_request(
    conversation: Conversation, request: IdempotentRequest, challenge: Challenge, now: datetime
) -> None:
    """Store which challenge this call got, in the transaction that issued it. Raises `IdempotencyKeyReused`.

    Two conversations may use one key at the same moment, each under its own lock. The constraint accepts one of them.
    The other transaction is rolled back, with its challenge.
    """
    digest, request_digest = digests_of(request, conversation.brand.uuid, conversation.uuid)
    row, is_first = IdempotencyKey.objects.get_or_create(
        brand=conversation.brand,
        digest=digest,
        defaults={"request_digest": request_digest, "challenge": challenge, "created_at": now},
    )
    if not is_first:
        _refuse_another_request(row, conversation, request)


def _refuse_another_request(row: IdempotencyKey, conversation: Conversation, request: IdempotentRequest) -> None:
    if not key_ring().recognises(row.request_digest, _REQUEST, conversation.uuid.bytes, request.body):
        raise IdempotencyKeyReused
