"""A brand's stored rows as text: the file of `apply_config` without secrets, or the differences that a file would make.

tomllib only reads TOML, and tomli-w writes no comments. The values are texts, numbers, switches, and lists and tables
of those, so the writer is a few lines.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from django.db import models

from brands.audited_changes import SECRET_FIELDS
from brands.configuration_tables import AuthorizationServerTable, OperationTable, printable
from brands.models import AuthorizationServer, Brand, BrandAPI, Operation, WebhookEndpoint

_HEADER: Final = """\
# The configuration of one brand. To apply it: manage.py apply_config FILE (first with --dry-run).
# It holds no client secret, signing key or webhook secret; comments say which line to add for one.
# Addresses are complete. If a webhook's address must stay private, keep this file private, too.
# Not in it: logo, admins, viewers, bot keys, redirect URIs. Settings that are left out have their default.
"""
_CLIENT_SECRET: Final = """\
# The client secret is not in this file. A stored one stays; where there is none yet, set the variable and add:
# client_secret_env = {variable}
"""
_SIGNING_KEY: Final = """\
# The signing key is not in this file. A stored one stays; where there is none yet, a new one is made.
"""
_WEBHOOK_SECRET: Final = """\
# The signing secret is not in this file. A stored one stays; for a new endpoint apply_config makes one and prints it,
# unless you set the variable and add:
# secret_env = {variable}
"""
# Written even with their default: who reads the file looks for them, and a later default must not change them.
_ALWAYS_WRITTEN: Final = frozenset({"token_endpoint_auth_method", "scope", "same_person_checks", "prompt"})

_SESSIONS: Final = ("conversation_ids", "close_idle_after")

# What a file does not set, and what tells nothing: ids, moments, and public halves of keys.
_NO_DIFFERENCE: Final = frozenset(
    {
        *("id", "uuid", "brand", "key", "slug", "url", "callback_id", "created_at", "failing_since", "logo_hash"),
        *("signing_key_jwk", "previous_signing_key_jwk", "usual_token_lifetime", "host_since", "api"),
        "api_resources",
    }
)
Row = Brand | AuthorizationServer | WebhookEndpoint | BrandAPI | Operation
Rows = dict[str, Row]


def export_configuration(brand: Brand) -> str:
    """Return the file that sets a brand, its servers, APIs and webhooks as they are stored, without any secret."""
    servers = sorted(brand.authorization_servers.all(), key=lambda server: server.key)
    endpoints = sorted(brand.webhook_endpoints.all(), key=lambda endpoint: endpoint.url)
    tables = [_brand_table(brand), *(_server_table(brand, server) for server in servers)]
    apis = brand.apis.select_related("authorization_server").prefetch_related("operations")
    for api in sorted(apis, key=lambda api: api.key):
        operations = sorted(api.operations.all(), key=lambda operation: operation.name)
        tables += [_api_table(api), *map(_operation_table, operations)]
    tables += [_webhook_table(brand, endpoint, number) for number, endpoint in enumerate(endpoints, start=1)]
    return "\n".join([_HEADER, *tables])


def stored_rows(slug: str) -> Rows:
    """Return a brand's row and those of its servers, APIs and webhooks, by the names that messages about a file use."""
    brand = Brand.objects.filter(slug=slug).first()
    if brand is None:
        return {}
    rows: Rows = {"brand": brand}
    rows |= {f"authorization_servers.{server.key}": server for server in brand.authorization_servers.order_by("key")}
    rows |= {f"apis.{api.key}": api for api in brand.apis.select_related("authorization_server").order_by("key")}
    operations = brand.operations.select_related("api").order_by("api__key", "name")
    rows |= {f"apis.{operation.api.key}.operations.{operation.name}": operation for operation in operations}
    return rows | {f"webhooks.{endpoint.url}": endpoint for endpoint in brand.webhook_endpoints.order_by("url")}


def differences(before: Rows, after: Rows) -> list[str]:
    """Return a line for each new or changed row, followed by one for each field. Secrets are named, never shown."""
    lines: list[str] = []
    for name, row in after.items():
        old = before.get(name)
        changes = list(_changed_fields(old or type(row)(), row, is_new=old is None))
        if old is None or changes:
            lines += [f"{name}: would be {'changed' if old else 'created'}", *(f"  {change}" for change in changes)]
    return lines


def toml(value: Any) -> str:
    """Write a text, a finite number, a switch, or a list or dictionary of those as TOML, on one line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{toml(name)} = {toml(inner)}' for name, inner in value.items())}}}"
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{printable(quoted)}"'


def _table(head: str, values: Mapping[str, Any]) -> str:
    return "\n".join([head, *(f"{name} = {toml(value)}" for name, value in values.items()), ""])


def _switched_off(row: Row) -> dict[str, bool]:
    """Only what is off is written: what is switched off elsewhere is not switched on by this file."""
    return {} if row.is_active else {"is_active": False}


def _brand_table(brand: Brand) -> str:
    names = ("slug", "name", "token_read_purpose_required", *_SESSIONS, "accent_colour", "support_contact")
    return _table("[brand]", {name: getattr(brand, name) for name in names} | _switched_off(brand))


def _server_table(brand: Brand, server: AuthorizationServer) -> str:
    names = [name for name in AuthorizationServerTable.stored_settings() if _is_written(server, name)]
    values = {name: getattr(server, name) for name in names}
    of_tables = {name: value for name, value in values.items() if isinstance(value, dict) and value}
    simple = {name: value for name, value in values.items() if name not in of_tables}
    text = _table("[[authorization_servers]]", {"key": server.key, **simple} | _switched_off(server))
    if server.uses_client_secret:
        text += _CLIENT_SECRET.format(variable=toml(_variable("client_secret", brand.slug, server.key)))
    elif server.signing_key_ciphertext is not None:
        text += _SIGNING_KEY
    for name, value in of_tables.items():
        quoted = {toml(inner): text_of for inner, text_of in value.items()}
        text += "\n" + _table(f"[authorization_servers.{name}]", quoted)
    return text


def _is_written(server: AuthorizationServer, name: str) -> bool:
    """Whether the file needs the line. An empty one of `ignored_metadata` says that metadata must not fill it in."""
    field: Any = AuthorizationServer._meta.get_field(name)
    differs = getattr(server, name) != field.get_default()
    return differs or name in _ALWAYS_WRITTEN or name in server.ignored_metadata


def _api_table(api: BrandAPI) -> str:
    values = {"key": api.key, "authorization_server": api.authorization_server.key, "base_url": api.base_url}
    values |= {"host_member": api.host_member} if api.host_member else {}
    values |= {"resource": api.resource} if api.resource else {}
    return _table("[[apis]]", values | _switched_off(api))


def _operation_table(operation: Operation) -> str:
    values = {name: getattr(operation, name) for name in OperationTable.stored_settings()}
    defaults = {name: Operation._meta.get_field(name).get_default() for name in values}  # type: ignore[union-attr]
    changed = {name: value for name, value in values.items() if value != defaults[name]}
    return _table("[[apis.operations]]", {"name": operation.name, **changed} | _switched_off(operation))


def _webhook_table(brand: Brand, endpoint: WebhookEndpoint, number: int) -> str:
    values: dict[str, Any] = {"url": endpoint.url, "label": endpoint.label, "events": endpoint.events}
    text = _table("[[webhooks]]", values | _switched_off(endpoint))
    return text + _WEBHOOK_SECRET.format(variable=toml(_variable("webhook_secret", brand.slug, str(number))))


def _variable(kind: str, *names: str) -> str:
    """Propose the name of an environment variable. It begins with a letter, which a slug need not."""
    return "_".join([kind, *names]).replace("-", "_").upper()


def _changed_fields(old: models.Model, row: models.Model, *, is_new: bool) -> Iterator[str]:
    for name in [field.name for field in row._meta.concrete_fields if field.name not in _NO_DIFFERENCE]:
        # A new row's relation is no attribute yet.
        before, after = getattr(old, name, None), getattr(row, name)
        if name in SECRET_FIELDS:
            yield from _changed_secret(name.removesuffix("_ciphertext"), before, after)
        elif before != after:
            yield f"{name}: {_shown(after)}" if is_new else f"{name}: {_shown(before)} -> {_shown(after)}"


def _changed_secret(name: str, before: Any, after: Any) -> Iterator[str]:
    if (before or None) == (after or None):
        return
    yield f"{name}: would be {'removed' if not after else 'replaced' if before else 'set'}"


def _shown(value: Any) -> str:
    named = value.key if isinstance(value, AuthorizationServer) else value
    return "(none)" if named is None else toml(named)
