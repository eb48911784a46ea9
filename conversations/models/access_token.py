"""Access tokens, their revocations, and counts of token reads and of calls of the brands' APIs."""

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

from django.db import models
from django.db.models import Q
from django.utils import timezone

from brands.models import AuthorizationServer, BotKey, BrandRowsQuerySet, SamePersonCheck
from conversations.models.authorization_request import KeepsProofKey
from conversations.models.conversation import Challenge, Conversation
from infrastructure.columns import EncryptedField, reveal, reveal_if_there, seal
from infrastructure.crypto import AssociatedData, Secret
from oauth_client.dpop import TOKEN_TYPE as DPOP
from oauth_client.id_token import MAX_AMR_LENGTH
from oauth_client.step_up import MAX_ACR_LENGTH, MAX_ACR_VALUES_LENGTH

# How long revocation is tried. After that the token is erased in any case (K6).
REVOCATION_LIFETIME: Final = timedelta(minutes=15)
READ_COUNT_RETENTION: Final = timedelta(days=90)


class AccessTokenQuerySet(BrandRowsQuerySet["AccessToken"]):
    brand_path = "conversation__brand"

    def pending(self) -> "AccessTokenQuerySet":
        return self.filter(confirmed_at=None, ended_at=None)

    def live(self) -> "AccessTokenQuerySet":
        """Select tokens that are confirmed and not ended. Some may have expired."""
        return self.filter(confirmed_at__isnull=False, ended_at=None)

    def expired_not_ended(self, now: datetime | models.Expression) -> "AccessTokenQuerySet":
        """Select tokens that have expired, but are not ended and erased yet."""
        return self.filter(ended_at=None, expires_at__lte=now)


class AccessToken(KeepsProofKey):
    """An access token of one conversation at one authorization server. Refresh tokens have no field."""

    class EndReason(models.TextChoices):
        EXPIRED = "expired"
        REJECTED = "rejected"
        SIGNED_OUT = "signed_out"
        REVOKED = "revoked"
        UNDONE = "undone"
        REPLACED = "replaced"
        UNCONFIRMED = "unconfirmed"
        CLOSED = "closed"

    uuid = models.UUIDField(default=uuid4, unique=True, editable=False)
    conversation = models.ForeignKey(Conversation, on_delete=models.CASCADE, related_name="access_tokens")
    authorization_server = models.ForeignKey(AuthorizationServer, on_delete=models.PROTECT, related_name="+")
    challenge = models.OneToOneField(Challenge, on_delete=models.CASCADE, related_name="access_token")
    ciphertext = EncryptedField(related=("conversation__brand",), null=True)
    # A token that is bound to a key is never handed out (L2).
    dpop_key_ciphertext = EncryptedField(related=("conversation__brand",), null=True)
    # Members of the token response that the brand declared for its bots, as JSON; and the names of those left out.
    response_members_ciphertext = EncryptedField(related=("conversation__brand",), null=True)
    response_members_left_out = models.TextField(blank=True)
    # The revocation endpoint at the time of the request. The token is never sent to an endpoint configured later.
    revocation_endpoint = models.CharField(max_length=2048, blank=True)
    token_type = models.CharField(max_length=16)
    scope = models.TextField(blank=True)
    scope_widened = models.BooleanField(default=False)
    assurance = models.CharField(max_length=24, choices=SamePersonCheck)
    # Names of the expected claims that the ID token confirmed, separated by spaces. Never their values.
    matched_claims = models.CharField(max_length=64, blank=True)
    # How the consumer signed in, as the ID token says (OpenID Connect Core section 2); methods separated by spaces.
    acr = models.CharField(max_length=MAX_ACR_LENGTH, blank=True)
    amr = models.CharField(max_length=MAX_AMR_LENGTH, blank=True)
    auth_time = models.DateTimeField(null=True)
    # What an API demanded when it found this token's sign-in too weak. The next challenge asks for it (P32).
    demanded_acr_values = models.CharField(max_length=MAX_ACR_VALUES_LENGTH, blank=True)
    demanded_max_age = models.PositiveIntegerField(null=True)
    subject_ciphertext = EncryptedField(related=("conversation__brand",), null=True)
    issued_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField()
    lifetime_assumed = models.BooleanField(default=False)
    confirmed_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    end_reason = models.CharField(max_length=16, choices=EndReason, blank=True)
    receipt_digest = models.BinaryField(max_length=80, null=True, unique=True)

    objects = AccessTokenQuerySet.as_manager()

    class Meta:
        ordering = ("-id",)
        # For the sweep, once a minute. It covers tokens that have not ended.
        indexes = [models.Index(fields=("expires_at",), condition=Q(ended_at=None), name="unended_tokens_by_expiry")]
        constraints = [
            models.UniqueConstraint(
                fields=("conversation", "authorization_server"),
                condition=Q(confirmed_at=None, ended_at=None),
                name="one_pending_access_token",
            ),
            models.UniqueConstraint(
                fields=("conversation", "authorization_server"),
                condition=Q(confirmed_at__isnull=False, ended_at=None),
                name="one_live_access_token",
            ),
            # Some code reads `ended_at` and other code `end_reason`: the two must agree.
            models.CheckConstraint(
                condition=Q(ended_at=None, end_reason="") | (Q(ended_at__isnull=False) & ~Q(end_reason="")),
                name="ended_access_token_has_a_reason",
            ),
            # The type decides whether a bot may read the token, and the key whether we can use it.
            models.CheckConstraint(
                condition=(Q(token_type=DPOP) & (Q(ended_at__isnull=False) | Q(dpop_key_ciphertext__isnull=False)))
                | (~Q(token_type=DPOP) & Q(dpop_key_ciphertext=None)),
                name="only_a_dpop_token_has_a_key",
            ),
        ]

    def __str__(self) -> str:
        return str(self.uuid)

    def end_reason_at(self, now: datetime) -> str:
        """Return why this token cannot be read at `now`; empty if it can."""
        if self.ended_at is None and self.expires_at <= now:
            return self.EndReason.EXPIRED.value
        return self.end_reason

    @property
    def is_sender_constrained(self) -> bool:
        """Whether the token can only be used with our key, and so only in calls (RFC 9449)."""
        return self.token_type == DPOP

    def set_subject(self, subject: Secret | None) -> None:
        """Encrypt who signed in. A digest could not be moved to a new key (K4). The row is not saved."""
        seal(self, "subject_ciphertext", subject)

    @property
    def is_subject_pinned(self) -> bool:
        """Whether the account is known, so that a re-challenge has to come back with it (A7)."""
        return self.subject_ciphertext is not None

    def reveal_subject(self) -> Secret:
        """Decrypt who signed in, to compare it. Raises `DecryptionError`."""
        return reveal(self, "subject_ciphertext")

    def set_access_token(self, access_token: Secret) -> None:
        """Encrypt the token for this row and its conversation. The row is not saved."""
        seal(self, "ciphertext", access_token)

    def set_response_members(self, members: Secret | None) -> None:
        """Encrypt the declared members of the token response. The row is not saved."""
        seal(self, "response_members_ciphertext", members)

    def reveal_response_members(self) -> Secret | None:
        """Decrypt the declared members of the token response: JSON text, or None. Raises `DecryptionError`."""
        return reveal_if_there(self, "response_members_ciphertext")

    def reveal_access_token(self) -> Secret:
        """Decrypt the token. Raises `DecryptionError`, also if it was erased."""
        return reveal(self, "ciphertext")

    @staticmethod
    def location(column: str, row: UUID, *, brand: UUID, conversation: UUID) -> AssociatedData:
        """Name the place of a ciphertext of this table, to which it is bound (K1)."""
        return AssociatedData("conversations_accesstoken", column, row, brand=brand, conversation=conversation)

    def associated_data(self, column: str) -> AssociatedData:
        conversation = self.conversation
        return self.location(column, self.uuid, brand=conversation.brand.uuid, conversation=conversation.uuid)


class Revocation(models.Model):
    """An outbox row, written in the transaction that ends the token.

    Deleted, with its token, when the revocation has succeeded or is given up.
    """

    uuid = models.UUIDField(default=uuid4, unique=True, editable=False)
    conversation = models.ForeignKey(Conversation, on_delete=models.CASCADE, related_name="revocations")
    authorization_server = models.ForeignKey(AuthorizationServer, on_delete=models.PROTECT, related_name="+")
    access_token_uuid = models.UUIDField()
    revocation_endpoint = models.CharField(max_length=2048)
    ciphertext = EncryptedField(related=("conversation__brand",))
    created_at = models.DateTimeField(default=timezone.now)
    next_attempt_at = models.DateTimeField(default=timezone.now)
    lease_until = models.DateTimeField(null=True)
    attempts = models.PositiveSmallIntegerField(default=0)

    class Meta:
        ordering = ("id",)
        indexes = [models.Index(fields=("authorization_server", "next_attempt_at", "id"), name="waiting_by_server")]

    def __str__(self) -> str:
        return str(self.uuid)

    @property
    def give_up_at(self) -> datetime:
        """The deadline: when the token is erased even if no revocation succeeded."""
        return self.created_at + REVOCATION_LIFETIME

    def set_access_token(self, access_token: Secret) -> None:
        """Encrypt the token for this row. The row is not saved."""
        seal(self, "ciphertext", access_token)

    def reveal_access_token(self) -> Secret:
        """Decrypt the token for the revocation request. Raises `DecryptionError`."""
        return reveal(self, "ciphertext")

    def associated_data(self, column: str) -> AssociatedData:
        return self.conversation.associated_data("conversations_revocation", column, self.uuid)


class TokenReadCountQuerySet(BrandRowsQuerySet["TokenReadCount"]):
    brand_path = "bot_key__brand"


class TokenReadCount(models.Model):
    """How often one bot key read tokens in one hour. Only `conversations.flow.read_counts` writes it."""

    bot_key = models.ForeignKey(BotKey, on_delete=models.CASCADE, related_name="token_read_counts")
    purpose = models.CharField(max_length=64, blank=True)
    hour = models.DateTimeField(db_index=True)
    times = models.PositiveIntegerField()

    objects = TokenReadCountQuerySet.as_manager()

    class Meta:
        ordering = ("-hour", "bot_key", "purpose")
        constraints = [
            models.UniqueConstraint(fields=("bot_key", "hour", "purpose"), name="one_count_per_key_hour_and_purpose"),
        ]

    def __str__(self) -> str:
        return f"{self.times} in the hour of {self.hour:%Y-%m-%d %H:%M}"


class ApiCallCountQuerySet(BrandRowsQuerySet["ApiCallCount"]):
    brand_path = "bot_key__brand"


class ApiCallCount(models.Model):
    """How often one bot key called an operation in one hour, and how it went. Never arguments or answers.

    Only `conversations.flow.call_counts` writes it. The operation is a name, because its row may be deleted.
    """

    bot_key = models.ForeignKey(BotKey, on_delete=models.CASCADE, related_name="api_call_counts")
    operation = models.CharField(max_length=100)
    # 2xx, 3xx, 4xx or 5xx of the brand's API, or why there was no answer to pass on.
    outcome = models.CharField(max_length=24)
    purpose = models.CharField(max_length=64, blank=True)
    hour = models.DateTimeField(db_index=True)
    times = models.PositiveIntegerField()
    # All of them together.
    milliseconds = models.PositiveBigIntegerField()

    objects = ApiCallCountQuerySet.as_manager()

    class Meta:
        verbose_name = "API call count"
        ordering = ("-hour", "bot_key", "operation", "outcome", "purpose")
        constraints = [
            models.UniqueConstraint(
                fields=("bot_key", "hour", "operation", "outcome", "purpose"), name="one_count_per_key_hour_and_outcome"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.times} of {self.operation} in the hour of {self.hour:%Y-%m-%d %H:%M}"
