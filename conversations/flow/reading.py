"""Reading the token: nothing is written, whatever the answer."""

from datetime import datetime

from brands.models import AuthorizationServer
from conversations.flow.challenges import WantedChallenge
from conversations.flow.errors import (
    ConversationClosed,
    InsufficientLifetime,
    InvalidScope,
    MissingScope,
    NotInThisStatus,
)
from conversations.flow.facts import seconds_left
from conversations.flow.standing import AuthorizationStatus, standing
from conversations.models import AccessToken, Conversation


def readable_token(conversation: Conversation, server: AuthorizationServer, min_ttl: int, now: datetime) -> AccessToken:
    """Return the conversation's token if it can be used for at least `min_ttl` seconds from `now`.

    Raises `ConversationClosed`, `NotInThisStatus`, `InsufficientLifetime`.
    """
    found = standing(conversation, server, now)
    if found.status == AuthorizationStatus.CLOSED:
        raise ConversationClosed
    if found.status != AuthorizationStatus.AUTHORIZED or found.access_token is None:
        raise NotInThisStatus(found)
    _refuse_short_life(found.access_token, min_ttl, now)
    return found.access_token


def refuse_missing_scope(access_token: AccessToken, server: AuthorizationServer, needed: str) -> None:
    """Check that a token holds all of a scope (RFC 6749 section 3.3). Raises `MissingScope`.

    Raises `InvalidScope` for what no challenge could bring: it would send the bot round in a circle.
    """
    granted, configured = access_token.scope.split(), server.scope.split()
    missing = [scope for scope in dict.fromkeys(needed.split()) if scope not in granted]
    if not set(missing) <= set(configured):
        raise InvalidScope
    if missing:
        asked = access_token.challenge.scope
        raise MissingScope(requested=asked, granted=access_token.scope, missing=" ".join(missing))


def usable_token(
    conversation: Conversation, wanted: WantedChallenge, min_ttl: int, now: datetime
) -> AccessToken | None:
    """Return the token that spares the bot the challenge it asks for, if there is one.

    Raises `ConversationClosed`, and `InsufficientLifetime` where the challenge would send the consumer in a circle:
    from one sign-in to the next, each with a token that is too short.
    """
    try:
        access_token = readable_token(conversation, wanted.server, 0, now)
    except NotInThisStatus:
        return None
    if not wanted.is_met_by(access_token):
        return None
    try:
        _refuse_short_life(access_token, min_ttl, now)
    except InsufficientLifetime as error:
        if error.is_for_good:
            raise
        return None
    return access_token


def _refuse_short_life(access_token: AccessToken, min_ttl: int, now: datetime) -> None:
    expires_in = seconds_left(access_token.expires_at, now)
    if expires_in < min_ttl:
        lifetime = seconds_left(access_token.expires_at, access_token.issued_at)
        raise InsufficientLifetime(expires_in, lifetime, min_ttl)
