"""Reading the token: nothing is written, whatever the answer."""

from datetime import datetime

from brands.models import AuthorizationServer
from conversations.flow.challenges import WantedChallenge
from conversations.flow.errors import ConversationClosed, InsufficientLifetime, NotInThisStatus
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
    expires_in = seconds_left(found.access_token.expires_at, now)
    if expires_in < min_ttl:
        raise InsufficientLifetime(expires_in)
    return found.access_token


def usable_token(
    conversation: Conversation, wanted: WantedChallenge, min_ttl: int, now: datetime
) -> AccessToken | None:
    """Return the token that spares the bot the challenge it asks for, if there is one. Raises `ConversationClosed`."""
    try:
        access_token = readable_token(conversation, wanted.server, min_ttl, now)
    except (NotInThisStatus, InsufficientLifetime):
        return None
    return access_token if wanted.is_met_by(access_token) else None
