"""The tables of a configuration file. They are read line by line, so that all mistakes are named at once."""

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Annotated, Any, Final, TypeVar

import msgspec
from django.core.exceptions import ValidationError

from brands.models import AuthorizationServer, Brand, Operation
from brands.models.webhook_endpoint import every_event
from oauth_client.validators import IGNORABLE_METADATA

# TOML can write every control character as an escape. NUL is the one that PostgreSQL cannot store.
Text = Annotated[str, msgspec.Meta(pattern=r"^[^\x00]*$")]
_LONGEST_SHORT_ESCAPE: Final = 0xFFFF
_UNREADABLE: Final = "unreadable"
# Of a server's table: what is no setting of the row, or keeps the row's value if it is omitted.
_NOT_SIMPLY_STORED: Final = frozenset({"key", "client_secret", "client_secret_env", "is_active"})
_Table = TypeVar("_Table", bound="Table")


class Table(msgspec.Struct, kw_only=True):
    """A table of the file. `unreadable` lists the names whose values are lost: of a wrong type, missing or unknown."""

    unreadable: frozenset[str] = frozenset()

    @classmethod
    def settings(cls) -> frozenset[str]:
        """The names that a file can set."""
        return frozenset(cls.__struct_fields__) - {_UNREADABLE}

    @property
    def lost(self) -> set[str]:
        """The settings that cannot be checked any further."""
        return set(self.unreadable & self.settings())


class BrandTable(Table, kw_only=True):
    """`[brand]`."""

    slug: Text
    name: Text
    token_read_purpose_required: bool = False
    conversation_ids: Text | msgspec.UnsetType = msgspec.UNSET
    close_idle_after: int | msgspec.UnsetType = msgspec.UNSET
    accent_colour: Text | msgspec.UnsetType = msgspec.UNSET
    support_contact: Text | msgspec.UnsetType = msgspec.UNSET
    is_active: bool | msgspec.UnsetType = msgspec.UNSET

    def apply_to(self, brand: Brand) -> None:
        """Set the file's values. What an optional line would set stays as it is stored if the line is missing.

        So an old file does not bar ids that come back (`conversation_ids`). Does not save.
        """
        for name in sorted(self.settings() - {"slug"}):
            value = getattr(self, name)
            if value is not msgspec.UNSET:
                setattr(brand, name, value)


class AuthorizationServerTable(Table, kw_only=True):
    """`[[authorization_servers]]`. An omitted field gets the model's default, even if the row has another value.

    Only `is_active` then stays as it is: what was switched off meanwhile is not switched on by an old file.
    """

    key: Text
    client_id: Text
    is_active: bool | msgspec.UnsetType = msgspec.UNSET
    issuer: Text | msgspec.UnsetType = msgspec.UNSET
    authorization_endpoint: str | msgspec.UnsetType = msgspec.UNSET
    token_endpoint: str | msgspec.UnsetType = msgspec.UNSET
    revocation_endpoint: str | msgspec.UnsetType = msgspec.UNSET
    pushed_authorization_request_endpoint: str | msgspec.UnsetType = msgspec.UNSET
    userinfo_endpoint: str | msgspec.UnsetType = msgspec.UNSET
    introspection_endpoint: str | msgspec.UnsetType = msgspec.UNSET
    subject_member: str | msgspec.UnsetType = msgspec.UNSET
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
    expected_claims_policy: str | msgspec.UnsetType = msgspec.UNSET
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
    dpop_bound_access_tokens: bool | msgspec.UnsetType = msgspec.UNSET
    trusted_audiences: list[str] | msgspec.UnsetType = msgspec.UNSET
    token_response_members: list[str] | msgspec.UnsetType = msgspec.UNSET
    extra_authorization_parameters: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    default_token_lifetime: int | msgspec.UnsetType = msgspec.UNSET
    max_token_lifetime: int | msgspec.UnsetType = msgspec.UNSET
    challenge_lifetime: int | msgspec.UnsetType = msgspec.UNSET

    @classmethod
    def stored_settings(cls) -> list[str]:
        """List the model's fields that a file sets, in the order of this class."""
        return [name for name in cls.__struct_fields__ if name in cls.settings() - _NOT_SIMPLY_STORED]

    def model_values(self) -> dict[str, Any]:
        """Return the values of all model fields that a file can set."""
        values: dict[str, Any] = {}
        for name in self.stored_settings():
            value = getattr(self, name)
            model_field = AuthorizationServer._meta.get_field(name)
            values[name] = model_field.get_default() if value is msgspec.UNSET else value  # type: ignore[union-attr]
        return values | {"ignored_metadata": self.emptied_fields()}

    def emptied_fields(self) -> list[str]:
        """List the fields that the file sets to empty or false. Metadata does not fill them."""
        return [name for name in IGNORABLE_METADATA if not self.omits(name) and not getattr(self, name)]

    def omits(self, name: str) -> bool:
        return getattr(self, name) is msgspec.UNSET


class WebhookTable(Table, kw_only=True):
    """`[[webhooks]]`. By default all events are sent, and the secret is random. Omitted, `is_active` stays as it is."""

    url: Text
    events: list[str] = msgspec.field(default_factory=every_event)
    label: Text = ""
    is_active: bool | msgspec.UnsetType = msgspec.UNSET
    secret_env: str | None = None


class APITable(Table, kw_only=True):
    """`[[apis]]`. Omitted, `is_active` stays as it is. The operations are tables of their own."""

    key: Text
    authorization_server: Text
    base_url: Text
    host_member: Text = ""
    resource: Text = ""
    is_active: bool | msgspec.UnsetType = msgspec.UNSET
    operations: list[Any] = []


class OperationTable(Table, kw_only=True):
    """`[[apis.operations]]`. An omitted field gets the model's default; only `is_active` stays as it is."""

    name: Text
    method: Text
    path: Text
    is_active: bool | msgspec.UnsetType = msgspec.UNSET
    scope: Text | msgspec.UnsetType = msgspec.UNSET
    description: str | dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    is_safe_to_repeat: bool | msgspec.UnsetType = msgspec.UNSET
    parameters: list[dict[str, Any]] | msgspec.UnsetType = msgspec.UNSET
    body_schema: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    is_body_required: bool | msgspec.UnsetType = msgspec.UNSET

    @classmethod
    def stored_settings(cls) -> list[str]:
        """List the model's fields that a file sets, in the order of this class."""
        return [name for name in cls.__struct_fields__ if name in cls.settings() - {"name", "is_active"}]

    def apply_to(self, operation: Operation) -> None:
        """Set the file's values, and the defaults of what it omits. Does not save."""
        for name in self.stored_settings():
            value, field = getattr(self, name), Operation._meta.get_field(name)
            setattr(operation, name, field.get_default() if value is msgspec.UNSET else value)  # type: ignore[union-attr]
        if self.is_active is not msgspec.UNSET:
            operation.is_active = self.is_active


def read_table(kind: type[_Table], found: object, where: str, problems: list[str]) -> _Table:
    """Return the table without its unreadable lines. Each of those is appended to `problems`, without its value."""
    if not isinstance(found, dict):
        problems.append(f"{where}: this is not a table")
        return kind(**_blank(kind), unreadable=kind.settings())
    mistakes = {name: no_such_setting(name, kind.settings()) for name in found if name not in kind.settings()}
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(kind):
        if field.name == _UNREADABLE:
            continue
        if field.name in found:
            try:
                values[field.name] = msgspec.convert(found[field.name], field.type)
            except msgspec.ValidationError as error:
                mistakes[field.name] = str(error)
        elif field.required:
            mistakes[field.name] = "it is missing"
    problems += [f"{where}.{name}: {mistake}" for name, mistake in mistakes.items()]
    return kind(**(_blank(kind) | values), unreadable=frozenset(mistakes))


def read_tables(kind: type[_Table], found: object, name: str, identified_by: str, problems: list[str]) -> list[_Table]:
    """Return the tables `[[name]]`. One without a readable `identified_by` is left out."""
    if not isinstance(found, list):
        problems.append(f"{name}: write each one as a table [[{name}]]")
        return []
    tables = []
    for position, table in enumerate(found):
        identifier = table.get(identified_by) if isinstance(table, dict) else None
        where = f"{name}.{identifier}" if identifier and isinstance(identifier, str) else f"{name}[{position}]"
        tables.append(read_table(kind, table, where, problems))
    return [table for table in tables if identified_by not in table.unreadable]


def no_such_setting(name: str, known: Iterable[str]) -> str:
    """Say that there is no setting of this name, and which one may be meant."""
    similar = get_close_matches(name, sorted(known), n=1)
    return f"there is no such setting. Do you mean {similar[0]}?" if similar else "there is no such setting"


def printable(text: str) -> str:
    """Escape what a terminal or editor would obey or hide, such as a right-to-left override. TOML reads it again."""
    return "".join(character if character.isprintable() else _escaped(ord(character)) for character in text)


def _escaped(code: int) -> str:
    return f"\\u{code:04x}" if code <= _LONGEST_SHORT_ESCAPE else f"\\U{code:08x}"


def problems_of(where: str, check: Callable[[], None]) -> list[str]:
    """Return what a model's check finds, one message for each."""
    try:
        check()
    except ValidationError as error:
        found = error.message_dict.items()
        return [f"{where}.{name}: {message}" for name, messages in found for message in messages]
    return []


def _blank(kind: type[Table]) -> dict[str, str]:
    """Values for required settings; all of them are texts."""
    return {field.name: "" for field in msgspec.structs.fields(kind) if field.required}
