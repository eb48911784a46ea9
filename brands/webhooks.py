"""Webhook endpoints after the Standard Webhooks specification: made, given new secrets, switched off, and called.

The secret signs and never travels. It is shown once, and replaced with an overlap: for a day every message carries the
signatures of both secrets, so that no receiver has to change at the same moment as we do.
"""

import base64
import binascii
import secrets
from datetime import datetime, timedelta
from typing import Any, Final

from django.core.exceptions import ValidationError
from django.db import transaction
from standardwebhooks import Webhook

from brands import transport
from brands.changes import save_audited
from brands.models import WebhookEndpoint
from delegation_site.audit import SYSTEM, record_event
from delegation_site.crypto import DecryptionError, Secret
from delegation_site.models import AuditEvent

SECRET_OVERLAP: Final = timedelta(hours=24)
_PREFIX: Final = "whsec_"
_SECRET_BYTES: Final = 32
# What the specification allows.
_FEWEST_BYTES: Final = 24
_MOST_BYTES: Final = 64


def new_secret() -> Secret:
    """Return a new signing secret, in the specification's form."""
    return Secret(_PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode())


def validate_secret(secret: Secret) -> None:
    """Refuse what is no `whsec_` and the base64 of 24 to 64 bytes. Raises `ValidationError`."""
    value = secret.reveal()
    try:
        size = len(base64.b64decode(value.removeprefix(_PREFIX), validate=True))
    except (binascii.Error, ValueError):
        size = 0
    if not value.startswith(_PREFIX) or not _FEWEST_BYTES <= size <= _MOST_BYTES:
        raise ValidationError("A signing secret is whsec_ and the base64 of 24 to 64 random bytes.", "invalid_secret")


def create_webhook_endpoint(endpoint: WebhookEndpoint, user: Any = None, secret: Secret | None = None) -> Secret:
    """Save a new endpoint with its audit row; return its secret, which is a new one where none is given."""
    secret = secret or new_secret()
    endpoint.set_secret(secret)
    save_audited(endpoint, user)
    return secret


def rotate_secret(
    endpoint: WebhookEndpoint, *, now: datetime, user: Any = None, secret: Secret | None = None
) -> Secret:
    """Give an endpoint another secret and return it; the old one signs along for a day.

    An old secret that cannot be read any more is not kept: there is nothing it could sign.
    """
    secret = secret or new_secret()
    with transaction.atomic():
        rows = WebhookEndpoint.objects.select_for_update(of=("self",), no_key=True)  # as in `save_audited`
        current = rows.select_related("brand").get(pk=endpoint.pk)
        try:
            current.replace_secret(secret, now + SECRET_OVERLAP)
        except DecryptionError:
            current.set_secret(secret)
        save_audited(current, user)
    return secret


def forget_previous_secrets(now: datetime) -> int:
    """Erase the secrets whose overlap is over; return how many."""
    over = WebhookEndpoint.objects.filter(previous_secret_expires_at__lte=now)
    return over.update(previous_secret_ciphertext=None, previous_secret_expires_at=None)


def switch_off(endpoint: WebhookEndpoint, now: datetime) -> None:
    """Switch an endpoint off that answered 410 Gone: it asked for that."""
    with transaction.atomic():
        if WebhookEndpoint.objects.filter(pk=endpoint.pk, is_active=True).update(is_active=False):
            record_event(
                AuditEvent.Kind.WEBHOOK_CHANGED,
                brand_uuid=endpoint.brand.uuid,
                actor=SYSTEM,
                now=now,
                outcome="gone",
                object_uuid=endpoint.uuid,
                changed_fields=["is_active"],
            )


def note_answer(endpoint: WebhookEndpoint, *, worked: bool, now: datetime) -> None:
    """Remember since when an endpoint has been failing; one that has been waits behind those that work."""
    if worked and endpoint.failing_since is not None:
        WebhookEndpoint.objects.filter(pk=endpoint.pk).update(failing_since=None)
    elif not worked and endpoint.failing_since is None:
        WebhookEndpoint.objects.filter(pk=endpoint.pk, failing_since=None).update(failing_since=now)


def post_message(endpoint: WebhookEndpoint, message_id: str, payload: Secret, now: datetime) -> int:
    """Sign a message with the moment of this attempt and post it; return the status of the answer.

    Raises `OutboundError`, `DecryptionError`.
    """
    body = payload.reveal()
    signers = [Webhook(secret.reveal()) for secret in endpoint.reveal_signing_secrets(now)]
    headers = {
        "Content-Type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(signer.sign(message_id, now, body) for signer in signers),
    }
    return transport.post(endpoint.url, body.encode(), headers).status_code
