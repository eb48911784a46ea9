"""Read a brand, its authorization servers, APIs and webhooks from a TOML file, and apply all of it or nothing."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import msgspec
from django.db import transaction

from brands.audited_changes import save_audited
from brands.configuration_export import differences, stored_rows
from brands.configuration_tables import (
    APITable,
    AuthorizationServerTable,
    BrandTable,
    OperationTable,
    Table,
    WebhookTable,
    no_such_setting,
    printable,
    problems_of,
    read_table,
    read_tables,
)
from brands.models import AuthorizationServer, Brand, BrandAPI, Operation
from brands.server_rules import (
    FIELDS_FROM_METADATA,
    NEEDED_ENDPOINTS,
    SecretProblem,
    ServerChange,
    complete_from_metadata,
    default_algorithms,
    discovery_problem,
    issuer_of_address,
    lock_all_brands,
    needs_discovery,
    refuse_shared_registration,
)
from brands.webhooks import apply_webhooks
from infrastructure.crypto import Secret
from oauth_client import DiscoveryFailed, discover
from oauth_client.outbound_errors import EndpointBlocked, OutboundError
from oauth_client.validators import IGNORABLE_METADATA

_SECRET_NEEDED: Final = {
    SecretProblem.NONE_STORED: "this client authentication needs a secret",
    SecretProblem.FOR_ANOTHER_HOST: "a host or the issuer has changed, so give the secret again",
}

_ALLOW_IT_FIRST: Final = "If it is in a private network, allow that first: manage.py private_networks."


@dataclass(frozen=True, slots=True)
class ConfigurationFile:
    """The file's tables without the lines that cannot be read, and `problems` with a message for each of those."""

    brand: BrandTable
    authorization_servers: list[AuthorizationServerTable]
    apis: list[tuple[APITable, list[OperationTable]]]
    webhooks: list[WebhookTable]
    problems: list[str]


class ConfigurationRefused(Exception):
    """The file was refused, and nothing was changed.

    `problems` has a message for each bad field, without secret values.
    """

    def __init__(self, problems: list[str]) -> None:
        # The messages contain names from the file, which somebody else may have written.
        self.problems = [printable(problem) for problem in problems]
        super().__init__("; ".join(self.problems))


def read_configuration(text: str) -> ConfigurationFile:
    """Parse the TOML text. Raises `ConfigurationRefused` if it is not TOML."""
    try:
        found = msgspec.toml.decode(text)
    except msgspec.DecodeError as error:
        raise ConfigurationRefused([str(error)]) from None
    except (ValueError, RecursionError):
        # Python's TOML parser fails on numbers of more than 4,300 digits and on very deep nesting.
        raise ConfigurationRefused(["the file contains a number that is too long, or is nested too deeply"]) from None
    known = ("brand", "authorization_servers", "apis", "webhooks")
    problems = [f"{name}: {no_such_setting(name, known)}" for name in found if name not in known]
    return ConfigurationFile(
        brand=read_table(BrandTable, found.get("brand", {}), "brand", problems),
        authorization_servers=read_tables(AuthorizationServerTable, found.get(known[1], []), known[1], "key", problems),
        apis=_read_apis(found.get(known[2], []), problems),
        webhooks=read_tables(WebhookTable, found.get(known[3], []), known[3], "url", problems),
        problems=problems,
    )


def _read_apis(found: object, problems: list[str]) -> list[tuple[APITable, list[OperationTable]]]:
    apis = read_tables(APITable, found, "apis", "key", problems)
    within = [f"apis.{table.key}.operations" for table in apis]
    return [
        (table, read_tables(OperationTable, table.operations, where, "name", problems))
        for table, where in zip(apis, within, strict=True)
    ]


def apply_configuration(file: ConfigurationFile, environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Create or update the brand, its servers, APIs and webhooks. Return URIs to register at servers, and new secrets.

    Metadata is fetched before the transaction begins. Raises `ConfigurationRefused`, with all problems of the file.
    """
    values, problems = _values_and_problems(file)
    with transaction.atomic():
        return _apply(file, values, environment, problems)


def preview_configuration(file: ConfigurationFile, environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return the lines that say what `apply_configuration` would change. Nothing is stored, and no mail is sent.

    Metadata is fetched as it would be then. Raises `ConfigurationRefused`, with all problems of the file.
    """
    values, problems = _values_and_problems(file)
    with transaction.atomic():
        before = stored_rows(file.brand.slug)
        _apply(file, values, environment, problems)
        lines = differences(before, stored_rows(file.brand.slug))
        transaction.set_rollback(True)
    return lines


def _values_and_problems(file: ConfigurationFile) -> tuple[list[dict[str, Any]], list[str]]:
    problems = [*file.problems]
    keys = [table.key for table in file.authorization_servers]
    problems += [f"authorization_servers.{key}: the key is given twice" for key in _duplicates(keys)]
    keys = [table.key for table, _ in file.apis]
    problems += [f"apis.{key}: the key is given twice" for key in _duplicates(keys)]
    names = [table.name for _, operations in file.apis for table in operations]
    problems += [f"operations.{name}: the brand has one operation of a name" for name in _duplicates(names)]
    return [_complete_values(file.brand.slug, table, problems) for table in file.authorization_servers], problems


def _apply(
    file: ConfigurationFile, values: list[dict[str, Any]], environment: Mapping[str, str], problems: list[str]
) -> dict[str, Any]:
    lock_all_brands()  # before `save_audited` locks this one
    brand = Brand.objects.filter(slug=file.brand.slug).first() or Brand(slug=file.brand.slug)
    _lock_servers_and_apis(brand)
    file.brand.apply_to(brand)
    problems_of_brand = problems_of("brand", partial(brand.full_clean, exclude=file.brand.lost))
    problems += problems_of_brand
    if not problems_of_brand and not file.brand.unreadable:
        save_audited(brand)
    # Check everything even after the first problem, so that the operator can correct the file in one go.
    tables = zip(file.authorization_servers, values, strict=True)
    servers = [_apply_server(brand, table, found, environment, problems) for table, found in tables]
    for api, operations in file.apis:
        _apply_api(brand, api, operations, {server.key: server for server in servers}, problems)
    secrets = apply_webhooks(brand, file.webhooks, environment, problems)
    if problems:
        raise ConfigurationRefused(problems)
    addresses = {server.key: _addresses(server) for server in servers}
    return {"brand": brand.slug, "authorization_servers": addresses} | ({"webhooks": secrets} if secrets else {})


def _lock_servers_and_apis(brand: Brand) -> None:
    """Lock them as the admin's forms do, in the order that `lock_server` names, before any of them is checked."""
    if brand.pk:
        for rows in (brand.authorization_servers, brand.apis):
            list(rows.select_for_update(no_key=True).order_by("pk").values_list("pk"))


def _addresses(server: AuthorizationServer) -> dict[str, str]:
    addresses = {"redirect_uri": server.redirect_uri}
    return addresses | ({"jwks_uri": server.client_jwks_uri} if server.client_jwks_uri else {})


def _complete_values(brand: str, table: AuthorizationServerTable, problems: list[str]) -> dict[str, Any]:
    """Return the values for the row. If the file gives an issuer but not both needed endpoints, complete them.

    A new row, or one of another issuer, is completed from the issuer's metadata. A row of that issuer keeps its values,
    so that a later change of the metadata does not change our configuration unseen (C6). A field that the file sets to
    empty stays empty.
    """
    values = table.model_values()
    if "issuer" in values:
        values["issuer"] = issuer_of_address(values["issuer"])
    if not needs_discovery(values):
        return values
    stored = AuthorizationServer.objects.filter(brand__slug=brand, key=table.key, issuer=values["issuer"]).first()
    if stored is not None:
        return values | _stored_values(table, values, stored)
    try:
        with AuthorizationServer(brand=Brand.objects.filter(slug=brand).first()).in_private_networks():
            metadata = discover(values["issuer"])
    except DiscoveryFailed as failure:
        name, message = discovery_problem(failure)
        # An operator reads why; a brand's admin would learn what is inside our network (N9).
        found = {name: f"{message} {_reason(failure.unanswered)}" if failure.unanswered else message}
    else:
        if table.omits("id_token_signing_alg_values"):
            values["id_token_signing_alg_values"] = default_algorithms(metadata)
        found = complete_from_metadata(values, metadata)
    problems += [f"authorization_servers.{table.key}.{name}: {problem}" for name, problem in found.items()]
    return values


def _reason(error: OutboundError) -> str:
    remedy = f" {_ALLOW_IT_FIRST}" if isinstance(error, EndpointBlocked) else ""
    return f"The reason: {error}.{remedy}"


def _stored_values(
    table: AuthorizationServerTable, values: dict[str, Any], stored: AuthorizationServer
) -> dict[str, Any]:
    """Return the values that the row keeps: fields that the file omits, and needed endpoints that it sets to empty."""
    kept = [name for name in FIELDS_FROM_METADATA if table.omits(name)]
    kept += [name for name in NEEDED_ENDPOINTS if not values[name]]
    still_ignored = [name for name in stored.ignored_metadata if table.omits(name)]
    ignored = [name for name in IGNORABLE_METADATA if name in {*table.emptied_fields(), *still_ignored}]
    return {name: getattr(stored, name) for name in kept} | {"ignored_metadata": ignored}


def _apply_server(
    brand: Brand,
    table: AuthorizationServerTable,
    values: dict[str, Any],
    environment: Mapping[str, str],
    problems: list[str],
) -> AuthorizationServer:
    server = brand.authorization_servers.filter(key=table.key).first() if brand.pk else None
    server = server or AuthorizationServer(brand=brand, key=table.key)
    change = ServerChange(server)
    for name, value in values.items():
        setattr(server, name, value)
    if table.is_active is not msgspec.UNSET:
        server.is_active = table.is_active
    where = f"authorization_servers.{table.key}"
    _apply_secret(change, table, environment, problems)
    found = _problems_of_server(server, table)
    # Without metadata, what it would have filled in is empty. That is no further mistake of the file.
    lacks_metadata = needs_discovery(values) or "issuer" in table.lost
    empty = {f"{where}.{name}" for name in FIELDS_FROM_METADATA if lacks_metadata and not getattr(server, name)}
    problems += [problem for problem in found if problem.partition(": ")[0] not in empty]
    if not found and not table.unreadable and brand.pk is not None:
        save_audited(server)
    return server


def _problems_of_server(server: AuthorizationServer, table: AuthorizationServerTable) -> list[str]:
    where = f"authorization_servers.{server.key}"
    unsaved = set() if server.brand.pk else {"brand"}
    if table.lost:  # their values are unknown, so only the other fields can be checked, each alone
        return problems_of(where, partial(server.clean_fields, exclude={*table.lost, *unsaved}))
    found = problems_of(where, partial(server.full_clean, exclude=unsaved))
    return found or ([] if unsaved else problems_of(where, partial(refuse_shared_registration, server)))


def _secret_of(table: AuthorizationServerTable, environment: Mapping[str, str]) -> Secret | None:
    """Return the client secret from the file or the environment, if there is one. Raises `ConfigurationRefused`."""
    if table.client_secret_env is None:
        return Secret(table.client_secret) if table.client_secret else None
    where = f"authorization_servers.{table.key}.client_secret_env"
    if table.client_secret is not None:
        raise ConfigurationRefused([f"{where}: give this or client_secret, not both"])
    if not environment.get(table.client_secret_env):
        problem = f"the environment variable {table.client_secret_env} is not set"
        raise ConfigurationRefused([f"{where}: {problem}"])
    return Secret(environment[table.client_secret_env])


def _apply_secret(
    change: ServerChange, table: AuthorizationServerTable, environment: Mapping[str, str], problems: list[str]
) -> None:
    try:
        secret = _secret_of(table, environment)
    except ConfigurationRefused as refused:
        problems += refused.problems
        return
    problem = change.problem_with_secret(is_given=secret is not None)
    if problem is not None and not {"client_secret", "client_secret_env"} & table.lost:
        problems.append(f"authorization_servers.{table.key}.client_secret: {_SECRET_NEEDED[problem]}")
    change.apply_credentials(secret)


def _apply_api(
    brand: Brand,
    table: APITable,
    operations: list[OperationTable],
    servers: Mapping[str, AuthorizationServer],
    problems: list[str],
) -> None:
    """Create or update an API and its operations. What was not saved, because of a problem, is checked only."""
    where = f"apis.{table.key}"
    api = brand.apis.filter(key=table.key).first() if brand.pk else None
    api = api or BrandAPI(key=table.key)
    server = servers.get(table.authorization_server) or _stored_server(brand, table.authorization_server)
    if server is not None:
        api.authorization_server = server
    elif "authorization_server" not in table.lost:
        problems.append(f"{where}.authorization_server: the brand has no authorization server of this key")
    api.base_url, api.host_member, api.resource = table.base_url, table.host_member, table.resource
    if table.is_active is not msgspec.UNSET:
        api.is_active = table.is_active
    has_server = server is not None and server.pk is not None
    _check_and_save(api, table, set() if has_server else {"authorization_server", "brand"}, where, problems)
    for of_operation in operations:
        _apply_operation(brand, api, of_operation, f"{where}.operations.{of_operation.name}", problems)


def _stored_server(brand: Brand, key: str) -> AuthorizationServer | None:
    return brand.authorization_servers.filter(key=key).first() if brand.pk else None


def _apply_operation(brand: Brand, api: BrandAPI, table: OperationTable, where: str, problems: list[str]) -> None:
    operation = brand.operations.filter(name=table.name).first() if brand.pk else None
    operation = operation or Operation(name=table.name)
    operation.api = api
    table.apply_to(operation)
    _check_and_save(operation, table, set() if api.pk else {"api", "brand"}, where, problems)


def _check_and_save(
    row: BrandAPI | Operation, table: Table, unsaved: set[str], where: str, problems: list[str]
) -> None:
    """Save a valid row of an API. `unsaved` names the fields whose rows could not be saved."""
    lost = table.lost - {"operations"}
    # `clean` sets the brand; where it cannot, the values of lost lines would only be compared with blanks.
    check = row.clean_fields if lost or unsaved else row.full_clean
    found = problems_of(where, partial(check, exclude={*lost, *unsaved, "brand"}))
    problems += found
    if not found and not table.unreadable and not unsaved:
        save_audited(row)


def _duplicates(names: list[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})
