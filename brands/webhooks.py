"""Webhook endpoints after the Standard Webhooks specification: made, given new secrets, switched off, and called.

The secret signs and never travels. It is shown once, and replaced with an overlap: for a day every message carries the
signatures of both secrets, so that no receiver has to change at the same moment as we do.
"""

import base64
import binascii
import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any, Final

import msgspec
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone
from standardwebhooks import Webhook

from brands.audited_changes import BrandEvent, save_audited
from brands.models import Brand, WebhookEndpoint
from brands.models.webhook_endpoint import every_event
from infrastructure.audit import SYSTEM, record_event
from infrastructure.crypto import DecryptionError, Secret
from oauth_client import transport

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
                BrandEvent.WEBHOOK_CHANGED,
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


class WebhookTable(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`[[webhooks]]`; without `events` every event is told, without `secret_env` we make the secret."""

    url: str
    events: list[str] = msgspec.field(default_factory=every_event)
    label: Annotated[str, msgspec.Meta(pattern=r"^[^\x00-\x1f\x7f]*$")] = ""
    secret_env: str | None = None


def apply_webhooks(
    brand: Brand, tables: list[WebhookTable], environment: Mapping[str, str], problems: list[str]
) -> dict[str, dict[str, str]]:
    """Create or update a brand's endpoints; return the secrets that were made, by address: they are shown once.

    What is wrong is appended to `problems`; the caller rolls everything back then.
    """
    made: dict[str, dict[str, str]] = {}
    urls = [table.url for table in tables]
    doubled = [f"webhooks.{url}: the address stands twice" for url in sorted(set(urls)) if urls.count(url) > 1]
    problems += doubled
    for table in tables if not doubled else []:
        secret = _apply(brand, table, environment, problems)
        if secret is not None:
            made[table.url] = {"secret": secret.reveal()}
    return made


def _apply(brand: Brand, table: WebhookTable, environment: Mapping[str, str], problems: list[str]) -> Secret | None:
    """Return the secret of a new endpoint that we have made one for."""
    stored = brand.webhook_endpoints.filter(url=table.url).first()
    endpoint = stored or WebhookEndpoint(brand=brand, url=table.url)
    endpoint.events, endpoint.label = table.events, table.label
    try:
        endpoint.full_clean()
        given = _given_secret(table, environment)
    except ValidationError as error:
        found = error.message_dict.items()
        problems += [f"webhooks.{table.url}.{name}: {text}" for name, messages in found for text in messages]
        return None
    if stored is None:
        made = create_webhook_endpoint(endpoint, secret=given)
        return made if given is None else None
    save_audited(endpoint)
    if given is not None and not _has(endpoint, given):
        rotate_secret(endpoint, now=timezone.now(), secret=given)
    return None


def _given_secret(table: WebhookTable, environment: Mapping[str, str]) -> Secret | None:
    """Return the secret that the file names. Raises `ValidationError`."""
    if table.secret_env is None:
        return None
    secret = Secret(environment.get(table.secret_env, ""))
    try:
        validate_secret(secret)
    except ValidationError as error:
        raise ValidationError({"secret_env": f"{table.secret_env}: {error.message}"}) from None
    return secret


def _has(endpoint: WebhookEndpoint, secret: Secret) -> bool:
    try:
        return endpoint.reveal_secret() == secret
    except DecryptionError:
        return False
