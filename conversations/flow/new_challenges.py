"""A challenge that is not stored yet: what a bot wishes, the rules about it, and the row.

All of it works on columns: those of model instances, or those of a query's row.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from django.conf import settings

from brands.models import SamePersonCheck
from conversations.flow.errors import (
    ExpectedClaimsRefused,
    ExpectedSubjectRefused,
    InvalidScope,
    SamePersonCheckForbidden,
    SamePersonCheckRefused,
)
from conversations.flow.events import ConversationEvent, record
from conversations.flow.expectations import expected_claim_digests, expected_subject_digest
from conversations.models import Challenge, ChallengeStatus, Conversation
from infrastructure.compiled import unsaved
from infrastructure.crypto import Secret, key_ring, random_token

LINK_TOKEN_PURPOSE = "link-token"
_LINK_TOKEN_BYTES = 20


class ServerFacts(Protocol):
    """The columns of an authorization server that decide about a challenge."""

    @property
    def pk(self) -> Any: ...
    @property
    def scope(self) -> str: ...
    @property
    def required_scope(self) -> str: ...
    @property
    def same_person_checks(self) -> Any: ...
    @property
    def challenge_lifetime(self) -> int: ...


class Judged(NamedTuple):
    """What a challenge is issued with, after the rules."""

    same_person_check: str
    scope: str


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What a bot asks for. An empty same-person check or scope means: as the authorization server is configured.

    `session` is the one that the call names: the open one, or the one that this challenge is to begin.
    `expected_claims` is what `normalised_claims` returned.
    """

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

    def judged_at(self, server: ServerFacts, may_use: Callable[[str], bool]) -> Judged:
        """Return the same-person check to use and the scope to request. `may_use` says which checks the bot key may.

        Raises `SamePersonCheckRefused`, `SamePersonCheckForbidden`, `ExpectedSubjectRefused`, `InvalidScope`,
        `ExpectedClaimsRefused`.
        """
        judged = Judged(self._check_at(server, may_use), self._scope_at(server))
        # Without an ID token they could never be compared.
        if self.expected_claims and "openid" not in server.scope.split():
            raise ExpectedClaimsRefused
        return judged

    def _check_at(self, server: ServerFacts, may_use: Callable[[str], bool]) -> str:
        """Return the same-person check to use: by default the server's first one that the bot key may use."""
        accepted = server.same_person_checks
        usable = [check for check in accepted if may_use(check)]
        check: str = self.same_person_check or next(iter(usable), "")
        if check and check not in accepted:
            raise SamePersonCheckRefused
        if check not in usable:
            raise SamePersonCheckForbidden
        if (check == SamePersonCheck.EXPECTED_SUBJECT) != (self.expected_subject is not None):
            raise ExpectedSubjectRefused
        return check

    def _scope_at(self, server: ServerFacts) -> str:
        """Return the scope to request, in the server's order.

        If the server's configured scope has `openid`, the scope to request has it too. Without an ID token a later
        sign-in could not be compared with the earlier account (A7), and a bot must not be able to avoid that.
        """
        configured = server.scope.split()
        wanted = set(self.scope.split()) or set(configured)
        if not wanted <= set(configured) or not set(server.required_scope.split()) <= wanted:
            raise InvalidScope
        return " ".join(scope for scope in configured if scope in wanted or scope == "openid")


def new_challenge(
    conversation: Conversation, brand_uuid: UUID, server: ServerFacts, wishes: Wishes, judged: Judged, *, now: datetime
) -> tuple[Challenge, Secret]:
    """Return a challenge that is not saved yet, and the token of its link. It names its server only by its number."""
    link_token = Secret(random_token(_LINK_TOKEN_BYTES))
    challenge = unsaved(
        Challenge,
        conversation=conversation,
        authorization_server_id=server.pk,
        same_person_check=judged.same_person_check,
        scope=judged.scope,
        purpose=wishes.purpose,
        purpose_by_locale=wishes.purpose_by_locale,
        locale=wishes.locale,
        issued_at=now,
        expires_at=now + timedelta(seconds=server.challenge_lifetime),
        expected_subject_digest=expected_subject_digest(conversation.uuid, wishes.expected_subject),
        link_token_digest=key_ring().digest(LINK_TOKEN_PURPOSE, link_token.reveal()),
        **expected_claim_digests(conversation.uuid, wishes.expected_claims),
    )
    for column, secret in (("link_token_ciphertext", link_token), ("context_ciphertext", wishes.context)):
        if secret is not None:
            bound_to = Challenge.location(column, challenge.uuid, brand=brand_uuid, conversation=conversation.uuid)
            setattr(challenge, column, key_ring().encrypt(secret, bound_to))
    return challenge, link_token


def record_issued(challenge: Challenge, brand_uuid: UUID, *, actor: str, now: datetime) -> None:
    """Write the audit event of a new challenge."""
    record(
        ConversationEvent.CHALLENGE_CHANGED,
        challenge.conversation,
        now=now,
        actor=actor,
        outcome=ChallengeStatus.ISSUED.value,
        challenge=challenge,
        brand_uuid=brand_uuid,
    )


def url_of_link(link_token: Secret) -> str:
    """Return the consumer's link. It contains one random value, and nothing about the consumer or chat (A5)."""
    return f"{settings.PUBLIC_BASE_URL}/c/{link_token.reveal()}"
