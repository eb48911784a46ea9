"""Challenges as bots use them: issue one, return the open one again, withdraw it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from typing import Final
from uuid import uuid4

from django.db import models, transaction

from brands.models import AuthorizationServer, BotKey, Brand
from conversations.flow.authorization_status import open_challenge
from conversations.flow.errors import (
    ChallengeDiffers,
    ConversationClosed,
    SessionMismatch,
    TooManyChallenges,
    refuse_unnamed_session,
)
from conversations.flow.events import publish_challenge
from conversations.flow.expectations import expects_claims, expects_same_claims, expects_same_subject
from conversations.flow.idempotency import IdempotentRequest, challenge_of_request, remember_request
from conversations.flow.new_challenges import Judged, Wishes, new_challenge, record_issued, url_of_link
from conversations.flow.step_up import standing_demand
from conversations.flow.transitions import end_challenge, end_expired, locked_conversation, move_challenge
from conversations.models import (
    SIGN_IN_STATUSES,
    AccessToken,
    Challenge,
    ChallengeStatus,
    Conversation,
)
from infrastructure.audit import CONSUMER
from infrastructure.compiled import CompiledInsert, CompiledQuery, Parameter
from oauth_client.step_up import NO_DEMAND, AuthenticationDemand

# A conversation may have this many new challenges in this time, so that no chat is flooded with links (G8).
_MAX_NEW_CHALLENGES = 5
_NEW_CHALLENGES_PERIOD = timedelta(minutes=10)
_NEW_CONVERSATION: Final = CompiledInsert(Conversation, or_nothing=True)
_NEWEST_LOCKED: Final = CompiledQuery(
    lambda: (
        Conversation.objects.select_for_update(of=("self",))
        .select_related("brand")
        .filter(
            brand_id=Parameter("brand", models.BigIntegerField()),
            external_id=Parameter("external_id", models.CharField()),
        )
        .order_by("-session")[:1]
    )
)
_NEW_CHALLENGE: Final = CompiledInsert(Challenge)


@dataclass(frozen=True, kw_only=True)
class WantedChallenge(Wishes):
    """What a bot wishes, and where."""

    server: AuthorizationServer
    # None only outside the API: then every check that the server accepts may be used.
    bot_key: BotKey | None = None

    def judged(self) -> Judged:
        """As `judged_at`, for this server and this key. Raises what that raises."""
        return self.judged_at(self.server, self.bot_key.may_use if self.bot_key else lambda _: True)

    def is_satisfied_by(self, access_token: AccessToken) -> bool:
        """Whether a token was requested with everything that the bot names now.

        The comparison uses the requested scope, not the granted one. Otherwise a consumer who unticked a scope would be
        asked again without end. The bot learns of the refused scopes from `missing_scope`. For the same reason the
        expected claims are compared with those of the earlier challenge. `matched_claims` says which ones agreed.
        """
        asked = set(access_token.challenge.scope.split())
        same_check = self.same_person_check in {"", access_token.assurance}
        same_customer = self.expected_subject is None or expects_same_subject(
            access_token.challenge, self.expected_subject
        )
        same_customer = same_customer and expects_claims(access_token.challenge, self.expected_claims)
        return same_check and same_customer and set(self.scope.split()) <= asked


def issue_challenge(
    brand: Brand,
    external_id: str,
    wanted: WantedChallenge,
    *,
    actor: str,
    now: datetime,
    request: IdempotentRequest | None = None,
) -> tuple[Challenge, bool]:
    """Return the challenge and whether it is new. An open challenge that matches `wanted` is returned again.

    A repeated idempotency key gets the challenge that an earlier call with this key got, even if it has ended. The
    first challenge creates the conversation; if the brand's ids are reused, the first one after the close creates the
    next session. Raises `ConversationClosed`, `SessionMismatch`, `SessionRequired`, `ChallengeDiffers`, `InvalidScope`,
    `SamePersonCheckRefused`, `SamePersonCheckForbidden`, `ExpectedSubjectRefused`, `ExpectedClaimsRefused`,
    `TooManyChallenges`, `IdempotencyKeyReused`.
    """
    judged = wanted.judged()
    with _locked_or_new_conversation(brand, external_id, wanted.session) as (conversation, is_new):
        earlier = challenge_of_request(conversation, request, now) if request else None
        if earlier:
            return earlier, False
        if is_new:  # a new session has no open challenge to look for
            if conversation.session > 1:
                _refuse_too_many(conversation, now)
            challenge, created = _insert_challenge(conversation, wanted, judged, actor=actor, now=now), True
        else:
            end_expired(conversation, now)
            challenge, created = _open_or_new(conversation, wanted, judged, actor=actor, now=now)
        if request:
            remember_request(conversation, request, challenge, now)
        return challenge, created


def withdraw_challenge(challenge: Challenge, *, actor: str, now: datetime) -> bool:
    """End an open challenge at the bot's request. Return False if it had ended before."""
    with locked_conversation(challenge.conversation_id) as conversation:
        end_expired(conversation, now)
        return end_challenge(challenge, ChallengeStatus.WITHDRAWN, now=now, actor=actor)


def cancel_challenge(challenge: Challenge, *, now: datetime) -> bool:
    """End a challenge because the consumer says "this wasn't me". Return False if the consumer has signed in already.

    After the sign-in `undo` is used, which requires the cookie of the browser that signed in.
    """
    if not challenge.accepts_sign_in(now):
        return False
    with locked_conversation(challenge.conversation_id) as conversation:
        end_expired(conversation, now)
        return move_challenge(
            challenge, ChallengeStatus.CANCELLED, now=now, actor=CONSUMER, from_statuses=SIGN_IN_STATUSES
        )


def link_of(challenge: Challenge) -> str:
    """Return the consumer's link. Raises `DecryptionError`."""
    return url_of_link(challenge.reveal_link_token())


def _open_or_new(
    conversation: Conversation, wanted: WantedChallenge, judged: Judged, *, actor: str, now: datetime
) -> tuple[Challenge, bool]:
    current, demand = open_challenge(conversation, wanted.server, now), standing_demand(conversation, wanted.server)
    if current and not wanted.replace:
        # A link from before the API's demand would lead to a token that the API refuses again.
        same = (current.same_person_check, current.scope, current.demand) == (*judged, demand)
        same_customer = expects_same_subject(current, wanted.expected_subject)
        if not same or not same_customer or not expects_same_claims(current, wanted.expected_claims):
            raise ChallengeDiffers(current)
        return current, False
    _refuse_too_many(conversation, now)
    if current:
        refuse_unnamed_session(conversation, wanted.session)
        end_challenge(current, ChallengeStatus.SUPERSEDED, now=now, actor=actor)
    return _insert_challenge(conversation, wanted, judged, demand, actor=actor, now=now), True


def _refuse_too_many(conversation: Conversation, now: datetime) -> None:
    """Raise `TooManyChallenges` if this conversation had five new challenges in the last ten minutes.

    All sessions of its id count together: closing must not be a way around the limit (S10).
    The challenge rows are counted, under the conversation's lock. So all processes share the count, the window slides,
    and no second store is called while the lock is held. Returning an open challenge again is not counted.
    """
    # Challenges dated further ahead come from a process with a wrong clock, and are not counted.
    earliest, latest = now - _NEW_CHALLENGES_PERIOD, now + _NEW_CHALLENGES_PERIOD
    recent = Challenge.objects.filter(issued_at__gt=earliest, issued_at__lte=latest)
    recent = (
        recent.filter(conversation=conversation)
        if conversation.session == 1
        else recent.filter(
            conversation__brand=conversation.brand_id, conversation__external_id=conversation.external_id
        )
    )
    moments = recent.order_by("-issued_at").values_list("issued_at", flat=True)
    fifth_newest = moments[_MAX_NEW_CHALLENGES - 1 : _MAX_NEW_CHALLENGES].first()
    if fifth_newest is not None:
        raise TooManyChallenges(ceil((fifth_newest + _NEW_CHALLENGES_PERIOD - now).total_seconds()))


@contextmanager
def _locked_or_new_conversation(
    brand: Brand, external_id: str, session: int | None
) -> Iterator[tuple[Conversation, bool]]:
    """Like `locked_conversation`, but by the bot's conversation id. Also yields whether the row is new.

    Of several sessions it is the open one. If the last one is closed and the brand's ids are reused, the next one
    begins, as a new row (S2). Insert and lock are in one transaction, so that an existing row is locked before pruning
    could delete it. Raises `ConversationClosed`, and `SessionMismatch` if the call names another session.
    """
    with transaction.atomic():
        conversation, newest = Conversation(uuid=uuid4(), brand=brand, external_id=external_id), None
        while not (is_new := _NEW_CONVERSATION.insert(conversation)):
            # Another transaction inserted the row. This query waits for that transaction and for the row lock.
            existing = _NEWEST_LOCKED.first(brand=brand.pk, external_id=external_id)
            if existing is None:  # deleted meanwhile, so insert again
                continue
            newest = existing.session
            if existing.closed_at is None:
                conversation = existing
                break
            if not existing.brand.reuses_conversation_ids or session == newest:
                raise ConversationClosed(existing)
            # The next session. If another transaction has begun it, nothing is inserted, and that one is locked. The
            # sequence of events goes on, so that it grows for as long as the id is used.
            conversation = Conversation(
                uuid=uuid4(),
                brand=brand,
                external_id=external_id,
                session=newest + 1,
                last_event=existing.last_event,
            )
        if session not in {None, conversation.session}:
            raise SessionMismatch(newest)
        yield conversation, is_new


def _insert_challenge(
    conversation: Conversation,
    wanted: WantedChallenge,
    judged: Judged,
    demand: AuthenticationDemand = NO_DEMAND,
    *,
    actor: str,
    now: datetime,
) -> Challenge:
    challenge, _ = new_challenge(conversation, conversation.brand.uuid, wanted.server, wanted, judged, now=now)
    challenge.authorization_server = wanted.server
    challenge.acr_values, challenge.max_age = demand.acr_values, demand.max_age
    _NEW_CHALLENGE.insert(challenge)
    record_issued(challenge, conversation.brand.uuid, actor=actor, now=now)
    publish_challenge(challenge, now)
    return challenge
