"""Brands, their authorization servers, bot keys and webhook endpoints."""

from brands.models.authorization_server import AuthorizationServer
from brands.models.brand import (
    LIMITS_OF_A_KEY,
    UNUSUAL_SHOWN,
    BotKey,
    Brand,
    BrandRowsQuerySet,
    ConversationIds,
    Logo,
    may_use_check,
    memberships_of,
)
from brands.models.brand_api import BrandAPI, Operation
from brands.models.private_networks import AllowedNetwork, NetworkUse
from brands.models.same_person import ExpectedClaimsPolicy, SamePersonCheck
from brands.models.server_health import ServerHealth, ServerProblem
from brands.models.unsaved_client_secret import UNSAVED_SECRET_LIFETIME, UnsavedClientSecret, session_digest
from brands.models.webhook_endpoint import EVENT_PATTERNS, WebhookEndpoint, WebhookEvent

__all__ = [
    "EVENT_PATTERNS",
    "LIMITS_OF_A_KEY",
    "UNSAVED_SECRET_LIFETIME",
    "UNUSUAL_SHOWN",
    "AllowedNetwork",
    "AuthorizationServer",
    "BotKey",
    "Brand",
    "BrandAPI",
    "BrandRowsQuerySet",
    "ConversationIds",
    "ExpectedClaimsPolicy",
    "Logo",
    "NetworkUse",
    "Operation",
    "SamePersonCheck",
    "ServerHealth",
    "ServerProblem",
    "UnsavedClientSecret",
    "WebhookEndpoint",
    "WebhookEvent",
    "may_use_check",
    "memberships_of",
    "session_digest",
]
