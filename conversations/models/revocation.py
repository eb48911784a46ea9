"""A token that waits to be revoked at the brand: readable by nobody, erased after 15 minutes at the latest."""

from datetime import datetime, timedelta
from typing import Final
from uuid import uuid4

from django.db import models
from django.utils import timezone

from brands.models import AuthorizationServer
from conversations.models.conversation import Conversation
from delegation_site.crypto import Place, Secret, key_ring

# How long we keep trying; after that the token is erased whatever the brand says (K6).
REVOCATION_LIFETIME: Final = timedelta(minutes=15)


class Revocation(models.Model):
    """An entry of the outbox, written in the transaction that ended the token. Done or given up, it is deleted."""

    uuid = models.UUIDField(default=uuid4, unique=True, editable=False)
    conversation = models.ForeignKey(Conversation, on_delete=models.CASCADE, related_name="revocations")
    authorization_server = models.ForeignKey(AuthorizationServer, on_delete=models.PROTECT, related_name="+")
    access_token_uuid = models.UUIDField()
    revocation_endpoint = models.CharField(max_length=2048)
    ciphertext = models.BinaryField()
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
        self.ciphertext = key_ring().encrypt(access_token, self.place("ciphertext"))

    def reveal_access_token(self) -> Secret:
        """Return the token, to be presented at the revocation endpoint. Raises `DecryptionError`."""
        return key_ring().decrypt(self.ciphertext, self.place("ciphertext"))

    def place(self, column: str) -> Place:
        """Return where a ciphertext of this row lives."""
        return self.conversation.place("conversations_revocation", column, self.uuid)
