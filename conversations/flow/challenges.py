"""Challenges as bots use them: issue one, return the open one again, withdraw it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import ceil
from typing import Final
from uuid import uuid4

from django.conf import settings
from django.db import IntegrityError, models, transaction

from brands.models import AuthorizationServer, BotKey, Brand, SamePersonCheck
from conversations.flow.authorization_status import open_challenge
from conversations.flow.errors import (
    ChallengeDiffers,
    ConversationClosed,
    ExpectedClaimsRefused,
    ExpectedSubjectRefused,
    InvalidScope,
    SamePersonCheckForbidden,
    SamePersonCheckRefused,
    SessionMismatch,
    TooManyChallenges,
    refuse_unnamed_session,
)
from conversations.flow.events import ConversationEvent, publish_challenge, record
from conversations.flow.expectations import (
    expected_claim_digests,
    expected_subject_digest,
    expects_claims,
    expects_same_claims,
    expects_same_subject,
)
from conversations.flow.idempotency import IdempotentRequest, challenge_of_request, remember_request
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
from infrastructure.columns import seal
from infrastructure.compiled import CompiledInsert, CompiledQuery, Parameter, unsaved
from infrastructure.crypto import Secret, key_ring, random_token
from oauth_client.step_up import NO_DEMAND, AuthenticationDemand

LINK_TOKEN_PURPOSE = "link-token"
_LINK_TOKEN_BYTES = 20
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
# Both rows of a new chat are sent with COMMIT. So neither has a number yet, and the challenge finds its conversation by
# the UUID that we gave it.
_FIRST_CONVERSATION: Final = CompiledInsert(Conversation)
_FIRST_CHALLENGE: Final = CompiledInsert(Challenge, found_by={"conversation": Conversation._meta.get_field("uuid")})


@dataclass(frozen=True, kw_only=True)
class WantedChallenge:
    """What a bot asks for. An empty same-person check or scope means: as the authorization server is configured.

    `session` is the one that the call names: the open one, or the one that this challenge is to begin.
    `expected_claims` is what `normalised_claims` returned.
    """

    server: AuthorizationServer
    same_person_check: str = ""
    expected_subject: Secret | None = None
    expected_claims: Mapping[str, Secret] = field(default_factory=dict)
    scope: str = ""
    purpose: str = ""
    purpose_by_locale: dict[str, str] = field(default_factory=dict)
    locale: str = ""
    context: Secret | None = None
    replace: bool = False
    session: int | None = None
    # None only outside the API: then every check that the server accepts may be used.
    bot_key: BotKey | None = None

    def validate(self) -> None:
        """Check it. Raises what the two methods raise, or `ExpectedClaimsRefused`."""
        self.effective_same_person_check()
        self.effective_scope()
        # Without an ID token they could never be compared.
        if self.expected_claims and "openid" not in self.server.scope.split():
            raise ExpectedClaimsRefused

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

    def effective_same_person_check(self) -> str:
        """Return the same-person check to use: by default the server's first one that the bot key may use.

        Raises `SamePersonCheckRefused`, `SamePersonCheckForbidden`, `ExpectedSubjectRefused`.
        """
        accepted = self.server.same_person_checks
        usable = [check for check in accepted if self.bot_key is None or self.bot_key.may_use(check)]
        check = self.same_person_check or next(iter(usable), "")
        if check and check not in accepted:
            raise SamePersonCheckRefused
        if check not in usable:
            raise SamePersonCheckForbidden
        if (check == SamePersonCheck.EXPECTED_SUBJECT) != (self.expected_subject is not None):
            raise ExpectedSubjectRefused
        return check

    def effective_scope(self) -> str:
        """Return the scope to request, in the server's order. Raises `InvalidScope`.

        If the server's configured scope has `openid`, the scope to request has it too. Without an ID token a later
        sign-in could not be compared with the earlier account (A7), and a bot must not be able to avoid that.
        """
        configured = self.server.scope.split()
        wanted = set(self.scope.split()) or set(configured)
        if not wanted <= set(configured) or not set(self.server.required_scope.split()) <= wanted:
            raise InvalidScope
        return " ".join(scope for scope in configured if scope in wanted or scope == "openid")


def issue_challenge(
    brand: Brand,
    external_id: str,
    wanted: WantedChallenge,
    *,
    actor: str,
    now: datetime,
    request: IdempotentRequest | None = None,
    is_first: bool = False,
) -> tuple[Challenge, bool]:
    """Return the challenge and whether it is new. An open challenge that matches `wanted` is returned again.

    `is_first` says that a moment ago there was no such conversation, and that the brand has no webhook endpoint.

    A repeated idempotency key gets the challenge that an earlier call with this key got, even if it has ended. The
    first challenge creates the conversation; if the brand's ids are reused, the first one after the close creates the
    next session. Raises `ConversationClosed`, `SessionMismatch`, `SessionRequired`, `ChallengeDiffers`, `InvalidScope`,
    `SamePersonCheckRefused`, `SamePersonCheckForbidden`, `ExpectedSubjectRefused`, `TooManyChallenges`,
    `IdempotencyKeyReused`.
    """
    check, scope = wanted.effective_same_person_check(), wanted.effective_scope()
    if is_first and request is None and wanted.session in {None, 1}:
        # If another call has just created the conversation, the constraint refuses ours, and the rest decides.
        with suppress(IntegrityError):
            return _first_challenge(brand, external_id, wanted, check, scope, actor=actor, now=now), True
    with _locked_or_new_conversation(brand, external_id, wanted.session) as (conversation, is_new):
        earlier = challenge_of_request(conversation, request, now) if request else None
        if earlier:
            return earlier, False
        if is_new:  # a new session has no open challenge to look for
            if conversation.session > 1:
                _refuse_too_many(conversation, now)
            challenge, created = _insert_challenge(conversation, wanted, check, scope, actor=actor, now=now), True
        else:
            end_expired(conversation, now)
            challenge, created = _open_or_new(conversation, wanted, check, scope, actor=actor, now=now)
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
    """Return the consumer's link. It contains one random value, and nothing about the consumer or chat (A5)."""
    return f"{settings.PUBLIC_BASE_URL}/c/{challenge.reveal_link_token().reveal()}"


def _open_or_new(
    conversation: Conversation, wanted: WantedChallenge, check: str, scope: str, *, actor: str, now: datetime
) -> tuple[Challenge, bool]:
    current, demand = open_challenge(conversation, wanted.server, now), standing_demand(conversation, wanted.server)
    if current and not wanted.replace:
        # A link from before the API's demand would lead to a token that the API refuses again.
        same = (current.same_person_check, current.scope, current.demand) == (check, scope, demand)
        same_customer = expects_same_subject(current, wanted.expected_subject)
        if not same or not same_customer or not expects_same_claims(current, wanted.expected_claims):
            raise ChallengeDiffers(current)
        return current, False
    _refuse_too_many(conversation, now)
    if current:
        refuse_unnamed_session(conversation, wanted.session)
        end_challenge(current, ChallengeStatus.SUPERSEDED, now=now, actor=actor)
    return _insert_challenge(conversation, wanted, check, scope, demand, actor=actor, now=now), True


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


def _first_challenge(
    brand: Brand, external_id: str, wanted: WantedChallenge, check: str, scope: str, *, actor: str, now: datetime
) -> Challenge:
    """Create a conversation with its first challenge in one round trip. Raises `IntegrityError` if it exists."""
    conversation = unsaved(Conversation, brand=brand, external_id=external_id)
    conversation.has_webhooks = False
    with transaction.atomic():
        _FIRST_CONVERSATION.insert_later(conversation)
        challenge = _new_challenge(conversation, wanted, check, scope, now)
        _FIRST_CHALLENGE.insert_later(challenge)
        _record_issued(challenge, actor=actor, now=now)
    return challenge


def _insert_challenge(
    conversation: Conversation,
    wanted: WantedChallenge,
    check: str,
    scope: str,
    demand: AuthenticationDemand = NO_DEMAND,
    *,
    actor: str,
    now: datetime,
) -> Challenge:
    challenge = _new_challenge(conversation, wanted, check, scope, now)
    challenge.acr_values, challenge.max_age = demand.acr_values, demand.max_age
    _NEW_CHALLENGE.insert(challenge)
    _record_issued(challenge, actor=actor, now=now)
    return challenge


def _new_challenge(
    conversation: Conversation, wanted: WantedChallenge, check: str, scope: str, now: datetime
) -> Challenge:
    """Return a challenge that is not saved yet."""
    link_token = Secret(random_token(_LINK_TOKEN_BYTES))
    challenge = unsaved(
        Challenge,
        conversation=conversation,
        authorization_server=wanted.server,
        same_person_check=check,
        scope=scope,
        purpose=wanted.purpose,
        purpose_by_locale=wanted.purpose_by_locale,
        locale=wanted.locale,
        issued_at=now,
        expires_at=now + timedelta(seconds=wanted.server.challenge_lifetime),
        expected_subject_digest=expected_subject_digest(conversation, wanted.expected_subject),
        link_token_digest=key_ring().digest(LINK_TOKEN_PURPOSE, link_token.reveal()),
        **expected_claim_digests(conversation, wanted.expected_claims),
    )
    seal(challenge, "link_token_ciphertext", link_token)
    seal(challenge, "context_ciphertext", wanted.context)
    return challenge


def _record_issued(challenge: Challenge, *, actor: str, now: datetime) -> None:
    record(
        ConversationEvent.CHALLENGE_CHANGED,
        challenge.conversation,
        now=now,
        actor=actor,
        outcome="issued",
        challenge=challenge,
    )
    publish_challenge(challenge, now)
