"""Challenges from the bot's side: issue one, hand the live one out again, withdraw it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from math import ceil
from typing import Final
from uuid import uuid4

from django.conf import settings
from django.db import models, transaction

from brands.models import AuthorizationServer, Brand, SamePersonCheck
from conversations.flow.authorization_status import open_challenge
from conversations.flow.errors import (
    ChallengeDiffers,
    ConversationClosed,
    ExpectedSubjectRefused,
    IdempotencyKeyReused,
    InvalidScope,
    SamePersonCheckRefused,
    TooManyChallenges,
)
from conversations.flow.events import ConversationEvent, publish_challenge, record
from conversations.flow.outcomes import expected_subject_digest, expects
from conversations.flow.transitions import close_clock_expired, end_challenge, locked_conversation, move_challenge
from conversations.models import (
    IDEMPOTENCY_LIFETIME,
    SIGN_IN_STATUSES,
    AccessToken,
    Challenge,
    ChallengeStatus,
    Conversation,
    IdempotencyKey,
)
from infrastructure.audit import CONSUMER
from infrastructure.columns import seal
from infrastructure.compiled import CompiledInsert, CompiledQuery, Parameter, numbered, placeholders
from infrastructure.crypto import Secret, key_ring, random_token

_KEY, _REQUEST = "idempotency-key", "idempotent-request"


@dataclass(frozen=True)
class IdempotentRequest:
    """The key that a bot sent, and the body that came with it in one spelling."""

    key: str = field(repr=False)
    body: bytes = field(repr=False)


def challenge_of_request(conversation: Conversation, request: IdempotentRequest, now: datetime) -> Challenge | None:
    """Return what the request got at its first time, within 24 hours; None at the first time.

    The caller holds the conversation's lock. Raises `IdempotencyKeyReused`.
    """
    kept = IdempotencyKey.objects.filter(
        brand=conversation.brand, digest__in=key_ring().digests(_KEY, conversation.brand.uuid.bytes, request.key)
    )
    # An older one stands in the way of the constraint until the sweep has been here.
    kept.filter(created_at__lte=now - IDEMPOTENCY_LIFETIME).delete()
    row = kept.select_related("challenge__conversation__brand", "challenge__authorization_server").first()
    if row is None:
        return None
    _refuse_another_request(row, conversation, request)
    return row.challenge


def remember_request(
    conversation: Conversation, request: IdempotentRequest, challenge: Challenge, now: datetime
) -> None:
    """Keep that this request got this challenge, in the transaction that issued it. Raises `IdempotencyKeyReused`.

    Two conversations may come with one key at the same moment, each under its own lock. The constraint lets one in;
    the other's transaction is undone, challenge and all.
    """
    row, is_first = IdempotencyKey.objects.get_or_create(
        brand=conversation.brand,
        digest=key_ring().digest(_KEY, conversation.brand.uuid.bytes, request.key),
        defaults={
            "request_digest": key_ring().digest(_REQUEST, conversation.uuid.bytes, request.body),
            "challenge": challenge,
            "created_at": now,
        },
    )
    if not is_first:
        _refuse_another_request(row, conversation, request)


def _refuse_another_request(row: IdempotencyKey, conversation: Conversation, request: IdempotentRequest) -> None:
    if not key_ring().recognises(row.request_digest, _REQUEST, conversation.uuid.bytes, request.body):
        raise IdempotencyKeyReused


LINK_TOKEN_PURPOSE = "link-token"
_LINK_TOKEN_BYTES = 20
# New challenges of one conversation: nobody's chat is to be flooded with links (G8).
_MOST_NEW_CHALLENGES = 5
_NEW_CHALLENGES_WITHIN = timedelta(minutes=10)
_NEW_CONVERSATION: Final = CompiledInsert(Conversation, or_nothing=True)
_LOCKED_CONVERSATION: Final = CompiledQuery(
    lambda: (
        Conversation.objects.select_for_update(of=("self",))
        .select_related("brand")
        .filter(
            brand_id=Parameter("brand", models.BigIntegerField()),
            external_id=Parameter("external_id", models.CharField()),
        )
        .order_by()
    )
)
_NEW_CHALLENGE: Final = CompiledInsert(Challenge)


@dataclass(frozen=True, kw_only=True)
class WantedChallenge:
    """What a bot asks for. Empty values mean: as the authorization server is configured."""

    server: AuthorizationServer
    same_person_check: str = ""
    expected_subject: Secret | None = None
    scope: str = ""
    purpose: str = ""
    locale: str = ""
    context: Secret | None = None
    replace: bool = False

    def check(self) -> None:
        """Refuse what cannot be had. Raises `SamePersonCheckRefused`, `ExpectedSubjectRefused`, `InvalidScope`."""
        self.effective_check()
        self.effective_scope()

    def is_met_by(self, access_token: AccessToken) -> bool:
        """Tell whether a token was asked for with all that the bot names now; what it leaves out, it does not demand.

        Compared with what was asked, not with what was granted: a consumer who unticked a scope is not asked for it
        again in a circle. The bot reads `missing_scope`.
        """
        asked = set(access_token.challenge.scope.split())
        same_check = self.same_person_check in {"", access_token.assurance}
        same_customer = self.expected_subject is None or expects(access_token.challenge, self.expected_subject)
        return same_check and same_customer and set(self.scope.split()) <= asked

    def effective_check(self) -> str:
        """Return the check to use. Raises `SamePersonCheckRefused`, `ExpectedSubjectRefused`."""
        check = self.same_person_check or self.server.default_same_person_check
        if check not in self.server.same_person_checks:
            raise SamePersonCheckRefused
        if (check == SamePersonCheck.EXPECTED_SUBJECT) != (self.expected_subject is not None):
            raise ExpectedSubjectRefused
        return check

    def effective_scope(self) -> str:
        """Return the scope to ask for, in the server's order. Raises `InvalidScope`.

        `openid` stays in where the server is configured for it: without an ID token a re-challenge could not be held to
        the same person (A7), and a bot must not be able to choose that.
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
) -> tuple[Challenge, bool]:
    """Return the live challenge where it is the same, else a new one; and whether it is new.

    A repeated idempotent request gets the challenge that its first time got, ended or not. Creates the conversation at
    its first challenge. Raises `ConversationClosed`, `ChallengeDiffers`, `InvalidScope`, `SamePersonCheckRefused`,
    `ExpectedSubjectRefused`, `TooManyChallenges`, `IdempotencyKeyReused`.
    """
    check, scope = wanted.effective_check(), wanted.effective_scope()
    with _locked_or_new_conversation(brand, external_id) as (conversation, is_new):
        if conversation.closed_at is not None:
            raise ConversationClosed
        earlier = challenge_of_request(conversation, request, now) if request else None
        if earlier:
            return earlier, False
        if is_new:  # nothing can stand in the way: most chats have one challenge, and it is their first
            challenge, created = _insert_challenge(conversation, wanted, check, scope, actor=actor, now=now), True
        else:
            close_clock_expired(conversation, now)
            challenge, created = _live_or_new(conversation, wanted, check, scope, actor=actor, now=now)
        if request:
            remember_request(conversation, request, challenge, now)
        return challenge, created


def withdraw_challenge(challenge: Challenge, *, actor: str, now: datetime) -> bool:
    """End an open challenge on the bot's behalf; return False where it had ended before."""
    with locked_conversation(challenge.conversation_id) as conversation:
        close_clock_expired(conversation, now)
        return end_challenge(challenge, ChallengeStatus.WITHDRAWN, now=now, actor=actor)


def cancel_challenge(challenge: Challenge, *, now: datetime) -> bool:
    """End a challenge because the reader of its link says "this wasn't me"; return False where it was too late.

    Only before a sign-in: from then on it is `undo`, which asks for the cookie of the browser that signed in.
    """
    if not challenge.accepts_sign_in(now):
        return False
    with locked_conversation(challenge.conversation_id) as conversation:
        close_clock_expired(conversation, now)
        return move_challenge(
            challenge, ChallengeStatus.CANCELLED, now=now, actor=CONSUMER, from_statuses=SIGN_IN_STATUSES
        )


def link_of(challenge: Challenge) -> str:
    """Return the consumer's link. It holds one random value and nothing about anybody (A5)."""
    return f"{settings.PUBLIC_BASE_URL}/c/{challenge.reveal_link_token().reveal()}"


def challenge_of_link(link_token: str) -> Challenge | None:
    """Return the challenge whose link holds this token, ended or not; None for an unknown one."""
    digests = key_ring().digests(LINK_TOKEN_PURPOSE, link_token)
    return _of_link(len(digests)).first(**numbered("digest", digests))


@lru_cache(maxsize=8)
def _of_link(digests: int) -> CompiledQuery[Challenge]:
    """Return the query for so many digests, one for each key of the ring."""
    challenges = Challenge.objects.filter(
        link_token_digest__in=placeholders("digest", models.BinaryField(), digests),
        conversation__closed_at=None,
        conversation__brand__is_active=True,
        authorization_server__is_active=True,
    )
    return CompiledQuery(lambda: challenges.select_related("conversation__brand", "authorization_server__brand"))


def _live_or_new(
    conversation: Conversation, wanted: WantedChallenge, check: str, scope: str, *, actor: str, now: datetime
) -> tuple[Challenge, bool]:
    live = open_challenge(conversation, wanted.server, now)
    if live and not wanted.replace:
        if (live.same_person_check, live.scope) != (check, scope) or not expects(live, wanted.expected_subject):
            raise ChallengeDiffers(live)
        return live, False
    _refuse_too_many(conversation, now)
    if live:
        end_challenge(live, ChallengeStatus.SUPERSEDED, now=now, actor=actor)
    return _insert_challenge(conversation, wanted, check, scope, actor=actor, now=now), True


def _refuse_too_many(conversation: Conversation, now: datetime) -> None:
    """Raise `TooManyChallenges` where a new one would be the sixth within ten minutes.

    The challenges themselves are counted, under the conversation's lock: every process shares them, no window has an
    edge, and no second store is called while the lock is held. Handing the live one out again costs nothing.
    """
    # What a process with a wrong clock has issued "later" is not waited for.
    earliest, latest = now - _NEW_CHALLENGES_WITHIN, now + _NEW_CHALLENGES_WITHIN
    recent = Challenge.objects.filter(conversation=conversation, issued_at__gt=earliest, issued_at__lte=latest)
    moments = recent.order_by("-issued_at").values_list("issued_at", flat=True)
    too_recent = moments[_MOST_NEW_CHALLENGES - 1 : _MOST_NEW_CHALLENGES].first()
    if too_recent is not None:
        raise TooManyChallenges(ceil((too_recent + _NEW_CHALLENGES_WITHIN - now).total_seconds()))


@contextmanager
def _locked_or_new_conversation(brand: Brand, external_id: str) -> Iterator[tuple[Conversation, bool]]:
    """As `locked_conversation`, by the platform's id, and made where there is none; and whether it was made.

    In one transaction, so that a row which exists is locked before pruning could take it away.
    """
    with transaction.atomic():
        conversation = Conversation(uuid=uuid4(), brand=brand, external_id=external_id)
        while not (is_new := _NEW_CONVERSATION.insert(conversation)):
            # Somebody else's transaction made it: this waits for its end, and for the lock.
            existing = _LOCKED_CONVERSATION.first(brand=brand.pk, external_id=external_id)
            if existing is not None:
                conversation = existing
                break
        yield conversation, is_new


def _insert_challenge(
    conversation: Conversation, wanted: WantedChallenge, check: str, scope: str, *, actor: str, now: datetime
) -> Challenge:
    link_token = Secret(random_token(_LINK_TOKEN_BYTES))
    challenge = Challenge(
        uuid=uuid4(),
        conversation=conversation,
        authorization_server=wanted.server,
        same_person_check=check,
        scope=scope,
        purpose=wanted.purpose,
        locale=wanted.locale,
        issued_at=now,
        expires_at=now + timedelta(seconds=wanted.server.challenge_lifetime),
        expected_subject_digest=expected_subject_digest(conversation, wanted.expected_subject),
        link_token_digest=key_ring().digest(LINK_TOKEN_PURPOSE, link_token.reveal()),
    )
    seal(challenge, "link_token_ciphertext", link_token)
    seal(challenge, "context_ciphertext", wanted.context)
    _NEW_CHALLENGE.insert(challenge)
    record(
        ConversationEvent.CHALLENGE_CHANGED,
        conversation,
        now=now,
        actor=actor,
        outcome="issued",
        challenge=challenge,
    )
    publish_challenge(challenge, now)
    return challenge
