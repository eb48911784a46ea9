"""Challenges from the bot's side: issue one, hand the live one out again, withdraw it."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import uuid4

from django.conf import settings

from brands.models import AuthorizationServer, Brand
from conversations.flow.audit import CONSUMER, record
from conversations.flow.errors import ChallengeDiffers, ConversationClosed, InvalidScope, SamePersonCheckRefused
from conversations.flow.standing import open_challenge
from conversations.flow.transitions import close_clock_expired, end_challenge, locked_conversation, move_challenge
from conversations.models import SIGN_IN_STATUSES, AuditEvent, Challenge, ChallengeStatus, Conversation
from delegation_site.crypto import Secret, key_ring, random_token

LINK_TOKEN_PURPOSE = "link-token"
_LINK_TOKEN_BYTES = 20


@dataclass(frozen=True, kw_only=True)
class WantedChallenge:
    """What a bot asks for. Empty values mean: as the authorization server is configured."""

    server: AuthorizationServer
    same_person_check: str = ""
    scope: str = ""
    purpose: str = ""
    locale: str = ""
    context: Secret | None = None
    replace: bool = False

    def effective_check(self) -> str:
        """Return the check to use. Raises `SamePersonCheckRefused`."""
        check = self.same_person_check or self.server.default_same_person_check
        if check not in self.server.same_person_checks:
            raise SamePersonCheckRefused
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
    brand: Brand, external_id: str, wanted: WantedChallenge, *, actor: str, now: datetime
) -> tuple[Challenge, bool]:
    """Return the live challenge where it is the same, else a new one; and whether it is new.

    Creates the conversation at its first challenge. Raises `ConversationClosed`, `ChallengeDiffers`, `InvalidScope`,
    `SamePersonCheckRefused`.
    """
    check, scope = wanted.effective_check(), wanted.effective_scope()
    row, _ = Conversation.objects.get_or_create(brand=brand, external_id=external_id)
    with locked_conversation(row.pk) as conversation:
        if conversation.closed_at is not None:
            raise ConversationClosed
        close_clock_expired(conversation, now)
        live = open_challenge(conversation, wanted.server, now)
        if live and not wanted.replace:
            if (live.same_person_check, live.scope) != (check, scope):
                raise ChallengeDiffers(live)
            return live, False
        if live:
            end_challenge(live, ChallengeStatus.SUPERSEDED, now=now, actor=actor)
        return _insert_challenge(conversation, wanted, check, scope, actor=actor, now=now), True


def withdraw_challenge(challenge: Challenge, *, actor: str, now: datetime) -> bool:
    """End an open challenge on the bot's behalf; return False where it had ended before."""
    with locked_conversation(challenge.conversation_id) as conversation:
        close_clock_expired(conversation, now)
        return end_challenge(challenge, ChallengeStatus.WITHDRAWN, now=now, actor=actor)


def cancel_challenge(challenge: Challenge, *, now: datetime) -> bool:
    """End a challenge because the reader of its link says "this wasn't me"; return False where it was too late.

    Only before a sign-in: from then on it is `undo`, which asks for the cookie of the browser that signed in.
    """
    with locked_conversation(challenge.conversation_id) as conversation:
        close_clock_expired(conversation, now)
        return move_challenge(challenge, ChallengeStatus.CANCELLED, now=now, actor=CONSUMER, frm=SIGN_IN_STATUSES)


def link_of(challenge: Challenge) -> str:
    """Return the consumer's link. It holds one random value and nothing about anybody (A5)."""
    return f"{settings.PUBLIC_BASE_URL}/c/{challenge.reveal_link_token().reveal()}"


def challenge_of_link(link_token: str) -> Challenge | None:
    """Return the challenge whose link holds this token, ended or not; None for an unknown one."""
    challenges = Challenge.objects.filter(
        link_token_digest__in=key_ring().digests(LINK_TOKEN_PURPOSE, link_token),
        conversation__closed_at=None,
        conversation__brand__is_active=True,
        authorization_server__is_active=True,
    )
    return challenges.select_related("conversation__brand", "authorization_server__brand").first()


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
        link_token_digest=key_ring().digest(LINK_TOKEN_PURPOSE, link_token.reveal()),
    )
    challenge.link_token_ciphertext = key_ring().encrypt(link_token, challenge.place("link_token_ciphertext"))
    if wanted.context is not None:
        challenge.context_ciphertext = key_ring().encrypt(wanted.context, challenge.place("context_ciphertext"))
    challenge.save(force_insert=True)
    record(AuditEvent.Kind.CHALLENGE_CHANGED, conversation, now=now, actor=actor, outcome="issued", challenge=challenge)
    return challenge
