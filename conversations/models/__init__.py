"""Conversations, the challenges in them, and the access tokens that never leave them.

Numbers inside, UUIDs outside. A row of a step holds the moment it was taken. What the clock implies is computed from
`expires_at` on reading; nothing has to run for it to be true.
"""

from conversations.models.access_token import (
    READ_COUNTS_KEPT_FOR,
    REVOCATION_LIFETIME,
    AccessToken,
    Revocation,
    TokenReadCount,
)
from conversations.models.authorization_request import COOKIE_PREFIX, EXCHANGE_GIVEN_UP_AFTER, AuthorizationRequest
from conversations.models.conversation import (
    COMPLETION_ATTEMPTS,
    COMPLETION_LIFETIME,
    HANDLE_LIFETIME,
    IDEMPOTENCY_LIFETIME,
    OPEN_STATUSES,
    SIGN_IN_STATUSES,
    Challenge,
    ChallengeStatus,
    Conversation,
    IdempotencyKey,
)
from conversations.models.hourly_count import HOURLY_COUNTS_KEPT_FOR, CountedAuditLog, HourlyCount
from conversations.models.webhook_delivery import DELIVERY_KEPT_FOR, DELIVERY_LIFETIME, WebhookDelivery
from infrastructure.models import AuditEvent

__all__ = [
    "COMPLETION_ATTEMPTS",
    "COMPLETION_LIFETIME",
    "COOKIE_PREFIX",
    "DELIVERY_KEPT_FOR",
    "DELIVERY_LIFETIME",
    "EXCHANGE_GIVEN_UP_AFTER",
    "HANDLE_LIFETIME",
    "HOURLY_COUNTS_KEPT_FOR",
    "IDEMPOTENCY_LIFETIME",
    "OPEN_STATUSES",
    "READ_COUNTS_KEPT_FOR",
    "REVOCATION_LIFETIME",
    "SIGN_IN_STATUSES",
    "AccessToken",
    "AuditEvent",
    "AuthorizationRequest",
    "Challenge",
    "ChallengeStatus",
    "Conversation",
    "CountedAuditLog",
    "HourlyCount",
    "IdempotencyKey",
    "Revocation",
    "TokenReadCount",
    "WebhookDelivery",
]
