"""Conversations, their challenges, and idempotency keys."""

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

from django.db import models
from django.db.models import Q
from django.utils import timezone

from brands.models import AuthorizationServer, Brand, BrandRowsQuerySet, SamePersonCheck
from infrastructure.columns import EncryptedField, reveal, reveal_if_there
from infrastructure.crypto import AssociatedData, Secret
from oauth_client.step_up import MAX_ACR_VALUES_LENGTH, AuthenticationDemand
from oauth_client.validators import MAX_SCOPE_LENGTH

COMPLETION_LIFETIME: Final = timedelta(minutes=5)
COMPLETION_ATTEMPTS: Final = 5
HANDLE_LIFETIME: Final = timedelta(seconds=60)
IDEMPOTENCY_LIFETIME: Final = timedelta(hours=24)


class ChallengeStatus(models.TextChoices):
    """The status of a challenge, by the same name in API, admin and audit log."""

    ISSUED = "issued"
    STARTED = "started"
    CONFIRMATION_NEEDED = "confirmation_needed"
    COMPLETED = "completed"
    DENIED = "denied"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    SUPERSEDED = "superseded"
    WITHDRAWN = "withdrawn"
    FAILED = "failed"


# The link can be opened and a sign-in can begin.
SIGN_IN_STATUSES: Final = (ChallengeStatus.ISSUED, ChallengeStatus.STARTED)
OPEN_STATUSES: Final = (*SIGN_IN_STATUSES, ChallengeStatus.CONFIRMATION_NEEDED)


def status_at(stored: str, expires_at: datetime, now: datetime) -> ChallengeStatus:
    """Return a challenge's status at `now`. An open one past its expiry is `expired`, even before the sweep."""
    if stored in OPEN_STATUSES and expires_at <= now:
        return ChallengeStatus.EXPIRED
    return ChallengeStatus(stored)


class Conversation(models.Model):
    """One chat between a consumer and a brand's bot. Each access token belongs to exactly one conversation.

    If a brand's ids are reused, each session of an id is a row of its own. So whatever is bound to a row or its UUID
    (ciphertexts, digests, subjects, limits, events) is bound to one session (S2).
    """

    uuid = models.UUIDField(default=uuid4, unique=True, editable=False)
    brand = models.ForeignKey(Brand, on_delete=models.PROTECT, related_name="conversations")
    external_id = models.CharField("conversation id", max_length=200)
    # Counts the sessions of an id, from 1. A number is never used twice (S7).
    session = models.PositiveIntegerField(default=1)
    created_at = models.DateTimeField(default=timezone.now)
    closed_at = models.DateTimeField(null=True)
    # When an API last demanded a step-up (RFC 9470): without one, no query looks for what was demanded of which token.
    step_up_demanded_at = models.DateTimeField(null=True, editable=False)
    # Sequence of the last webhook event. It only grows, so a receiver can drop older events.
    last_event = models.BigIntegerField(default=0, editable=False)

    objects = BrandRowsQuerySet["Conversation"].as_manager()

    # What some queries know beside the row; None if the query that loaded it did not ask: whether the brand has an
    # active webhook endpoint, and when the first challenge and the first token expire that have not ended.
    has_webhooks: bool | None = None
    first_expiries: tuple[datetime | None, ...] | None = None

    class Meta:
        ordering = ("-id",)
        constraints = [
            # With this operator class PostgreSQL also finds an id by its beginning, in any collation.
            models.UniqueConstraint(
                fields=("brand", "external_id", "session"),
                opclasses=("int8_ops", "varchar_pattern_ops", "int4_ops"),
                name="one_session_per_number",
            ),
            models.UniqueConstraint(
                fields=("brand", "external_id"),
                condition=Q(closed_at=None),
                opclasses=("int8_ops", "varchar_pattern_ops"),
                name="one_open_session",
            ),
        ]

    def __str__(self) -> str:
        return self.external_id if self.session == 1 else f"{self.external_id} (session {self.session})"

    def associated_data(self, table: str, column: str, row: UUID) -> AssociatedData:
        return AssociatedData(table, column, row, brand=self.brand.uuid, conversation=self.uuid)


class ChallengeQuerySet(BrandRowsQuerySet["Challenge"]):
    brand_path = "conversation__brand"

    def open(self, now: datetime | models.Expression) -> "ChallengeQuerySet":
        """Select challenges that are open and have not expired at `now`."""
        return self.filter(status__in=OPEN_STATUSES, expires_at__gt=now)

    def expired_not_ended(self, now: datetime | models.Expression) -> "ChallengeQuerySet":
        """Select challenges that have expired, but whose status does not say so yet."""
        return self.filter(status__in=OPEN_STATUSES, expires_at__lte=now)


class Challenge(models.Model):
    """Our request to the consumer to sign in, so that the bot can act for them in this chat.

    Not PKCE's code challenge.
    """

    class Error(models.TextChoices):
        """Why a challenge has the status `failed`."""

        SUBJECT_MISMATCH = "subject_mismatch"
        TOO_MANY_CODES = "too_many_codes"
        OTHER_CONVERSATION = "other_conversation"
        ASSURANCE_NOT_MET = "assurance_not_met"

    uuid = models.UUIDField(default=uuid4, unique=True, editable=False)
    conversation = models.ForeignKey(Conversation, on_delete=models.CASCADE, related_name="challenges")
    authorization_server = models.ForeignKey(AuthorizationServer, on_delete=models.PROTECT, related_name="+")
    status = models.CharField(max_length=24, choices=ChallengeStatus, default=ChallengeStatus.ISSUED)
    error = models.CharField(max_length=32, choices=Error, blank=True)
    last_error = models.CharField(max_length=64, blank=True)
    last_error_detail = models.CharField(max_length=200, blank=True)

    same_person_check = models.CharField(max_length=24, choices=SamePersonCheck)
    scope = models.CharField(max_length=MAX_SCOPE_LENGTH, blank=True)
    # What an API demanded of this sign-in. It never changes: the request and the check of its result have to agree.
    acr_values = models.CharField(max_length=MAX_ACR_VALUES_LENGTH, blank=True)
    max_age = models.PositiveIntegerField(null=True)
    # Why, in the chat's language if the bot wrote it in several; what it wrote in each is in `purpose_by_locale`.
    purpose = models.CharField(max_length=140, blank=True)
    purpose_by_locale = models.JSONField(default=dict, blank=True)
    locale = models.CharField(max_length=35, blank=True)
    context_ciphertext = EncryptedField(related=("conversation__brand",), null=True)
    link_token_digest = models.BinaryField(max_length=80, unique=True)
    link_token_ciphertext = EncryptedField(related=("conversation__brand",), null=True)
    completion_code_digest = models.BinaryField(null=True)
    completion_handle_digest = models.BinaryField(max_length=80, null=True, unique=True)
    expected_subject_digest = models.BinaryField(null=True)
    expected_phone_number_digest = models.BinaryField(null=True)
    expected_email_digest = models.BinaryField(null=True)
    completion_attempts = models.PositiveSmallIntegerField(default=0)

    issued_at = models.DateTimeField(default=timezone.now)
    started_at = models.DateTimeField(null=True)
    confirmation_needed_at = models.DateTimeField(null=True)
    completed_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    expires_at = models.DateTimeField()

    objects = ChallengeQuerySet.as_manager()

    class Meta:
        ordering = ("-id",)
        indexes = [
            # For the sweep, once a minute. It covers open challenges only.
            models.Index(
                fields=("expires_at",),
                condition=Q(status__in=("issued", "started", "confirmation_needed")),
                name="open_challenges_by_expiry",
            ),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=("conversation", "authorization_server"),
                condition=Q(status__in=("issued", "started", "confirmation_needed")),
                name="one_open_challenge",
            ),
        ]

    def __str__(self) -> str:
        return str(self.uuid)

    def status_at(self, now: datetime) -> ChallengeStatus:
        return status_at(self.status, self.expires_at, now)

    @property
    def demand(self) -> AuthenticationDemand:
        """What an API demanded of this sign-in; nothing for most challenges."""
        return AuthenticationDemand(self.acr_values, self.max_age)

    def accepts_sign_in(self, now: datetime) -> bool:
        return self.status_at(now) in SIGN_IN_STATUSES

    @staticmethod
    def location(column: str, row: UUID, *, brand: UUID, conversation: UUID) -> AssociatedData:
        """Name the place of a ciphertext of this table, to which it is bound (K1)."""
        return AssociatedData("conversations_challenge", column, row, brand=brand, conversation=conversation)

    def associated_data(self, column: str) -> AssociatedData:
        conversation = self.conversation
        return self.location(column, self.uuid, brand=conversation.brand.uuid, conversation=conversation.uuid)

    def reveal_link_token(self) -> Secret:
        """Decrypt the link token, to return the same link again. Raises `DecryptionError`, also if it was erased."""
        return reveal(self, "link_token_ciphertext")

    def reveal_context(self) -> Secret | None:
        """Decrypt the bot's context; None if it sent none. Raises `DecryptionError`."""
        return reveal_if_there(self, "context_ciphertext")


class IdempotencyKey(models.Model):
    """A key that a bot sent with a new challenge. It stores two digests, and no answer that could hold a secret."""

    brand = models.ForeignKey(Brand, on_delete=models.CASCADE, related_name="+")
    digest = models.BinaryField(max_length=80)
    request_digest = models.BinaryField(max_length=80)
    challenge = models.ForeignKey(Challenge, on_delete=models.CASCADE, related_name="+")
    created_at = models.DateTimeField(default=timezone.now, db_index=True)

    class Meta:
        ordering = ("id",)
        constraints = [
            models.UniqueConstraint(fields=("brand", "digest"), name="one_challenge_per_idempotency_key"),
        ]

    def __str__(self) -> str:
        return str(self.challenge_id)
