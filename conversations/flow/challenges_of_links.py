"""Find the challenge of a consumer's link, by the digest of its token."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from django.db import models
from django.db.models import F

from conversations.flow.authorization_requests import (
    NOT_OF_SIGN_INS,
    authorization_request_of_closed_conversation,
)
from conversations.flow.new_challenges import LINK_TOKEN_PURPOSE
from conversations.models import Challenge
from infrastructure.compiled import CompiledQuery, numbered, placeholders
from infrastructure.crypto import key_ring

# What decides whether a sign-in may begin. All else is read again under the conversation's lock, or not at all.
_READ: Final = frozenset({"id", "uuid", "conversation", "authorization_server", "status", "expires_at"})
_UNREAD: Final = tuple(field.name for field in Challenge._meta.concrete_fields if field.name not in _READ)


def challenge_of_link(link_token: str) -> Challenge | None:
    """Find the challenge of this link token, ended or not.

    Returns None if it is unknown, its conversation is closed, or its brand or server is inactive.
    """
    digests = key_ring().digests(LINK_TOKEN_PURPOSE, link_token)
    return _by_link_token(len(digests)).first(**numbered("digest", digests))


def challenge_to_begin(link_token: str) -> Challenge | None:
    """As `challenge_of_link`, for a browser that begins a sign-in: with no more columns than that reads."""
    digests = key_ring().digests(LINK_TOKEN_PURPOSE, link_token)
    challenge = _to_begin(len(digests)).first(**numbered("digest", digests))
    if challenge is not None:
        challenge.authorization_server.brand = challenge.conversation.brand
    return challenge


def closed_challenge_of_browser(link_token: str, cookies: Mapping[str, str]) -> Challenge | None:
    """Find the challenge of this link in a closed conversation, for a browser that began it; None for all others."""
    digests = key_ring().digests(LINK_TOKEN_PURPOSE, link_token)
    authorization_request = authorization_request_of_closed_conversation(digests, cookies)
    return authorization_request.challenge if authorization_request else None


@lru_cache(maxsize=8)
def _by_link_token(digests: int) -> CompiledQuery[Challenge]:
    """Compile the query for a number of digests: one for each key of the key ring."""
    rows = _of_link(digests)
    return CompiledQuery(lambda: rows.select_related("conversation__brand", "authorization_server__brand"))


@lru_cache(maxsize=8)
def _to_begin(digests: int) -> CompiledQuery[Challenge]:
    rows = _of_link(digests).filter(authorization_server__brand=F("conversation__brand"))
    unread = (*_UNREAD, *NOT_OF_SIGN_INS)
    return CompiledQuery(lambda: rows.select_related("conversation__brand", "authorization_server").defer(*unread))


def _of_link(digests: int) -> models.QuerySet[Challenge]:
    return Challenge.objects.filter(
        link_token_digest__in=placeholders("digest", models.BinaryField(), digests),
        conversation__closed_at=None,
        conversation__brand__is_active=True,
        authorization_server__is_active=True,
    )
