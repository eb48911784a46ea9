"""Save a change by an admin or the operator and its audit rows in one transaction; send mail about risky changes.

Audit rows name the changed fields, and values only of scopes, switches and hosts. If the URL of a server or an API
moves to another host, or an API or a webhook endpoint is added or switched on, the brand's other admins are notified by
mail (N8). This is against somebody who has stolen one admin's session, and redirects consumers, secrets or tokens to a
host of the attacker, or reads events.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import models, transaction
from django.utils import timezone

from brands.models import (
    LIMITS_OF_A_KEY,
    AuthorizationServer,
    BotKey,
    Brand,
    BrandAPI,
    Logo,
    Operation,
    WebhookEndpoint,
)
from brands.server_rules import host_of, hosts_of, lock_server, origin_of
from infrastructure import mail
from infrastructure.audit import CONSUMER, OPERATOR, SYSTEM, actor_of_admin, record_event
from infrastructure.models import AuditEvent


class BrandEvent(models.TextChoices):
    """Audit events of a brand and the rows that belong to it."""

    BRAND_CREATED = "brand.created"
    BRAND_CHANGED = "brand.changed"
    SERVER_CREATED = "authorization_server.created"
    SERVER_CHANGED = "authorization_server.changed"
    SERVER_HOST_CHANGED = "authorization_server.host_changed"
    SERVER_SECRET_CHANGED = "authorization_server.secret_changed"
    SERVER_FAILING = "authorization_server.failing"
    SERVER_RECOVERED = "authorization_server.recovered"
    SIGN_IN_TRIED = "authorization_server.sign_in_tried"
    BOT_KEY_CREATED = "bot_key.created"
    BOT_KEY_CHANGED = "bot_key.changed"
    BOT_KEY_REVOKED = "bot_key.revoked"
    WEBHOOK_CREATED = "webhook_endpoint.created"
    WEBHOOK_CHANGED = "webhook_endpoint.changed"
    WEBHOOK_SECRET_CHANGED = "webhook_endpoint.secret_changed"
    API_CREATED = "brand_api.created"
    API_CHANGED = "brand_api.changed"
    API_HOST_CHANGED = "brand_api.host_changed"
    # A token was stored whose response named no host for the API. The outcome is a reason of `HostNotNamed`.
    API_HOST_REFUSED = "brand_api.host_refused"
    OPERATION_CREATED = "operation.created"
    OPERATION_CHANGED = "operation.changed"


# For each model: the event for a new row, and the event for a changed row.
_EVENTS: Final[dict[type[models.Model], tuple[BrandEvent, BrandEvent]]] = {
    Brand: (BrandEvent.BRAND_CREATED, BrandEvent.BRAND_CHANGED),
    AuthorizationServer: (BrandEvent.SERVER_CREATED, BrandEvent.SERVER_CHANGED),
    BotKey: (BrandEvent.BOT_KEY_CREATED, BrandEvent.BOT_KEY_CHANGED),
    WebhookEndpoint: (BrandEvent.WEBHOOK_CREATED, BrandEvent.WEBHOOK_CHANGED),
    BrandAPI: (BrandEvent.API_CREATED, BrandEvent.API_CHANGED),
    Operation: (BrandEvent.OPERATION_CREATED, BrandEvent.OPERATION_CHANGED),
}
# Changes of these fields are recorded as an event of their own.
SECRET_FIELDS: Final = frozenset(
    {
        *("client_secret_ciphertext", "signing_key_ciphertext", "previous_signing_key_ciphertext"),
        *("previous_signing_key_jwk", "previous_signing_key_signs_until"),
        *("secret_ciphertext", "previous_secret_ciphertext", "previous_secret_expires_at"),
    }
)
_SECRET_EVENTS: Final[dict[type[models.Model], BrandEvent]] = {
    AuthorizationServer: BrandEvent.SERVER_SECRET_CHANGED,
    WebhookEndpoint: BrandEvent.WEBHOOK_SECRET_CHANGED,
}
# The values of these fields are in the log: they say what access was widened or moved, and hold no secret. The path or
# query of a URL may hold a secret, so of a URL only the host is written. Of every other field only the name is written.
_SCOPES: Final = frozenset({"scope", "required_scope"})
# Switches of more than two positions: whether closed ids can be used again, when the worker closes (S9), and how often
# a key may call (G12).
_SWITCHES: Final = frozenset({"conversation_ids", "close_idle_after", *LIMITS_OF_A_KEY})
_LONGEST_VALUE: Final = 500
# Other code updates these fields, possibly while an admin has the form open. Saving the form must not undo an update.
_NOT_SAVED: Final = frozenset(
    {
        *("id", "last_used_at", "revoked_at", "failing_since", "api_resources", "private_networks"),
        *("reads_unusual_at", "reads_unusual_told_at", "calls_unusual_at", "calls_unusual_told_at"),
    }
)

_ADMIN, _BOT = "admin:", "bot:"
_KNOWN: Final = {CONSUMER: "the consumer", SYSTEM: "this product", OPERATOR: "the operator"}

AuditedRow = Brand | AuthorizationServer | BotKey | WebhookEndpoint | BrandAPI | Operation


def actor_of(user: Any) -> str:
    """Return the audit log's actor for an admin; a command passes None and acts as the operator."""
    return actor_of_admin(user.pk) if user else OPERATOR


def save_audited(row: AuditedRow, user: Any = None) -> None:
    """Insert a new row, or update the changed columns of an old one, and write the audit events.

    `user` is the admin who saves, or None if it is the operator.
    """
    with transaction.atomic():
        if isinstance(row, BrandAPI):
            lock_server(row.authorization_server_id)  # before the API
        # FOR NO KEY UPDATE: the sign-in flow inserts rows with foreign keys to these rows. FOR UPDATE would block the
        # flow and could deadlock with it. In the order of the model the brand would be joined, and locked, too: a file
        # that is applied locks the brands first.
        rows = type(row)._default_manager.select_for_update(no_key=True).order_by("pk")
        before = rows.filter(pk=row.pk).first() if row.pk else None
        if before is None:
            row.save()
            record_change(row, _EVENTS[type(row)][0], user, values=_limits_of_new_key(row))
            if isinstance(row, WebhookEndpoint) and row.is_active:
                _notify_of_webhook_endpoint(row, user)
            elif isinstance(row, BrandAPI):
                _report_new_host(None, row, user)
                _keep_resources(row)
            return
        if isinstance(row, BrandAPI) and isinstance(before, BrandAPI):
            _keep_or_renew_host_since(before, row)
        changed = _changed_fields(before, row)
        if changed:
            row.save(update_fields=changed)
            _write_events_for(before, row, changed, user)
            if isinstance(row, BrandAPI) and {"resource", "is_active"} & set(changed):
                _keep_resources(row)


def save_logo(brand: Brand, png: bytes | None) -> None:
    """Store a new logo, or delete the old one if `brand.logo_hash` is empty. Save the brand first."""
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
    """Write one audit event about a row. Call it in the transaction of the change."""
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


def client_secret_set(server: AuthorizationServer) -> tuple[datetime, str] | None:
    """Return when the stored client secret was set, and by whom; None if the audit log no longer says."""
    changes = models.Q(kind=BrandEvent.SERVER_CREATED)
    changes |= models.Q(kind=BrandEvent.SERVER_SECRET_CHANGED, changed_fields__contains="client_secret_ciphertext")
    event = AuditEvent.objects.filter(changes, object_uuid=server.uuid).first()
    return (event.at, names_of([event.actor])[event.actor]) if event else None


def names_of(actors: Iterable[str]) -> dict[str, str]:
    """Map actors of the audit log to names: an account's user name, a bot key's label. Two queries at most."""
    wanted = set(actors)
    numbers = {actor[len(_ADMIN) :] for actor in wanted if actor.startswith(_ADMIN)}
    users = [int(number) for number in numbers if number.isdigit()]
    keys = [actor[len(_BOT) :] for actor in wanted if actor.startswith(_BOT)]
    names = {actor: _KNOWN.get(actor, actor) for actor in wanted}
    if users:
        names |= {f"{_ADMIN}{number}": f"a deleted account ({_ADMIN}{number})" for number in users}
        found = get_user_model()._default_manager.filter(pk__in=users).values_list("pk", "username")
        names |= {f"{_ADMIN}{pk}": name for pk, name in found}
    if keys:
        labels = BotKey.objects.filter(public_id__in=keys).values_list("public_id", "label")
        names |= {f"{_BOT}{public_id}": f"the bot key {label}" for public_id, label in labels}
    return names


def _changed_fields(before: models.Model, row: models.Model) -> list[str]:
    names = [field.name for field in row._meta.concrete_fields if field.name not in _NOT_SAVED]
    return [name for name in names if _value(before, name) != _value(row, name)]


def _value(row: models.Model, name: str) -> Any:
    value = getattr(row, name)
    return bytes(value) if isinstance(value, memoryview) else value


def _write_events_for(before: Any, row: Any, changed: list[str], user: Any) -> None:
    secret = [name for name in changed if name in SECRET_FIELDS]
    plain = [name for name in changed if name not in secret]
    if plain:
        record_change(row, _EVENTS[type(row)][1], user, plain, values=_listed_values(before, row, plain))
    if secret:
        record_change(row, _SECRET_EVENTS[type(row)], user, secret)
    if isinstance(row, AuthorizationServer):
        _report_changed_hosts(before, row, user)
    elif isinstance(row, WebhookEndpoint) and row.is_active and not before.is_active:
        _notify_of_webhook_endpoint(row, user)
    elif isinstance(row, BrandAPI) and (
        row.host_since != before.host_since or (row.is_active and not before.is_active)
    ):
        _report_new_host(before, row, user)


def _listed_values(before: models.Model, row: models.Model, names: list[str]) -> dict[str, list[Any]]:
    """Return old and new value of the scopes and switches among these fields."""
    switches = {field.name for field in row._meta.concrete_fields if isinstance(field, models.BooleanField)}
    listed = [name for name in names if name in _SCOPES | _SWITCHES | switches]
    return {name: [_cut(getattr(before, name)), _cut(getattr(row, name))] for name in listed}


def _limits_of_new_key(row: AuditedRow) -> dict[str, list[Any]] | None:
    """Return the limits that a new bot key has of its own (G12), None before each; None if it has none."""
    limits = {name: getattr(row, name) for name in LIMITS_OF_A_KEY} if isinstance(row, BotKey) else {}
    return {name: [None, number] for name, number in limits.items() if number is not None} or None


def _cut(value: Any) -> Any:
    return f"{value[:_LONGEST_VALUE]}..." if isinstance(value, str) and len(value) > _LONGEST_VALUE else value


def _report_changed_hosts(before: AuthorizationServer, server: AuthorizationServer, user: Any) -> None:
    old, new = hosts_of(before), hosts_of(server)
    changed = [name for name in new if new[name] != old[name]]
    if not changed:
        return
    values = {name: [old[name], new[name]] for name in changed}
    record_change(server, BrandEvent.SERVER_HOST_CHANGED, user, changed, values=values)
    lines = [f"{name}: {old[name] or '(none)'} -> {new[name] or '(none)'}" for name in changed]
    _notify_of_changed_hosts(server, lines, user)


def _notify_of_changed_hosts(server: AuthorizationServer, lines: list[str], user: Any) -> None:
    brand = name_on_one_line(server.brand)
    text = [
        f"{_name_of(user)} changed hosts of {brand}'s authorization server {server.key}:",
        "",
        *lines,
        *_if_unexpected("server", server),
    ]
    subject = f"{brand}: the host of authorization server {server.key} was changed"
    mail_admins(server.brand, subject, text, but=user)


def _notify_of_webhook_endpoint(endpoint: WebhookEndpoint, user: Any) -> None:
    """The mail names only the endpoint's host, because the path may be a secret."""
    brand, host = name_on_one_line(endpoint.brand), host_of(endpoint.url)
    text = [
        f"{_name_of(user)} added or switched on a webhook endpoint of {brand}.",
        f"From now on, {host} gets these events: {', '.join(endpoint.events)}.",
        "",
        "Webhooks identify conversations and contain the bot's purpose and context.",
        *_if_unexpected("endpoint", endpoint),
    ]
    mail_admins(endpoint.brand, f"{brand}: webhooks are sent to {host}", text, but=user)


def _keep_or_renew_host_since(before: BrandAPI, api: BrandAPI) -> None:
    """A token that is older than the host never goes there (P2). The stored moment counts, not that of a stale row."""
    has_moved = (origin_of(api.base_url), api.host_member) != (origin_of(before.base_url), before.host_member)
    api.host_since = timezone.now() if has_moved else before.host_since


def _keep_resources(api: BrandAPI) -> None:
    """Copy the resources of the server's active APIs to its row, from where sign-ins read them (B23).

    Call it under that row's lock: of two APIs that are saved at the same time, the second one counts the first one's
    resource.
    """
    servers = AuthorizationServer.objects.filter(pk=api.authorization_server_id)
    apis = BrandAPI.objects.filter(authorization_server=api.authorization_server_id, is_active=True)
    named = apis.exclude(resource="").order_by("key").values_list("resource", flat=True)
    servers.update(api_resources=" ".join(dict.fromkeys(named)))


def _report_new_host(before: BrandAPI | None, api: BrandAPI, user: Any) -> None:
    """Audit and mail the host that gets consumers' access tokens. The mail names no path, which may be a secret."""
    old, new = _authority(before.base_url) if before else "", _authority(api.base_url)
    members = [before.host_member if before else "", api.host_member]
    values = {name: pair for name, pair in (("base_url", [old, new]), ("host_member", members)) if pair[0] != pair[1]}
    if values:
        record_change(api, BrandEvent.API_HOST_CHANGED, user, values, values=values)
    brand = name_on_one_line(api.brand)
    text = [
        f"{_name_of(user)} added, changed or switched on the API {api.key} of {brand}.",
        f"Bots' calls there take consumers' access tokens to this host: {old or '(none)'} -> {new}",
        *([f"The token response's member {api.host_member} says which host it is."] if api.host_member else []),
        *_if_unexpected("API", api),
    ]
    mail_admins(api.brand, f"{brand}: access tokens are sent to {new}", text, but=user)


def _authority(address: str) -> str:
    """Return host and port of a URL as one text; the scheme, too, where it is not https."""
    scheme, host, port = origin_of(address) or ("", "", None)
    shown = host if port in {443, None} else f"{host}:{port}"
    return shown if scheme in {"https", ""} else f"{scheme}://{shown}"


def _if_unexpected(what: str, row: AuditedRow) -> list[str]:
    """The end of each mail: what to do, and where."""
    return [
        "",
        f"If you did not expect this, switch the {what} off at once and change that admin's password:",
        f"{settings.PUBLIC_BASE_URL}/admin/brands/{row._meta.model_name}/{row.pk}/change/",
    ]


def _name_of(user: Any) -> str:
    return str(user.get_username()) if user else "the operator"


def name_on_one_line(brand: Brand) -> str:
    """Return a brand's name for the subject of a mail."""
    return " ".join(brand.name.split())


def mail_admins(brand: Brand, subject: str, text: list[str], but: Any = None) -> None:
    """Mail a brand's admins, except one, after the commit. A mail that cannot be sent is only logged."""
    admins = brand.admins.filter(is_active=True).exclude(email="")
    addresses = sorted(set((admins.exclude(pk=but.pk) if but else admins).values_list("email", flat=True)))
    transaction.on_commit(lambda: mail.send(subject, text, addresses), robust=True)
