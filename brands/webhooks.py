"""Create webhook endpoints, rotate their secrets, and sign and post messages (Standard Webhooks).

A secret is shown once, when it is created. After a rotation, messages carry the signatures of both secrets for a day,
so a receiver can replace its secret at any time of that day.
"""

import base64
import binascii
import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

import msgspec
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone
from standardwebhooks import Webhook

from brands.audited_changes import BrandEvent, save_audited
from brands.configuration_tables import WebhookTable, problems_of
from brands.models import Brand, WebhookEndpoint
from infrastructure.audit import SYSTEM, record_event
from infrastructure.crypto import DecryptionError, Secret
from oauth_client import transport

SECRET_OVERLAP: Final = timedelta(hours=24)
_PREFIX: Final = "whsec_"
_SECRET_BYTES: Final = 32
# The sizes that the specification allows.
_MIN_SECRET_BYTES: Final = 24
_MAX_SECRET_BYTES: Final = 64


def new_secret() -> Secret:
    """Make a random signing secret: `whsec_` and base64."""
    return Secret(_PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode())


def validate_secret(secret: Secret) -> None:
    """Allow `whsec_` and the base64 of 24 to 64 bytes. Raises `ValidationError`."""
    value = secret.reveal()
    try:
        size = len(base64.b64decode(value.removeprefix(_PREFIX), validate=True))
    except (binascii.Error, ValueError):
        size = 0
    if not value.startswith(_PREFIX) or not _MIN_SECRET_BYTES <= size <= _MAX_SECRET_BYTES:
        raise ValidationError(
            "A signing secret is whsec_ followed by the base64 of 24 to 64 random bytes.", "invalid_secret"
        )


def create_webhook_endpoint(endpoint: WebhookEndpoint, user: Any = None, secret: Secret | None = None) -> Secret:
    """Save a new endpoint and its audit event. Return its secret: the given one, or a random one."""
    secret = secret or new_secret()
    endpoint.set_secret(secret)
    save_audited(endpoint, user)
    return secret


def rotate_secret(
    endpoint: WebhookEndpoint, *, now: datetime, user: Any = None, secret: Secret | None = None
) -> Secret:
    """Replace an endpoint's secret by the given or a random one, and return it. The old one also signs for a day.

    An old secret that cannot be decrypted is dropped.
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
    """Erase old secrets that no longer sign; return how many."""
    over = WebhookEndpoint.objects.filter(previous_secret_expires_at__lte=now)
    return over.update(previous_secret_ciphertext=None, previous_secret_expires_at=None)


def switch_off(endpoint: WebhookEndpoint, now: datetime) -> None:
    """Switch an endpoint off because it answered 410 Gone."""
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
    """Record since when an endpoint has been failing. The worker serves endpoints that work first."""
    if worked and endpoint.failing_since is not None:
        WebhookEndpoint.objects.filter(pk=endpoint.pk).update(failing_since=None)
    elif not worked and endpoint.failing_since is None:
        WebhookEndpoint.objects.filter(pk=endpoint.pk, failing_since=None).update(failing_since=now)


def post_message(endpoint: WebhookEndpoint, message_id: str, payload: Secret, now: datetime) -> int:
    """Sign a message, with `now` as its timestamp, and post it. Return the HTTP status of the response.

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
    with endpoint.in_private_networks():
        return transport.post(endpoint.url, body.encode(), headers).status_code


def apply_webhooks(
    brand: Brand, tables: list[WebhookTable], environment: Mapping[str, str], problems: list[str]
) -> dict[str, dict[str, str]]:
    """Create or update a brand's endpoints. Return each random secret of a new endpoint by URL: `{"secret": ...}`.

    Errors are appended to `problems`. If there are any, the caller must roll the transaction back. Endpoints of a brand
    that could not be saved are checked only.
    """
    new_secrets: dict[str, dict[str, str]] = {}
    urls = [table.url for table in tables]
    repeated = [f"webhooks.{url}: the URL is given twice" for url in sorted(set(urls)) if urls.count(url) > 1]
    problems += repeated
    for table in tables if not repeated else []:
        secret = _apply(brand, table, environment, problems)
        if secret is not None:
            new_secrets[table.url] = {"secret": secret.reveal()}
    return new_secrets


def _apply(brand: Brand, table: WebhookTable, environment: Mapping[str, str], problems: list[str]) -> Secret | None:
    """Create or update one endpoint. Return its secret if it is new and the secret is random."""
    stored = brand.webhook_endpoints.filter(url=table.url).first() if brand.pk else None
    endpoint = stored or WebhookEndpoint(brand=brand, url=table.url)
    endpoint.events, endpoint.label = table.events, table.label
    if table.is_active is not msgspec.UNSET:
        endpoint.is_active = table.is_active
    where = f"webhooks.{table.url}"
    found = problems_of(where, partial(endpoint.full_clean, exclude={*table.lost, *(() if brand.pk else ("brand",))}))
    given: Secret | None = None
    try:
        given = _given_secret(table, environment)
    except ValidationError as error:
        found.append(f"{where}.secret_env: {error.messages[0]}")
    problems += found
    if found or table.unreadable or brand.pk is None:
        return None
    if stored is None:
        secret = create_webhook_endpoint(endpoint, secret=given)
        return secret if given is None else None
    save_audited(endpoint)
    if given is not None and not _is_current(endpoint, given):
        rotate_secret(endpoint, now=timezone.now(), secret=given)
    return None


def _given_secret(table: WebhookTable, environment: Mapping[str, str]) -> Secret | None:
    """Read the secret from the environment variable `secret_env`. Raises `ValidationError`."""
    if table.secret_env is None:
        return None
    secret = Secret(environment.get(table.secret_env, ""))
    try:
        validate_secret(secret)
    except ValidationError as error:
        raise ValidationError(f"{table.secret_env}: {error.message}") from None
    return secret


def _is_current(endpoint: WebhookEndpoint, secret: Secret) -> bool:
    try:
        return endpoint.reveal_secret() == secret
    except DecryptionError:
        return False
