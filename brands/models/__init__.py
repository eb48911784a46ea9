"""Brands, the authorization servers they sign their consumers in at, the keys of their bots, and their webhooks."""

from brands.models.authorization_server import AuthorizationServer
from brands.models.brand import BotKey, Brand, BrandRowsQuerySet, Logo, memberships_of
from brands.models.same_person import SamePersonCheck
from brands.models.webhook_endpoint import EVENT_PATTERNS, WebhookEndpoint, WebhookEvent

__all__ = [
    "EVENT_PATTERNS",
    "AuthorizationServer",
    "BotKey",
    "Brand",
    "BrandRowsQuerySet",
    "Logo",
    "SamePersonCheck",
    "WebhookEndpoint",
    "WebhookEvent",
    "memberships_of",
]
