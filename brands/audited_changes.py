"""Saving what an admin or the operator has changed: with its audit rows, in one transaction, and mail where it matters.

Audit rows name fields, and values only of scopes, switches and hosts. That a host changed, or that another address gets
webhooks, is also mailed to the brand's other admins (N8): whoever took one admin's session over must not be able to
send consumers and secrets elsewhere unnoticed, nor read along.
"""

import logging
from collections.abc import Iterable
from smtplib import SMTPException
from typing import Any, Final
from uuid import UUID

from django.conf import settings
from django.core.mail import EmailMessage
from django.db import models, transaction

from brands.models import AuthorizationServer, BotKey, Brand, Logo, WebhookEndpoint
from brands.server_rules import host_of, hosts
from infrastructure.audit import OPERATOR, actor_of_admin, record_event

logger = logging.getLogger("consumer_delegation.changes")


def tell_of_other_hosts(server: AuthorizationServer, lines: list[str], user: Any) -> None:
    """Tell where an authorization server leads now."""
    brand = _in_one_line(server.brand)
    text = [
        f"{_who(user)} changed where {brand}'s authorization server {server.key} leads:",
        "",
        *lines,
        "",
        "If you did not expect this, switch the server off at once and change that admin's password:",
        f"{settings.PUBLIC_BASE_URL}/admin/brands/authorizationserver/{server.pk}/change/",
    ]
    subject = f"{brand}: the authorization server {server.key} leads to another host"
    _send_to_the_others(server.brand, user, subject, text)


def tell_of_webhooks(endpoint: WebhookEndpoint, user: Any) -> None:
    """Tell that another address is told of conversations from now on. Of it only the host: a path may be a secret."""
    brand, host = _in_one_line(endpoint.brand), host_of(endpoint.url)
    text = [
        f"{_who(user)} has {brand}'s webhooks sent to {host} from now on: {', '.join(endpoint.events)}.",
        "",
        "They name conversations, and hold the bot's purpose and context.",
        "",
        "If you did not expect this, switch the endpoint off at once and change that admin's password:",
        f"{settings.PUBLIC_BASE_URL}/admin/brands/webhookendpoint/{endpoint.pk}/change/",
    ]
    _send_to_the_others(endpoint.brand, user, f"{brand}: webhooks are sent to {host}", text)


def _who(user: Any) -> str:
    return str(user.get_username()) if user else "the operator"


def _in_one_line(brand: Brand) -> str:
    return " ".join(brand.name.split())  # a line break in a subject is refused as header injection


def _send_to_the_others(brand: Brand, user: Any, subject: str, text: list[str]) -> None:
    letters = [EmailMessage(subject, "\n".join(text), to=[address]) for address in _other_admins(brand, user)]
    transaction.on_commit(lambda: _send(letters), robust=True)


def _other_admins(brand: Brand, user: Any) -> list[str]:
    admins = brand.admins.filter(is_active=True).exclude(email="")
    return sorted(set((admins.exclude(pk=user.pk) if user else admins).values_list("email", flat=True)))


def _send(letters: list[EmailMessage]) -> None:
    """Send after the commit. A mail server that is down takes nothing back: the audit row is there in any case."""
    for letter in letters:
        try:
            letter.send()
        except (SMTPException, OSError):
            logger.exception("a change could not be mailed")


class BrandEvent(models.TextChoices):
    """What is recorded of a brand and what belongs to it."""

    BRAND_CREATED = "brand.created"
    BRAND_CHANGED = "brand.changed"
    SERVER_CREATED = "authorization_server.created"
    SERVER_CHANGED = "authorization_server.changed"
    SERVER_HOST_CHANGED = "authorization_server.host_changed"
    SERVER_SECRET_CHANGED = "authorization_server.secret_changed"
    SIGN_IN_TRIED = "authorization_server.sign_in_tried"
    BOT_KEY_CREATED = "bot_key.created"
    BOT_KEY_CHANGED = "bot_key.changed"
    BOT_KEY_REVOKED = "bot_key.revoked"
    WEBHOOK_CREATED = "webhook_endpoint.created"
    WEBHOOK_CHANGED = "webhook_endpoint.changed"
    WEBHOOK_SECRET_CHANGED = "webhook_endpoint.secret_changed"


_KINDS: Final[dict[type[models.Model], tuple[BrandEvent, BrandEvent]]] = {
    Brand: (BrandEvent.BRAND_CREATED, BrandEvent.BRAND_CHANGED),
    AuthorizationServer: (BrandEvent.SERVER_CREATED, BrandEvent.SERVER_CHANGED),
    BotKey: (BrandEvent.BOT_KEY_CREATED, BrandEvent.BOT_KEY_CHANGED),
    WebhookEndpoint: (BrandEvent.WEBHOOK_CREATED, BrandEvent.WEBHOOK_CHANGED),
}
_SECRET_FIELDS: Final = frozenset(
    {
        *("client_secret_ciphertext", "signing_key_ciphertext", "previous_signing_key_ciphertext"),
        *("previous_signing_key_jwk", "previous_signing_key_signs_until"),
        *("secret_ciphertext", "previous_secret_ciphertext", "previous_secret_expires_at"),
    }
)
_SECRETS: Final[dict[type[models.Model], BrandEvent]] = {
    AuthorizationServer: BrandEvent.SERVER_SECRET_CHANGED,
    WebhookEndpoint: BrandEvent.WEBHOOK_SECRET_CHANGED,
}
# Their values are in the log: they say what access was widened or moved, and hold no secret. An address may, in its
# path or query, so only its host is written. Every other field is named alone.
_SCOPES: Final = frozenset({"scope", "required_scope"})
_LONGEST_VALUE: Final = 500
# Written by the product itself while an admin has a form open.
_NEVER_CHANGED_HERE: Final = frozenset({"id", "last_used_at", "revoked_at", "failing_since", "reads_unusual_at"})

# What has a history of its own.
AuditedRow = Brand | AuthorizationServer | BotKey | WebhookEndpoint


def actor_of(user: Any) -> str:
    """Return who changes something: an admin, or the operator where a command does it."""
    return actor_of_admin(user.pk) if user else OPERATOR


def save_audited(row: AuditedRow, user: Any = None) -> None:
    """Save a row, new or changed, as this admin or as the operator; write no column that is as it was."""
    with transaction.atomic():
        # Not the key: whoever publishes holds an endpoint's, asks for a server's next, and would wait in a circle.
        rows = type(row)._default_manager.select_for_update(no_key=True)
        before = rows.filter(pk=row.pk).first() if row.pk else None
        if before is None:
            row.save()
            record_change(row, _KINDS[type(row)][0], user)
            if isinstance(row, WebhookEndpoint) and row.is_active:
                tell_of_webhooks(row, user)
            return
        changed = _changed_fields(before, row)
        if changed:
            row.save(update_fields=changed)
            _record_changes(before, row, changed, user)


def keep_logo(brand: Brand, png: bytes | None) -> None:
    """Keep a saved brand's new logo, or forget the one that its row no longer names."""
    if not brand.logo_hash:
        Logo.objects.filter(brand=brand).delete()
    elif png is not None:
        Logo.objects.update_or_create(brand=brand, defaults={"png": png})


def record_change(
    row: AuditedRow,
    kind: BrandEvent,
    user: Any = None,
    changed: Iterable[str] = (),
    *,
    outcome: str = "",
    values: dict[str, list[Any]] | None = None,
) -> None:
    """Write one event about a row; call it in the transaction of the change."""
    brand_uuid: UUID = row.uuid if isinstance(row, Brand) else row.brand.uuid
    actor = actor_of(user)
    record_event(
        kind,
        brand_uuid=brand_uuid,
        actor=actor,
        outcome=outcome,
        object_uuid=row.uuid,
        changed_fields=changed,
        changed_values=values,
    )


def _changed_fields(before: models.Model, row: models.Model) -> list[str]:
    names = [field.name for field in row._meta.concrete_fields if field.name not in _NEVER_CHANGED_HERE]
    return [name for name in names if _value(before, name) != _value(row, name)]


def _value(row: models.Model, name: str) -> Any:
    value = getattr(row, name)
    return bytes(value) if isinstance(value, memoryview) else value


def _record_changes(before: Any, row: Any, changed: list[str], user: Any) -> None:
    secret = [name for name in changed if name in _SECRET_FIELDS]
    plain = [name for name in changed if name not in secret]
    if plain:
        record_change(row, _KINDS[type(row)][1], user, plain, values=_listed_values(before, row, plain))
    if secret:
        record_change(row, _SECRETS[type(row)], user, secret)
    if isinstance(row, AuthorizationServer):
        _tell_of_other_hosts(before, row, user)
    elif isinstance(row, WebhookEndpoint) and row.is_active and not before.is_active:
        tell_of_webhooks(row, user)


def _listed_values(before: models.Model, row: models.Model, names: list[str]) -> dict[str, list[Any]]:
    """Return old and new value of the scopes and switches among these fields."""
    switches = {field.name for field in row._meta.concrete_fields if isinstance(field, models.BooleanField)}
    listed = [name for name in names if name in _SCOPES or name in switches]
    return {name: [_cut(getattr(before, name)), _cut(getattr(row, name))] for name in listed}


def _cut(value: Any) -> Any:
    return f"{value[:_LONGEST_VALUE]}..." if isinstance(value, str) and len(value) > _LONGEST_VALUE else value


def _tell_of_other_hosts(before: AuthorizationServer, server: AuthorizationServer, user: Any) -> None:
    old, new = hosts(before), hosts(server)
    moved = [name for name in new if new[name] != old[name]]
    if not moved:
        return
    values = {name: [old[name], new[name]] for name in moved}
    record_change(server, BrandEvent.SERVER_HOST_CHANGED, user, moved, values=values)
    lines = [f"{name}: {old[name] or '(none)'} -> {new[name] or '(none)'}" for name in moved]
    tell_of_other_hosts(server, lines, user)
