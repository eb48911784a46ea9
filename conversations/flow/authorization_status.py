"""The authorization status of a conversation at an authorization server, and the JSON that bots get."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, NamedTuple, Protocol
from uuid import UUID

from django.db import models
from django.db.models import F

from brands.models import AuthorizationServer
from conversations.models import OPEN_STATUSES, AccessToken, Challenge, ChallengeStatus, Conversation, status_at
from infrastructure.compiled import CompiledQuery, Parameter
from infrastructure.crypto import Secret

_OPEN_CHALLENGE: Final = CompiledQuery(
    lambda: (
        Challenge.objects.open(Parameter("now", models.DateTimeField()))
        .filter(
            conversation_id=Parameter("conversation", models.BigIntegerField()),
            authorization_server_id=Parameter("server", models.BigIntegerField()),
        )
        .select_related("authorization_server", "conversation__brand")
    )
)
_NEWEST_CHALLENGE: Final = CompiledQuery(
    lambda: (
        Challenge.objects.filter(
            conversation_id=Parameter("conversation", models.BigIntegerField()),
            authorization_server_id=Parameter("server", models.BigIntegerField()),
        )
        .order_by("-id")
        .select_related("authorization_server", "conversation__brand")[:1]
    )
)
# A token that has not ended comes first. Two machines' clocks may differ, so `confirmed_at` alone is not enough.
_LATEST_TOKEN: Final = CompiledQuery(
    lambda: (
        AccessToken.objects.filter(
            conversation_id=Parameter("conversation", models.BigIntegerField()),
            authorization_server_id=Parameter("server", models.BigIntegerField()),
            confirmed_at__isnull=False,
        )
        .order_by(F("ended_at").desc(nulls_first=True), "-confirmed_at", "-id")
        .select_related("challenge")[:1]
    )
)


class AuthorizationStatus(StrEnum):
    """What bots branch on. If several apply, the first in this list is used."""

    CLOSED = "closed"
    AUTHORIZED = "authorized"
    CONFIRMATION_NEEDED = "confirmation_needed"
    CHALLENGED = "challenged"
    RECHALLENGE_REQUIRED = "rechallenge_required"
    UNCHALLENGED = "unchallenged"


@dataclass(frozen=True)
class Authorization:
    """The status with its evidence: the readable token, the open challenge, or why the last token ended.

    `last_challenge` is the newest challenge if it is over. A bot that stored no challenge id needs it to distinguish a
    consumer who refused from one who was never asked.
    """

    status: AuthorizationStatus
    reason: str = ""
    challenge: Challenge | None = None
    access_token: AccessToken | None = None
    last_challenge: Challenge | None = None


def authorization_of(conversation: Conversation, server: AuthorizationServer, now: datetime) -> Authorization:
    """Compute the status at `now` from the stored rows and the clock. Nothing is written."""
    if conversation.closed_at is not None:
        return Authorization(AuthorizationStatus.CLOSED)
    challenge, ended = _newest_challenge(conversation, server, now)
    last = _LATEST_TOKEN.first(conversation=conversation.pk, server=server.pk)
    if last:
        last.conversation = conversation
    reason = last.end_reason_at(now) if last else ""
    if reason == AccessToken.EndReason.CLOSED:
        # The conversation was closed between the two queries.
        return Authorization(AuthorizationStatus.CLOSED)
    if last and not reason:
        return Authorization(
            AuthorizationStatus.AUTHORIZED, challenge=challenge, access_token=last, last_challenge=ended
        )
    if challenge and challenge.status == ChallengeStatus.CONFIRMATION_NEEDED:
        return Authorization(AuthorizationStatus.CONFIRMATION_NEEDED, challenge=challenge)
    if challenge:
        return Authorization(AuthorizationStatus.CHALLENGED, challenge=challenge)
    if last:
        return Authorization(AuthorizationStatus.RECHALLENGE_REQUIRED, reason, last_challenge=ended)
    return Authorization(AuthorizationStatus.UNCHALLENGED, last_challenge=ended)


def _newest_challenge(
    conversation: Conversation, server: AuthorizationServer, now: datetime
) -> tuple[Challenge | None, Challenge | None]:
    """Return the newest challenge as (challenge, None) if it is open, else as (None, challenge).

    If a challenge is open, it is the newest: a database constraint prevents a second one beside it.
    """
    newest = _NEWEST_CHALLENGE.first(conversation=conversation.pk, server=server.pk)
    is_open = newest is not None and newest.status_at(now) in OPEN_STATUSES
    return (newest, None) if is_open else (None, newest)


def open_challenge(conversation: Conversation, server: AuthorizationServer, now: datetime) -> Challenge | None:
    """Return the open challenge that has not expired. A database constraint allows at most one."""
    return _OPEN_CHALLENGE.first(conversation=conversation.pk, server=server.pk, now=now)


class ChallengeFacts(Protocol):
    """The columns of a challenge that bots may read: a `Challenge`, or the row of a query."""

    @property
    def uuid(self) -> UUID: ...
    @property
    def status(self) -> str: ...
    @property
    def error(self) -> str: ...
    @property
    def last_error(self) -> str: ...
    @property
    def same_person_check(self) -> str: ...
    @property
    def scope(self) -> str: ...
    @property
    def acr_values(self) -> str: ...
    @property
    def max_age(self) -> int | None: ...
    @property
    def purpose(self) -> str: ...
    @property
    def purpose_by_locale(self) -> Any: ...
    @property
    def locale(self) -> str: ...
    @property
    def issued_at(self) -> datetime: ...
    @property
    def started_at(self) -> datetime | None: ...
    @property
    def confirmation_needed_at(self) -> datetime | None: ...
    @property
    def completed_at(self) -> datetime | None: ...
    @property
    def ended_at(self) -> datetime | None: ...
    @property
    def expires_at(self) -> datetime: ...


class ChallengePlace(NamedTuple):
    """Where a challenge belongs, in the words of bots."""

    conversation_id: str
    session: int
    authorization_server: str


def challenge_representation(challenge: Challenge, now: datetime) -> dict[str, Any]:
    """Return a challenge as bots read it. The link, the state and the code are never in it (G5)."""
    context, conversation = challenge.reveal_context(), challenge.conversation
    place = ChallengePlace(conversation.external_id, conversation.session, challenge.authorization_server.key)
    return representation_of(challenge, place, context, now)


def representation_of(
    challenge: ChallengeFacts, place: ChallengePlace, context: Secret | None, now: datetime
) -> dict[str, Any]:
    """As `challenge_representation`, from columns. `context` is what the bot sent with the challenge."""
    status = status_at(challenge.status, challenge.expires_at, now)
    return {
        "challenge_id": str(challenge.uuid),
        "conversation_id": place.conversation_id,
        "session": place.session,
        "authorization_server": place.authorization_server,
        "status": status.value,
        "error": challenge.error or None,
        "last_error": challenge.last_error or None,
        "same_person_check": challenge.same_person_check,
        "scope": challenge.scope,
        "acr_values": challenge.acr_values or None,
        "max_age": challenge.max_age,
        "purpose": challenge.purpose_by_locale or challenge.purpose or None,
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


def ended_challenge_representation(challenge: Challenge, now: datetime) -> dict[str, Any]:
    """Return how a challenge ended, with the same members as `challenge_representation`."""
    status = challenge.status_at(now)
    return {
        "challenge_id": str(challenge.uuid),
        "status": status.value,
        "error": challenge.error or None,
        "last_error": challenge.last_error or None,
        "ended_at": _ended_at(challenge, status),
    }


class TokenFacts(Protocol):
    """The columns of a token that bots may read: an `AccessToken`, or the row of a query."""

    @property
    def token_type(self) -> str: ...
    @property
    def scope(self) -> str: ...
    @property
    def assurance(self) -> str: ...
    @property
    def matched_claims(self) -> str: ...
    @property
    def acr(self) -> str: ...
    @property
    def amr(self) -> str: ...
    @property
    def auth_time(self) -> datetime | None: ...
    @property
    def is_subject_pinned(self) -> bool: ...
    @property
    def issued_at(self) -> datetime: ...
    @property
    def expires_at(self) -> datetime: ...
    @property
    def lifetime_assumed(self) -> bool: ...


def token_representation(access_token: TokenFacts, requested_scope: str, now: datetime) -> dict[str, Any]:
    """Return what bots and webhooks get about a token, without the token itself."""
    asked, granted = requested_scope.split(), access_token.scope.split()
    return {
        "token_type": access_token.token_type,
        "requested_scope": requested_scope,
        "scope": access_token.scope,
        "missing_scope": " ".join(scope for scope in asked if scope not in granted),
        "assurance": access_token.assurance,
        "matched_claims": access_token.matched_claims.split(),
        "acr": access_token.acr or None,
        "amr": access_token.amr.split(),
        "auth_time": access_token.auth_time,
        "subject_pinned": access_token.is_subject_pinned,
        "issued_at": access_token.issued_at,
        "expires_at": access_token.expires_at,
        "expires_in": seconds_left(access_token.expires_at, now),
        "lifetime_assumed": access_token.lifetime_assumed,
    }


def _token_representation(access_token: AccessToken | None, now: datetime) -> dict[str, Any] | None:
    return token_representation(access_token, access_token.challenge.scope, now) if access_token else None


def conversation_representation(server_key: str, authorization: Authorization, now: datetime) -> dict[str, Any]:
    """Return the authorization status of a conversation at one authorization server, as bots read it."""
    return {
        "authorization_server": server_key,
        "status": authorization.status.value,
        "reason": authorization.reason or None,
        "challenge": challenge_representation(authorization.challenge, now) if authorization.challenge else None,
        "access_token": _token_representation(authorization.access_token, now),
        "last_challenge": ended_challenge_representation(authorization.last_challenge, now)
        if authorization.last_challenge
        else None,
    }


def _ended_at(challenge: ChallengeFacts, status: ChallengeStatus) -> datetime | None:
    # The expiry and not the time of the sweep, so that the answer is the same before and after the sweep.
    return challenge.expires_at if status == ChallengeStatus.EXPIRED else challenge.ended_at


def seconds_left(expires_at: datetime, now: datetime) -> int:
    """Return whole seconds, rounded down and never negative, so that a bot can rely on the number."""
    return max(0, int((expires_at - now).total_seconds()))
