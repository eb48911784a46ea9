"""An access token, encrypted for the one conversation that it belongs to."""

from datetime import datetime, timedelta
from typing import Final
from uuid import uuid4

from django.db import models
from django.db.models import Q
from django.utils import timezone

from brands.models import AuthorizationServer, BotKey, BrandRowsQuerySet, SamePersonCheck
from conversations.models.conversation import Challenge, Conversation
from infrastructure.columns import EncryptedField, reveal, reveal_if_there, seal
from infrastructure.crypto import AssociatedData, Secret


class AccessTokenQuerySet(BrandRowsQuerySet["AccessToken"]):
    """Access tokens by where they stand."""

    brand_path = "conversation__brand"

    def pending(self) -> "AccessTokenQuerySet":
        return self.filter(confirmed_at=None, ended_at=None)

    def live(self) -> "AccessTokenQuerySet":
        """Return those that were confirmed and not ended; the clock may have expired them."""
        return self.filter(confirmed_at__isnull=False, ended_at=None)

    def clock_expired(self, now: datetime | models.Expression) -> "AccessTokenQuerySet":
        """Return those that the clock has ended and no transaction has erased yet."""
        return self.filter(ended_at=None, expires_at__lte=now)


class AccessToken(models.Model):
    """An access token of one conversation at one authorization server. There is no field for a refresh token."""

    class EndReason(models.TextChoices):
        """Why a token can no longer be read."""

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
    # Members of the token answer that the brand has declared for its bots, as JSON; and the names of those left out.
    response_members_ciphertext = EncryptedField(related=("conversation__brand",), null=True)
    response_members_left_out = models.TextField(blank=True)
    # As configured when the token was asked for: it is presented nowhere else, whatever is configured later.
    revocation_endpoint = models.CharField(max_length=2048, blank=True)
    token_type = models.CharField(max_length=16)
    scope = models.TextField(blank=True)
    scope_widened = models.BooleanField(default=False)
    assurance = models.CharField(max_length=24, choices=SamePersonCheck)
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
        # For the sweep, once a minute. Of live tokens only: a token that ends leaves it.
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
            # Moment and reason say the same: who reads the one and who reads the other cannot come to differ.
            models.CheckConstraint(
                condition=Q(ended_at=None, end_reason="") | (Q(ended_at__isnull=False) & ~Q(end_reason="")),
                name="ended_access_token_has_a_reason",
            ),
        ]

    def __str__(self) -> str:
        return str(self.uuid)

    def end_reason_at(self, now: datetime) -> str:
        """Return why this token cannot be read at `now`; empty where it can."""
        if self.ended_at is None and self.expires_at <= now:
            return self.EndReason.EXPIRED.value
        return self.end_reason

    def set_subject(self, subject: Secret | None) -> None:
        """Encrypt who signed in for this row. A digest could not be moved to a new key (K4). The row is not saved."""
        seal(self, "subject_ciphertext", subject)

    def reveal_subject(self) -> Secret:
        """Return who signed in, to be compared. Raises `DecryptionError`."""
        return reveal(self, "subject_ciphertext")

    def set_access_token(self, access_token: Secret) -> None:
        """Encrypt the token for this row and its conversation. The row is not saved."""
        seal(self, "ciphertext", access_token)

    def set_response_members(self, members: Secret | None) -> None:
        """Encrypt the declared members of the token answer for this row. The row is not saved."""
        seal(self, "response_members_ciphertext", members)

    def reveal_response_members(self) -> Secret | None:
        """Return the declared members that came, as JSON text; None where none did. Raises `DecryptionError`."""
        return reveal_if_there(self, "response_members_ciphertext")

    def reveal_access_token(self) -> Secret:
        """Return the token itself. Raises `DecryptionError`, also once it was erased."""
        return reveal(self, "ciphertext")

    def associated_data(self, column: str) -> AssociatedData:
        return self.conversation.associated_data("conversations_accesstoken", column, self.uuid)


# How long we keep trying; after that the token is erased whatever the brand says (K6).
REVOCATION_LIFETIME: Final = timedelta(minutes=15)


class Revocation(models.Model):
    """An entry of the outbox, written in the transaction that ended the token. Done or given up, it is deleted."""

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
    def given_up_at(self) -> datetime:
        """Return the moment at which the token is erased in any case."""
        return self.created_at + REVOCATION_LIFETIME

    def set_access_token(self, access_token: Secret) -> None:
        """Encrypt the token for this row. The row is not saved."""
        seal(self, "ciphertext", access_token)

    def reveal_access_token(self) -> Secret:
        """Return the token, to be presented at the revocation endpoint. Raises `DecryptionError`."""
        return reveal(self, "ciphertext")

    def associated_data(self, column: str) -> AssociatedData:
        return self.conversation.associated_data("conversations_revocation", column, self.uuid)


READ_COUNTS_KEPT_FOR: Final = timedelta(days=90)


class TokenReadCountQuerySet(BrandRowsQuerySet["TokenReadCount"]):
    """Counts as their brand's admins may see them."""

    brand_path = "bot_key__brand"


class TokenReadCount(models.Model):
    """Reads that were answered with a token, in one hour; written by `conversations.flow.read_counts` alone."""

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
