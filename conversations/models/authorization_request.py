"""Authorization requests. Each browser that begins a challenge has its own."""

from datetime import datetime, timedelta
from typing import Any, Final
from uuid import uuid4

from django.db import models
from django.utils import timezone

from conversations.models.conversation import Challenge
from infrastructure.columns import EncryptedField, reveal, reveal_if_there, seal
from infrastructure.crypto import AssociatedData, Secret
from oauth_client.configuration import ServerConfiguration
from oauth_client.dpop import ProofKey

# An exchange has a deadline of 10 s. An authorization request that was claimed longer ago than this and has no result
# will never have one (B11).
EXCHANGE_GIVEN_UP_AFTER: Final = timedelta(seconds=30)
# "attempt" is an older name of the authorization request. The cookies of browsers that are signing in have it.
COOKIE_PREFIX: Final = "__Host-attempt-"


class KeepsProofKey(models.Model):
    """A row with the private key that an access token is, or will be, bound to (DPoP, RFC 9449)."""

    # Null for bearer tokens, and once the key is of no use any more (K7, K6).
    dpop_key_ciphertext: Any

    class Meta:
        abstract = True

    def set_proof_key(self, proof_key: ProofKey | None) -> None:
        """Encrypt the key for this row. The row is not saved."""
        seal(self, "dpop_key_ciphertext", proof_key.private_jwk if proof_key else None)

    def reveal_proof_key(self) -> ProofKey | None:
        """Decrypt the key; None if there is none. Raises `DecryptionError`."""
        return ProofKey.of(reveal_if_there(self, "dpop_key_ciphertext"))


class AuthorizationRequest(KeepsProofKey):
    """One browser's authorization request: its own state, nonce, code verifier and cookie (B1, B12)."""

    uuid = models.UUIDField(default=uuid4, unique=True, editable=False)
    challenge = models.ForeignKey(Challenge, on_delete=models.CASCADE, related_name="authorization_requests")
    state_digest = models.BinaryField(max_length=80, unique=True)
    cookie_digest = models.BinaryField()
    nonce_digest = models.BinaryField(null=True)
    code_verifier_ciphertext = EncryptedField(related=("challenge__conversation__brand",), null=True)
    dpop_key_ciphertext = EncryptedField(related=("challenge__conversation__brand",), null=True)
    # The server's configuration when the authorization request began.
    configuration = models.JSONField()
    created_at = models.DateTimeField(default=timezone.now)
    # When a callback claimed the exchange. Only that callback sends the code.
    claimed_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    error = models.CharField(max_length=64, blank=True)
    # For the brand's admins: what is known beside the code, cut and cleaned (H8). Erased when the conversation closes.
    error_detail = models.CharField(max_length=200, blank=True)

    # When the token expires that the challenge brought; None if it brought none, or the query did not ask.
    token_expires_at: datetime | None = None

    class Meta:
        ordering = ("-id",)

    def __str__(self) -> str:
        return str(self.uuid)

    @property
    def cookie_name(self) -> str:
        """The name of this request's cookie. With `__Host-`, other hosts cannot set it (B3)."""
        return f"{COOKIE_PREFIX}{self.uuid.hex}"

    @property
    def succeeded(self) -> bool:
        return self.finished_at is not None and not self.error

    def in_progress(self, now: datetime) -> bool:
        """Whether the exchange may still produce a result.

        A `claimed_at` far in the future comes from a process with a wrong clock, and does not count.
        """
        if self.claimed_at is None or self.finished_at is not None:
            return False
        return abs(now - self.claimed_at) < EXCHANGE_GIVEN_UP_AFTER

    def cookie_is_useless(self, now: datetime) -> bool:
        """Whether the browser can drop the cookie.

        True if none of these needs the cookie any more: the callback, the page with the completion code, the receipt,
        undo.
        """
        if self.in_progress(now):
            return False
        if self.succeeded:
            access_token = getattr(self.challenge, "access_token", None)
            return access_token is None or bool(access_token.end_reason_at(now))
        return self.claimed_at is not None or self.finished_at is not None or not self.challenge.accepts_sign_in(now)

    def stored_configuration(self) -> ServerConfiguration:
        """Return the server's configuration as it was when this authorization request began."""
        return ServerConfiguration.from_json(self.configuration)

    def set_code_verifier(self, code_verifier: Secret) -> None:
        """Encrypt the code verifier for this row. The row is not saved."""
        seal(self, "code_verifier_ciphertext", code_verifier)

    def reveal_code_verifier(self) -> Secret:
        """Decrypt the code verifier (RFC 7636 section 4.1). Raises `DecryptionError`, also if it was erased (K7)."""
        return reveal(self, "code_verifier_ciphertext")

    def associated_data(self, column: str) -> AssociatedData:
        return self.challenge.conversation.associated_data("conversations_authorizationrequest", column, self.uuid)
