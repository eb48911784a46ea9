"""Challenges, tokens and standings as bots read them: one form for every way in which a bot learns of them."""

from datetime import datetime
from typing import Any

from conversations.flow.standing import Standing
from conversations.models import AccessToken, Challenge, ChallengeStatus


def challenge_facts(challenge: Challenge, now: datetime) -> dict[str, Any]:
    """Return a challenge as bots read it: never the link, a state or a code (G5)."""
    context = challenge.reveal_context()
    status = challenge.status_at(now)
    return {
        "challenge_id": str(challenge.uuid),
        "conversation_id": challenge.conversation.external_id,
        "authorization_server": challenge.authorization_server.key,
        "status": status.value,
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
        "ended_at": _ended_at(challenge, status),
        "expires_at": challenge.expires_at,
        "expires_in": seconds_left(challenge.expires_at, now),
    }


def ended_challenge_facts(challenge: Challenge, now: datetime) -> dict[str, Any]:
    """Return how a challenge ended, in the words in which `challenge_facts` tells it."""
    status = challenge.status_at(now)
    return {
        "challenge_id": str(challenge.uuid),
        "status": status.value,
        "error": challenge.error or None,
        "last_error": challenge.last_error or None,
        "ended_at": _ended_at(challenge, status),
    }


def token_facts(access_token: AccessToken, now: datetime) -> dict[str, Any]:
    """Return what may be told of a token without the token."""
    asked, granted = access_token.challenge.scope.split(), access_token.scope.split()
    return {
        "token_type": access_token.token_type,
        "requested_scope": access_token.challenge.scope,
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
        "last_challenge": ended_challenge_facts(standing.last_challenge, now) if standing.last_challenge else None,
    }


def _ended_at(challenge: Challenge, status: ChallengeStatus) -> datetime | None:
    # Not when the sweep came by: the clock ended it, and says so before and after alike.
    return challenge.expires_at if status == ChallengeStatus.EXPIRED else challenge.ended_at


def seconds_left(expires_at: datetime, now: datetime) -> int:
    """Return whole seconds, rounded down and never negative: a bot may rely on every one of them."""
    return max(0, int((expires_at - now).total_seconds()))
