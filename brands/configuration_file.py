"""Read a brand, its authorization servers and webhooks from a TOML file, and apply all of it or nothing."""

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import msgspec
from django.core.exceptions import ValidationError
from django.db import transaction

from brands.audited_changes import save_audited
from brands.models import AuthorizationServer, Brand
from brands.server_rules import (
    FIELDS_FROM_METADATA,
    NEEDED_ENDPOINTS,
    SecretProblem,
    ServerChange,
    complete_from_metadata,
    default_algorithms,
    discovery_problem,
    lock_all_brands,
    needs_discovery,
    refuse_shared_registration,
)
from brands.webhooks import Line, WebhookTable, apply_webhooks
from infrastructure.crypto import Secret
from oauth_client import DiscoveryFailed, discover
from oauth_client.validators import IGNORABLE_METADATA

_SECRET_NEEDED: Final = {
    SecretProblem.NONE_STORED: "this client authentication needs a secret",
    SecretProblem.FOR_ANOTHER_HOST: "a host or the issuer has changed, so give the secret again",
}


class BrandTable(msgspec.Struct, forbid_unknown_fields=True):
    """`[brand]`."""

    slug: Line
    name: Line
    token_read_purpose_required: bool = False
    accent_colour: Line | msgspec.UnsetType = msgspec.UNSET
    support_contact: Line | msgspec.UnsetType = msgspec.UNSET

    def apply_to(self, brand: Brand) -> None:
        """Set the file's values. Without `accent_colour` or `support_contact`, the stored one stays. Does not save."""
        for name in ("name", "token_read_purpose_required", "accent_colour", "support_contact"):
            value = getattr(self, name)
            if value is not msgspec.UNSET:
                setattr(brand, name, value)


class AuthorizationServerTable(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`[[authorization_servers]]`. An omitted field gets the model's default, even if the row has another value."""

    key: Line
    client_id: Line
    issuer: str | msgspec.UnsetType = msgspec.UNSET
    authorization_endpoint: str | msgspec.UnsetType = msgspec.UNSET
    token_endpoint: str | msgspec.UnsetType = msgspec.UNSET
    revocation_endpoint: str | msgspec.UnsetType = msgspec.UNSET
    pushed_authorization_request_endpoint: str | msgspec.UnsetType = msgspec.UNSET
    jwks_uri: str | msgspec.UnsetType = msgspec.UNSET
    authorization_response_iss_parameter_supported: bool | msgspec.UnsetType = msgspec.UNSET
    client_secret: str | None = None
    client_secret_env: str | None = None
    token_endpoint_auth_method: str | msgspec.UnsetType = msgspec.UNSET
    basic_encoding: str | msgspec.UnsetType = msgspec.UNSET
    send_client_id_with_basic: bool | msgspec.UnsetType = msgspec.UNSET
    scope: str | msgspec.UnsetType = msgspec.UNSET
    scope_separator: str | msgspec.UnsetType = msgspec.UNSET
    required_scope: str | msgspec.UnsetType = msgspec.UNSET
    resource: list[str] | msgspec.UnsetType = msgspec.UNSET
    scope_descriptions: dict[str, str | dict[str, str]] | msgspec.UnsetType = msgspec.UNSET
    same_person_checks: list[str] | msgspec.UnsetType = msgspec.UNSET
    subject_claim: str | msgspec.UnsetType = msgspec.UNSET
    chat_page_url: str | msgspec.UnsetType = msgspec.UNSET
    prompt: str | msgspec.UnsetType = msgspec.UNSET
    max_age: int | msgspec.UnsetType = msgspec.UNSET
    id_token_signing_alg_values: list[str] | msgspec.UnsetType = msgspec.UNSET
    denial_codes: str | msgspec.UnsetType = msgspec.UNSET
    accept_scope_in_authorization_response: bool | msgspec.UnsetType = msgspec.UNSET
    accept_form_encoded_tokens: bool | msgspec.UnsetType = msgspec.UNSET
    accept_missing_token_type: bool | msgspec.UnsetType = msgspec.UNSET
    accepted_token_type: str | msgspec.UnsetType = msgspec.UNSET
    accept_zero_expires_in: bool | msgspec.UnsetType = msgspec.UNSET
    trusted_audiences: list[str] | msgspec.UnsetType = msgspec.UNSET
    token_response_members: list[str] | msgspec.UnsetType = msgspec.UNSET
    extra_authorization_parameters: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    default_token_lifetime: int | msgspec.UnsetType = msgspec.UNSET
    max_token_lifetime: int | msgspec.UnsetType = msgspec.UNSET
    challenge_lifetime: int | msgspec.UnsetType = msgspec.UNSET

    def model_values(self) -> dict[str, Any]:
        """Return the values of all model fields that a file can set."""
        values: dict[str, Any] = {}
        for name in self.__struct_fields__:
            if name in {"key", "client_secret", "client_secret_env"}:
                continue
            value = getattr(self, name)
            model_field = AuthorizationServer._meta.get_field(name)
            values[name] = model_field.get_default() if value is msgspec.UNSET else value  # type: ignore[union-attr]
        return values | {"ignored_metadata": self.emptied_fields()}

    def emptied_fields(self) -> list[str]:
        """List the fields that the file sets to empty or false. Metadata does not fill them."""
        return [name for name in IGNORABLE_METADATA if not self.omits(name) and not getattr(self, name)]

    def omits(self, name: str) -> bool:
        return getattr(self, name) is msgspec.UNSET

    def secret(self, environment: Mapping[str, str]) -> Secret | None:
        """Return the client secret from the file or the environment, if there is one. Raises `ConfigurationRefused`."""
        if self.client_secret_env is None:
            return Secret(self.client_secret) if self.client_secret else None
        where = f"authorization_servers.{self.key}.client_secret_env"
        if self.client_secret is not None:
            raise ConfigurationRefused([f"{where}: give this or client_secret, not both"])
        if not environment.get(self.client_secret_env):
            problem = f"the environment variable {self.client_secret_env} is not set"
            raise ConfigurationRefused([f"{where}: {problem}"])
        return Secret(environment[self.client_secret_env])


class ConfigurationFile(msgspec.Struct, forbid_unknown_fields=True):
    brand: BrandTable
    authorization_servers: list[AuthorizationServerTable] = []
    webhooks: list[WebhookTable] = []


class ConfigurationRefused(Exception):
    """The file was refused, and nothing was changed.

    `problems` has a message for each bad field, without secret values.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def read_configuration(text: str) -> ConfigurationFile:
    """Parse the TOML text. Raises `ConfigurationRefused`."""
    try:
        return msgspec.toml.decode(text, type=ConfigurationFile)
    except msgspec.DecodeError as error:
        raise ConfigurationRefused([str(error)]) from None
    except (ValueError, RecursionError):
        # Python's TOML parser fails on numbers of more than 4,300 digits and on very deep nesting.
        raise ConfigurationRefused(["the file contains a number that is too long, or is nested too deeply"]) from None


def apply_configuration(file: ConfigurationFile, environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Create or update the brand, its servers and webhooks. Return URIs to register at the servers, and new secrets.

    Metadata is fetched before the transaction begins. Raises `ConfigurationRefused`.
    """
    problems = [f"authorization_servers.{key}: the key is given twice" for key in _duplicate_keys(file)]
    values = [_complete_values(file.brand.slug, table, problems) for table in file.authorization_servers]
    with transaction.atomic():
        return _apply(file, values, environment, problems)


def _apply(
    file: ConfigurationFile, values: list[dict[str, Any]], environment: Mapping[str, str], problems: list[str]
) -> dict[str, Any]:
    lock_all_brands()  # before `save_audited` locks this one
    brand = Brand.objects.filter(slug=file.brand.slug).first() or Brand(slug=file.brand.slug)
    file.brand.apply_to(brand)
    problems_of_brand = _problems("brand", brand.full_clean)
    problems += problems_of_brand
    if not problems_of_brand:
        save_audited(brand)
    # Check everything even after the first problem, so that the operator can correct the file in one go.
    tables = zip(file.authorization_servers, values, strict=True)
    servers = [_apply_server(brand, table, found, environment, problems) for table, found in tables]
    secrets = {} if problems_of_brand else apply_webhooks(brand, file.webhooks, environment, problems)
    if problems:
        raise ConfigurationRefused(problems)
    addresses = {server.key: _addresses(server) for server in servers}
    return {"brand": brand.slug, "authorization_servers": addresses} | ({"webhooks": secrets} if secrets else {})


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
    if not needs_discovery(values):
        return values
    stored = AuthorizationServer.objects.filter(brand__slug=brand, key=table.key, issuer=values["issuer"]).first()
    if stored is not None:
        return values | _stored_values(table, values, stored)
    try:
        metadata = discover(values["issuer"])
    except DiscoveryFailed as failure:
        name, message = discovery_problem(failure)
        # An operator reads why; a brand's admin would learn what is inside our network (N9).
        found = {name: f"{message} The reason: {failure.unanswered}." if failure.unanswered else message}
    else:
        if table.omits("id_token_signing_alg_values"):
            values["id_token_signing_alg_values"] = default_algorithms(metadata)
        found = complete_from_metadata(values, metadata)
    problems += [f"authorization_servers.{table.key}.{name}: {problem}" for name, problem in found.items()]
    return values


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
    where = f"authorization_servers.{table.key}"
    lacks_metadata = any(problem.startswith(f"{where}.") for problem in problems)
    _apply_secret(change, table, environment, problems)
    if not brand.pk:
        problems += _problems(where, partial(server.full_clean, exclude=["brand"]))
        return server
    found = _problems(where, server.full_clean) or _problems(where, lambda: refuse_shared_registration(server))
    # What metadata would have filled in is not missing in the file.
    missing = {name for name in FIELDS_FROM_METADATA if lacks_metadata and not getattr(server, name)}
    problems += [problem for problem in found if _field_of(problem) not in missing]
    if not found:
        save_audited(server)
    return server


def _field_of(problem: str) -> str:
    return problem.partition(": ")[0].rpartition(".")[2]


def _apply_secret(
    change: ServerChange, table: AuthorizationServerTable, environment: Mapping[str, str], problems: list[str]
) -> None:
    try:
        secret = table.secret(environment)
    except ConfigurationRefused as refused:
        problems += refused.problems
        return
    problem = change.problem_with_secret(is_given=secret is not None)
    if problem is not None:
        problems.append(f"authorization_servers.{table.key}.client_secret: {_SECRET_NEEDED[problem]}")
    change.apply_credentials(secret)


def _problems(where: str, check: Callable[[], None]) -> list[str]:
    try:
        check()
    except ValidationError as error:
        found = error.message_dict.items()
        return [f"{where}.{name}: {message}" for name, messages in found for message in messages]
    return []


def _duplicate_keys(file: ConfigurationFile) -> list[str]:
    keys = [table.key for table in file.authorization_servers]
    return sorted({key for key in keys if keys.count(key) > 1})
