"""What bots send and what they get, as typed shapes. The contract (`openapi.yaml`) is held against these by tests."""

from datetime import datetime
from typing import Annotated, Any

from msgspec import Meta, Struct

from conversations.flow.reading import seconds_left
from conversations.flow.standing import Standing
from conversations.models import AccessToken, Challenge

Key = Annotated[str, Meta(max_length=64)]
ScopeText = Annotated[str, Meta(max_length=1000)]


class ChallengeBody(Struct, kw_only=True, forbid_unknown_fields=True):
    """`POST .../challenges`; every field is optional."""

    authorization_server: Key = ""
    same_person_check: Annotated[str, Meta(max_length=24)] = ""
    expected_subject: Annotated[str, Meta(min_length=1, max_length=255)] | None = None
    scope: ScopeText = ""
    purpose: Annotated[
        str, Meta(max_length=140, pattern=r"^[^\x00-\x1f\x7f\u2028\u2029\u202a-\u202e\u2066-\u2069]*\Z")
    ] = ""
    locale: Annotated[str, Meta(pattern=r"^(?:[A-Za-z]{2,8}(?:-[A-Za-z0-9]{1,8}){0,3})?\Z")] = ""
    context: Annotated[str, Meta(max_length=1024)] | None = None
    replace: bool = False


class AuthorizeBody(ChallengeBody, kw_only=True, forbid_unknown_fields=True):
    """`POST .../authorize`: the same, and how long the token must live."""

    min_ttl: Annotated[int, Meta(ge=0, le=3600)] = 0


class CompletionBody(Struct, kw_only=True, forbid_unknown_fields=True):
    """`POST .../completion`: a code or a handle."""

    code: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    handle: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    authorization_server: Key = ""

    def __post_init__(self) -> None:
        """Refuse both and neither. msgspec makes it the answer to the call."""
        if (self.code is None) == (self.handle is None):
            raise ValueError("Give either `code` or `handle`")


def challenge_facts(challenge: Challenge, now: datetime) -> dict[str, Any]:
    """Return a challenge as bots read it: never the link, a state or a code (G5)."""
    context = challenge.reveal_context()
    return {
        "challenge_id": str(challenge.uuid),
        "conversation_id": challenge.conversation.external_id,
        "authorization_server": challenge.authorization_server.key,
        "status": challenge.status_at(now).value,
        "error": challenge.error or None,
        "last_error": challenge.last_error or None,
        "same_person_check": challenge.same_person_check,
        "scope": challenge.scope,
        "purpose": challenge.purpose or None,
        "locale": challenge.locale or None,
        "context": context.reveal() if context else None,
        "issued_at": challenge.issued_at,
        "started_at": challenge.started_at,
        "confirmation_needed_at": challenge.confirmation_needed_at,
        "completed_at": challenge.completed_at,
        "ended_at": challenge.ended_at,
        "expires_at": challenge.expires_at,
        "expires_in": seconds_left(challenge.expires_at, now),
    }


def token_facts(access_token: AccessToken, now: datetime) -> dict[str, Any]:
    """Return what may be told of a token without the token."""
    asked, granted = access_token.challenge.scope.split(), access_token.scope.split()
    return {
        "token_type": access_token.token_type,
        "scope": access_token.scope,
        "missing_scope": " ".join(scope for scope in asked if scope not in granted),
        "assurance": access_token.assurance,
        "issued_at": access_token.issued_at,
        "expires_at": access_token.expires_at,
        "expires_in": seconds_left(access_token.expires_at, now),
        "lifetime_assumed": access_token.lifetime_assumed,
    }


def standing_facts(server_key: str, standing: Standing, now: datetime) -> dict[str, Any]:
    """Return where a conversation stands at one authorization server."""
    return {
        "authorization_server": server_key,
        "status": standing.status.value,
        "reason": standing.reason or None,
        "challenge": challenge_facts(standing.challenge, now) if standing.challenge else None,
        "access_token": token_facts(standing.access_token, now) if standing.access_token else None,
    }
