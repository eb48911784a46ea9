"""`[[webhooks]]` of a configuration file: endpoints by their address. One that is not in the file stays as it is."""

from collections.abc import Mapping
from typing import Annotated

import msgspec
from django.core.exceptions import ValidationError
from django.utils import timezone

from brands.changes import save_audited
from brands.models import Brand, WebhookEndpoint
from brands.models.webhook_endpoint import every_event
from brands.webhooks import create_webhook_endpoint, rotate_secret, validate_secret
from delegation_site.crypto import DecryptionError, Secret


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
    problems += [f"webhooks.{url}: the address stands twice" for url in sorted(set(urls)) if urls.count(url) > 1]
    for table in tables if not problems else []:
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
