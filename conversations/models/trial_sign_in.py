"""A trial sign-in: an admin of the brand goes through the flow without a consumer, to see whether a server works."""

from datetime import timedelta
from typing import Final
from uuid import uuid4

from django.conf import settings
from django.db import models
from django.utils import timezone

from brands.models import AuthorizationServer
from conversations.models.authorization_request import KeepsProofKey
from infrastructure.columns import EncryptedField, reveal, seal
from infrastructure.crypto import AssociatedData, Secret
from oauth_client import ServerConfiguration

# How long the admin has to sign in at the server.
TRIAL_LIFETIME: Final = timedelta(minutes=15)
# Then the cleanup deletes the row.
TRIAL_RETENTION: Final = timedelta(days=1)


class TrialSignIn(KeepsProofKey):
    """One trial, bound to the admin's browser. It has no conversation, and its access token is never stored.

    `report` is JSON for the admin's page: scopes, durations, and the names of claims and of members of the token
    response. It holds no token, claim value or other member value (J9).
    """

    uuid = models.UUIDField(default=uuid4, unique=True, editable=False)
    authorization_server = models.ForeignKey(AuthorizationServer, on_delete=models.CASCADE)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    session_digest = models.BinaryField()
    state_digest = models.BinaryField(max_length=80, unique=True)
    cookie_digest = models.BinaryField()
    nonce_digest = models.BinaryField(null=True)
    code_verifier_ciphertext = EncryptedField(related=("authorization_server__brand",), null=True)
    dpop_key_ciphertext = EncryptedField(related=("authorization_server__brand",), null=True)
    configuration = models.JSONField()
    created_at = models.DateTimeField(default=timezone.now, db_index=True)
    returned_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    error = models.CharField(max_length=64, blank=True)
    error_detail = models.CharField(max_length=500, blank=True)
    report = models.JSONField(default=dict)

    class Meta:
        ordering = ("-id",)

    def __str__(self) -> str:
        return str(self.uuid)

    def stored_configuration(self) -> ServerConfiguration:
        """Return the copy of the server's configuration that the trial began with."""
        return ServerConfiguration.from_json(self.configuration)

    def set_code_verifier(self, code_verifier: Secret) -> None:
        """Encrypt the verifier for this row. The row is not saved."""
        seal(self, "code_verifier_ciphertext", code_verifier)

    def reveal_code_verifier(self) -> Secret:
        """Return the PKCE verifier (RFC 7636 section 4.1). Raises `DecryptionError`, also if it was erased (K7)."""
        return reveal(self, "code_verifier_ciphertext")

    def associated_data(self, column: str) -> AssociatedData:
        brand = self.authorization_server.brand
        return AssociatedData("conversations_trialsignin", column, self.uuid, brand.uuid)
