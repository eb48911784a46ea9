"""Where a conversation stands at an authorization server: the one answer that a bot branches on."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from django.db import models
from django.db.models import F

from brands.models import AuthorizationServer
from conversations.models import OPEN_STATUSES, AccessToken, Challenge, ChallengeStatus, Conversation
from delegation_site.compiled import CompiledQuery, Parameter

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


class AuthorizationStatus(StrEnum):
    """In order of precedence."""

    CLOSED = "closed"
    AUTHORIZED = "authorized"
    CONFIRMATION_NEEDED = "confirmation_needed"
    CHALLENGED = "challenged"
    RECHALLENGE_REQUIRED = "rechallenge_required"
    UNCHALLENGED = "unchallenged"


@dataclass(frozen=True)
class Standing:
    """The status with what it rests on: the readable token, the open challenge, or why the last token ended.

    `last_challenge` is the newest one once it is over: without it a bot that kept no id could not tell a consumer who
    said no from one who was never asked.
    """

    status: AuthorizationStatus
    reason: str = ""
    challenge: Challenge | None = None
    access_token: AccessToken | None = None
    last_challenge: Challenge | None = None


def standing(conversation: Conversation, server: AuthorizationServer, now: datetime) -> Standing:
    """Tell where the conversation stands at `now`, from rows and clock alone: nothing is written."""
    if conversation.closed_at is not None:
        return Standing(AuthorizationStatus.CLOSED)
    challenge, ended = _open_or_ended(conversation, server, now)
    confirmed = conversation.access_tokens.filter(authorization_server=server, confirmed_at__isnull=False)
    # The one that has not ended comes first, whatever the clocks of two machines said when each was confirmed.
    latest = (F("ended_at").desc(nulls_first=True), "-confirmed_at", "-id")
    last = confirmed.select_related("challenge").order_by(*latest).first()
    reason = last.end_reason_at(now) if last else ""
    if reason == AccessToken.EndReason.CLOSED:
        # Closed between the two queries.
        return Standing(AuthorizationStatus.CLOSED)
    if last and not reason:
        return Standing(AuthorizationStatus.AUTHORIZED, challenge=challenge, access_token=last, last_challenge=ended)
    if challenge and challenge.status == ChallengeStatus.CONFIRMATION_NEEDED:
        return Standing(AuthorizationStatus.CONFIRMATION_NEEDED, challenge=challenge)
    if challenge:
        return Standing(AuthorizationStatus.CHALLENGED, challenge=challenge)
    if last:
        return Standing(AuthorizationStatus.RECHALLENGE_REQUIRED, reason, last_challenge=ended)
    return Standing(AuthorizationStatus.UNCHALLENGED, last_challenge=ended)


def _open_or_ended(
    conversation: Conversation, server: AuthorizationServer, now: datetime
) -> tuple[Challenge | None, Challenge | None]:
    """Return the newest challenge as the first of two where it is open, else as the second.

    An open one is always the newest: no other is inserted before it has ended, which a database constraint holds.
    """
    newest = _NEWEST_CHALLENGE.first(conversation=conversation.pk, server=server.pk)
    is_open = newest is not None and newest.status_at(now) in OPEN_STATUSES
    return (newest, None) if is_open else (None, newest)


def open_challenge(conversation: Conversation, server: AuthorizationServer, now: datetime) -> Challenge | None:
    """Return the challenge that still leads somewhere; a database constraint says there is at most one."""
    return _OPEN_CHALLENGE.first(conversation=conversation.pk, server=server.pk, now=now)
