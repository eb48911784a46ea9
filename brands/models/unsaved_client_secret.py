"""Client secrets that an admin typed into a form that was not saved (H10)."""

import json
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

from django.conf import settings
from django.db import models

from brands.models.authorization_server import AuthorizationServer
from infrastructure.columns import EncryptedField
from infrastructure.crypto import AssociatedData, key_ring

UNSAVED_SECRET_LIFETIME: Final = timedelta(minutes=10)
_SESSION: Final = "unsaved-client-secret-session"
# In the associated data of a secret that was typed for a server that is not stored yet.
_NO_BRAND: Final = UUID(int=0)


def session_digest(session_key: str) -> bytes:
    return key_ring().digest(_SESSION, session_key)


class UnsavedClientSecretQuerySet(models.QuerySet["UnsavedClientSecret"]):
    """Unsaved secrets by who may still use them."""

    def usable(
        self, user_pk: Any, session_key: str, server: AuthorizationServer | None, now: datetime
    ) -> "UnsavedClientSecretQuerySet":
        """Filter to what this admin typed in this session for this server; None is a server that is not stored yet."""
        digests = key_ring().digests(_SESSION, session_key)
        return self.filter(user_id=user_pk, session_digest__in=digests, server=server, expires_at__gt=now)

    def expired(self, now: datetime) -> "UnsavedClientSecretQuerySet":
        return self.filter(expires_at__lte=now)


class UnsavedClientSecret(models.Model):
    """One typed secret. The form that came back names it by its UUID, and its next save can use it once."""

    uuid = models.UUIDField(default=uuid4, unique=True, editable=False)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    session_digest = models.BinaryField(max_length=80)
    server = models.ForeignKey(AuthorizationServer, null=True, on_delete=models.CASCADE, related_name="+")
    # The hosts and the issuer that the form named when the secret was typed: it is used for no other (N8).
    typed_for = models.JSONField(default=dict)
    ciphertext = EncryptedField(related=("server__brand",))
    expires_at = models.DateTimeField(db_index=True)

    objects = UnsavedClientSecretQuerySet.as_manager()

    def __str__(self) -> str:
        return str(self.uuid)

    def associated_data(self, column: str) -> AssociatedData:
        """Bind the ciphertext to admin, session, server and hosts: changed by SQL, it cannot be read (K1)."""
        brand = self.server.brand.uuid if self.server else _NO_BRAND
        owner: list[Any] = [
            self.user_id,
            bytes(self.session_digest).hex(),
            str(self.server.uuid) if self.server else "new",
            self.typed_for,
        ]
        return AssociatedData(
            "brands_unsavedclientsecret", column, self.uuid, brand, owner=json.dumps(owner, sort_keys=True)
        )
