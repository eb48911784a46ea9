"""Rows of conversations: challenges, authorization requests, access tokens, revocations and webhook deliveries.

Primary keys are numbers; the API, webhooks and logs use the UUIDs. Each step of a process has a timestamp. What follows
from the clock is computed from `expires_at` at each read, so no job has to run for it to be true.
"""

from conversations.models.access_token import (
    READ_COUNT_RETENTION,
    REVOCATION_LIFETIME,
    AccessToken,
    ApiCallCount,
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
    status_at,
)
from conversations.models.hourly_count import HOURLY_COUNT_RETENTION, CountedAuditLog, HourlyCount
from conversations.models.trial_sign_in import TRIAL_LIFETIME, TRIAL_RETENTION, TrialSignIn
from conversations.models.webhook_delivery import DELIVERY_LIFETIME, DELIVERY_RETENTION, WebhookDelivery
from infrastructure.models import AuditEvent

__all__ = [
    "COMPLETION_ATTEMPTS",
    "COMPLETION_LIFETIME",
    "COOKIE_PREFIX",
    "DELIVERY_LIFETIME",
    "DELIVERY_RETENTION",
    "EXCHANGE_GIVEN_UP_AFTER",
    "HANDLE_LIFETIME",
    "HOURLY_COUNT_RETENTION",
    "IDEMPOTENCY_LIFETIME",
    "OPEN_STATUSES",
    "READ_COUNT_RETENTION",
    "REVOCATION_LIFETIME",
    "SIGN_IN_STATUSES",
    "TRIAL_LIFETIME",
    "TRIAL_RETENTION",
    "AccessToken",
    "ApiCallCount",
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
    "TrialSignIn",
    "WebhookDelivery",
    "status_at",
]
