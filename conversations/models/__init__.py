"""Conversations, the challenges in them, and the access tokens that never leave them.

Numbers inside, UUIDs outside. A row of a step holds the moment it was taken. What the clock implies is computed from
`expires_at` on reading; nothing has to run for it to be true.
"""

from conversations.models.access_token import AccessToken
from conversations.models.audit import AuditEvent
from conversations.models.authorization_request import EXCHANGE_GIVEN_UP_AFTER, AuthorizationRequest
from conversations.models.challenge import (
    COMPLETION_ATTEMPTS,
    COMPLETION_LIFETIME,
    OPEN_STATUSES,
    SIGN_IN_STATUSES,
    Challenge,
    ChallengeStatus,
)
from conversations.models.conversation import Conversation

__all__ = [
    "COMPLETION_ATTEMPTS",
    "COMPLETION_LIFETIME",
    "EXCHANGE_GIVEN_UP_AFTER",
    "OPEN_STATUSES",
    "SIGN_IN_STATUSES",
    "AccessToken",
    "AuditEvent",
    "AuthorizationRequest",
    "Challenge",
    "ChallengeStatus",
    "Conversation",
]
