"""A brand and its authorization servers from a TOML file: read strictly, apply in one transaction or not at all."""

import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec
from django.core.exceptions import ValidationError
from django.db import transaction

from brands.models import AuthorizationServer, Brand
from delegation_site.crypto import Secret

# A secret must never reach a host that it was not typed in for (N8).
SECRET_HOST_FIELDS = ("token_endpoint", "jwks_uri", "issuer")


class BrandTable(msgspec.Struct, forbid_unknown_fields=True):
    """`[brand]`."""

    slug: str
    name: str


class AuthorizationServerTable(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`[[authorization_servers]]`; what is left out takes the model's default, also where the row had another value."""

    key: str
    authorization_endpoint: str
    token_endpoint: str
    client_id: str
    issuer: str | msgspec.UnsetType = msgspec.UNSET
    jwks_uri: str | msgspec.UnsetType = msgspec.UNSET
    authorization_response_iss_parameter_supported: bool | msgspec.UnsetType = msgspec.UNSET
    client_secret: str | None = None
    client_secret_env: str | None = None
    token_endpoint_auth_method: str | msgspec.UnsetType = msgspec.UNSET
    basic_encoding: str | msgspec.UnsetType = msgspec.UNSET
    scope: str | msgspec.UnsetType = msgspec.UNSET
    required_scope: str | msgspec.UnsetType = msgspec.UNSET
    same_person_checks: list[str] | msgspec.UnsetType = msgspec.UNSET
    prompt: str | msgspec.UnsetType = msgspec.UNSET
    max_age: int | msgspec.UnsetType = msgspec.UNSET
    id_token_signing_alg_values: list[str] | msgspec.UnsetType = msgspec.UNSET
    accept_form_encoded_tokens: bool | msgspec.UnsetType = msgspec.UNSET
    accept_missing_token_type: bool | msgspec.UnsetType = msgspec.UNSET
    extra_authorization_parameters: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    default_token_lifetime: int | msgspec.UnsetType = msgspec.UNSET
    max_token_lifetime: int | msgspec.UnsetType = msgspec.UNSET
    challenge_lifetime: int | msgspec.UnsetType = msgspec.UNSET

    def model_values(self) -> dict[str, Any]:
        """Return every field of the model that the file decides."""
        values: dict[str, Any] = {}
        for name in self.__struct_fields__:
            if name in {"key", "client_secret", "client_secret_env"}:
                continue
            value = getattr(self, name)
            model_field = AuthorizationServer._meta.get_field(name)
            values[name] = model_field.get_default() if value is msgspec.UNSET else value  # type: ignore[union-attr]
        return values

    def secret(self, environment: Mapping[str, str]) -> Secret | None:
        """Return the client secret that the file carries or names. Raises `ConfigurationRefused`."""
        if self.client_secret_env is None:
            return Secret(self.client_secret) if self.client_secret else None
        if not environment.get(self.client_secret_env):
            problem = f"the environment variable {self.client_secret_env} is not set"
            raise ConfigurationRefused([f"authorization_servers.{self.key}.client_secret_env: {problem}"])
        return Secret(environment[self.client_secret_env])


class ConfigurationFile(msgspec.Struct, forbid_unknown_fields=True):
    """The whole file."""

    brand: BrandTable
    authorization_servers: list[AuthorizationServerTable] = []


class ConfigurationRefused(Exception):
    """Nothing was changed; `problems` names each bad field in words, without its secret values."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def read_configuration(text: str) -> ConfigurationFile:
    """Read the TOML text. Raises `ConfigurationRefused`."""
    try:
        return msgspec.toml.decode(text, type=ConfigurationFile)
    except msgspec.DecodeError as error:
        raise ConfigurationRefused([str(error)]) from None


@transaction.atomic
def apply_configuration(file: ConfigurationFile, environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Create or update the brand and its servers; return their redirect URIs by key. Raises `ConfigurationRefused`."""
    problems = [f"authorization_servers.{key}: the key stands twice" for key in _doubled_keys(file)]
    brand = Brand.objects.filter(slug=file.brand.slug).first() or Brand(slug=file.brand.slug)
    brand.name = file.brand.name
    problems += _problems("brand", brand)
    if problems:
        raise ConfigurationRefused(problems)
    brand.save()
    servers = [_apply_server(brand, table, environment, problems) for table in file.authorization_servers]
    if problems:
        raise ConfigurationRefused(problems)
    redirect_uris = {server.key: {"redirect_uri": server.redirect_uri} for server in servers}
    return {"brand": brand.slug, "authorization_servers": redirect_uris}


def secret_hosts(server: AuthorizationServer) -> tuple[str | None, ...]:
    """Return the hosts that the client secret was typed in for."""
    return tuple(urlsplit(getattr(server, name)).hostname for name in SECRET_HOST_FIELDS)


def _apply_server(
    brand: Brand, table: AuthorizationServerTable, environment: Mapping[str, str], problems: list[str]
) -> AuthorizationServer:
    server = brand.authorization_servers.filter(key=table.key).first()
    server = server or AuthorizationServer(brand=brand, key=table.key)
    hosts_before = secret_hosts(server) if server.pk else None
    for name, value in table.model_values().items():
        setattr(server, name, value)
    where = f"authorization_servers.{table.key}"
    _apply_secret(server, table, environment, hosts_before, problems)
    found = _problems(where, server)
    problems += found
    if not found:
        server.save()
    return server


def _apply_secret(
    server: AuthorizationServer,
    table: AuthorizationServerTable,
    environment: Mapping[str, str],
    hosts_before: tuple[str | None, ...] | None,
    problems: list[str],
) -> None:
    where = f"authorization_servers.{table.key}.client_secret"
    try:
        secret = table.secret(environment)
    except ConfigurationRefused as refused:
        problems += refused.problems
        return
    if server.token_endpoint_auth_method == AuthorizationServer.ClientAuthentication.NONE:
        server.set_client_secret(None)
    elif secret is not None:
        server.set_client_secret(secret)
    elif server.client_secret_ciphertext is None:
        problems.append(f"{where}: this client authentication needs a secret")
    elif hosts_before is not None and secret_hosts(server) != hosts_before:
        problems.append(f"{where}: an endpoint's host changed, so the file must carry the secret again")


def _problems(where: str, row: Brand | AuthorizationServer) -> list[str]:
    try:
        row.full_clean()
    except ValidationError as error:
        found = error.message_dict.items()
        return [f"{where}.{name}: {message}" for name, messages in found for message in messages]
    return []


def _doubled_keys(file: ConfigurationFile) -> list[str]:
    keys = [table.key for table in file.authorization_servers]
    return sorted({key for key in keys if keys.count(key) > 1})
