"""An access token, encrypted for the one conversation that it belongs to."""

from datetime import datetime
from typing import Any
from uuid import uuid4

from django.db import models
from django.db.models import Q
from django.utils import timezone

from brands.models import AuthorizationServer, Brand, SamePersonCheck
from conversations.models.challenge import Challenge
from conversations.models.conversation import Conversation
from delegation_site.crypto import Place, Secret, key_ring


class AccessTokenQuerySet(models.QuerySet["AccessToken"]):
    """Access tokens by where they stand."""

    def administered_by(self, user: Any) -> "AccessTokenQuerySet":
        """Return the tokens of this admin's brands."""
        if user.is_superuser:
            return self
        return self.filter(conversation__brand__in=Brand.objects.keys_administered_by(user))

    def pending(self) -> "AccessTokenQuerySet":
        """Return those that wait for the same-person check."""
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
    ciphertext = models.BinaryField(null=True)
    # Members of the token answer that the brand has declared for its bots, as JSON; and the names of those left out.
    response_members_ciphertext = models.BinaryField(null=True)
    response_members_left_out = models.TextField(blank=True)
    # As configured when the token was asked for: it is presented nowhere else, whatever is configured later.
    revocation_endpoint = models.CharField(max_length=2048, blank=True)
    token_type = models.CharField(max_length=16)
    scope = models.TextField(blank=True)
    scope_widened = models.BooleanField(default=False)
    assurance = models.CharField(max_length=24, choices=SamePersonCheck)
    subject_ciphertext = models.BinaryField(null=True)
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
        place = self.place("subject_ciphertext")
        self.subject_ciphertext = key_ring().encrypt(subject, place) if subject else None

    def reveal_subject(self) -> Secret:
        """Return who signed in, to be compared. Raises `DecryptionError`."""
        return key_ring().decrypt(self.subject_ciphertext or b"", self.place("subject_ciphertext"))

    def set_access_token(self, access_token: Secret) -> None:
        """Encrypt the token for this row and its conversation. The row is not saved."""
        self.ciphertext = key_ring().encrypt(access_token, self.place("ciphertext"))

    def set_response_members(self, members: Secret | None) -> None:
        """Encrypt the declared members of the token answer for this row. The row is not saved."""
        place = self.place("response_members_ciphertext")
        self.response_members_ciphertext = key_ring().encrypt(members, place) if members else None

    def reveal_response_members(self) -> Secret | None:
        """Return the declared members that came, as JSON text; None where none did. Raises `DecryptionError`."""
        ciphertext = self.response_members_ciphertext
        return None if ciphertext is None else key_ring().decrypt(ciphertext, self.place("response_members_ciphertext"))

    def reveal_access_token(self) -> Secret:
        """Return the token itself. Raises `DecryptionError`, also once it was erased."""
        return key_ring().decrypt(self.ciphertext or b"", self.place("ciphertext"))

    def place(self, column: str) -> Place:
        """Return where a ciphertext of this row lives."""
        return self.conversation.place("conversations_accesstoken", column, self.uuid)
