"""Read an OpenAPI document (3.0 to 3.2) that others wrote, and propose its operations as declarations.

The document comes from a file or an address of an admin's choice, so it may be hostile (P15): its size, depth and
references are bounded, and nothing outside of it is read. A schema is converted to the keywords that a declaration may
have. What cannot be kept is left out, so a proposal never refuses what the document allows; the brand's API checks it
in any case.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import yaml
from django.core.exceptions import ValidationError

from brands import api_operations
from brands.openapi_schemas import NotDeclarable, SchemaConverter
from oauth_client.validators import validate_base_url, validate_scope

MAX_DOCUMENT_BYTES: Final = 1_000_000
MAX_OPERATIONS: Final = 1_000
# Counted with everything that a YAML alias repeats: nine lines of aliases can mean a billion values.
_MAX_VALUES: Final = 200_000
_MAX_LEVELS: Final = 100
_MAX_REFERENCES: Final = 20
_MAX_REFERENCE_LENGTH: Final = 1_000
# Of one operation, before anything is looked at: a thousand paths may refer to the same large one.
_MAX_LISTED: Final = 100

_VERSION: Final = re.compile(r"3\.[012](?:\.[0-9]+)?")
_METHODS: Final = frozenset({"get", "put", "post", "delete", "options", "head", "patch", "trace", "query"})
# OpenAPI says of these that they are described elsewhere in a document.
_IGNORED_HEADERS: Final = frozenset({"accept", "content-type", "authorization"})
_JSON: Final = frozenset({"application/json", "application/*", "*/*"})
_OAUTH: Final = frozenset({"oauth2", "openIdConnect"})
_OTHER_FORM: Final = "A part of its description is not in the form that OpenAPI asks for."
_LONGEST_SUMMARY: Final = 200
_LONGEST_NAME: Final = 100


class NotReadable(Exception):
    """The document cannot be read. The message says what to do, and quotes nothing of it."""


@dataclass(frozen=True)
class Proposal:
    """An operation of a document. `values` are those of the row; if `problem` says why not, it cannot be declared."""

    name: str
    method: str
    path: str
    summary: str
    problem: str = ""
    notes: tuple[str, ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict)


class _Loader(yaml.CSafeLoader):
    """Plain values as YAML 1.2 and JSON have them: `no` and `2026-01-01` are texts, and `010` is no 8."""

    yaml_implicit_resolvers: dict[str, Any] = {}


for _kind, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("int", r"^[-+]?(?:0|[1-9][0-9]{0,30})$", "-+0123456789"),
    ("float", r"^[-+]?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]{1,3})?$", "-+0123456789"),
    ("merge", r"^<<$", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(_pattern), list(_first))


def read_document(content: bytes) -> dict[str, Any]:
    """Parse JSON or YAML, and check that it is an OpenAPI document. Raises `NotReadable`."""
    if len(content) > MAX_DOCUMENT_BYTES:
        raise NotReadable("The document is larger than 1 MB. Leave out what bots do not need, such as examples.")
    try:
        text = content.decode("utf-8-sig")
        document = json.loads(text) if text.lstrip().startswith("{") else _read_yaml(text)
    except (ValueError, RecursionError, yaml.YAMLError):
        raise NotReadable("This is neither JSON nor YAML, or it is nested too deeply.") from None
    if isinstance(document, dict) and "swagger" in document:
        raise NotReadable("This is a Swagger 2.0 document. Convert it to OpenAPI 3 first.")
    if not isinstance(document, dict) or not _VERSION.fullmatch(str(document.get("openapi"))):
        raise NotReadable("This is no OpenAPI document of version 3.0 or 3.1: its member openapi does not say so.")
    if not isinstance(document.get("paths"), dict):
        raise NotReadable("The document describes no paths.")
    return document


def _read_yaml(text: str) -> Any:
    """Count the values, with those that aliases repeat, before any of them is built."""
    sizes: dict[str, int] = {}
    unfinished: list[tuple[str | None, int]] = []
    values = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise NotReadable("An alias of the document repeats something that it is a part of.")
            values += sizes[event.anchor]
        elif isinstance(event, yaml.CollectionStartEvent):
            unfinished.append((event.anchor, values))
            values += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = unfinished.pop()
            sizes |= {anchor: values - before} if anchor else {}
        elif isinstance(event, yaml.ScalarEvent):
            values += 1
            sizes |= {event.anchor: 1} if event.anchor else {}
        if values > _MAX_VALUES or len(unfinished) > _MAX_LEVELS:
            raise NotReadable("The document has too many values or levels.")
    return yaml.load(text, Loader=_Loader)  # noqa: S506  a safe loader


def base_url_of(document: Mapping[str, Any]) -> str:
    """Return the address of the first server, with the defaults of its variables; empty if it is of no use here."""
    servers = document.get("servers")
    server = servers[0] if isinstance(servers, list) and servers and isinstance(servers[0], dict) else {}
    url, variables = server.get("url"), server.get("variables")
    if not isinstance(url, str):
        return ""
    for name, variable in variables.items() if isinstance(variables, dict) else ():
        if isinstance(variable, dict) and "default" in variable:
            url = url.replace(f"{{{name}}}", str(variable["default"]))
    try:
        validate_base_url(url)
    except ValidationError:
        return ""
    return url.rstrip("/")


def proposals_of(document: dict[str, Any]) -> list[Proposal]:
    """Propose each operation, in the document's order. Raises `NotReadable` if there are too many or none."""
    reader = _Reader(document)
    found = list(reader.operations())
    if not found:
        raise NotReadable("The document describes no operations.")
    return found


class _Reader:
    """Walks one document."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document
        self._schemas = SchemaConverter(self._at, has_nullable=str(document["openapi"]).startswith("3.0"))
        self._names: set[str] = set()

    def operations(self) -> Iterator[Proposal]:
        """Yield a proposal for each operation. Raises `NotReadable` after `MAX_OPERATIONS`."""
        number = 0
        for path, item in self._document["paths"].items():
            if not isinstance(path, str) or not path.startswith("/"):
                continue
            for proposal in self._of_path(path, item):
                number += 1
                if number > MAX_OPERATIONS:
                    raise NotReadable(f"The document has more than {MAX_OPERATIONS} operations.")
                yield proposal

    def _of_path(self, path: str, item: object) -> Iterator[Proposal]:
        try:
            members = self._resolved(item)
        except NotDeclarable as reason:  # such as a path in a file of its own: nobody knows its methods
            yield Proposal(self._new_name("", "", path), "", path, "", problem=str(reason))
            return
        for method, operation in members.items():
            if method in _METHODS and isinstance(operation, dict):
                yield self._proposal(path, method.upper(), members, operation)

    def _proposal(self, path: str, method: str, item: dict[str, Any], operation: dict[str, Any]) -> Proposal:
        name = self._new_name(operation.get("operationId"), method, path)
        summary = _text(operation.get("summary")) or _text(operation.get("description"))
        shown = Proposal(name, method, path, " ".join(summary[: 5 * _LONGEST_SUMMARY].split())[:_LONGEST_SUMMARY])
        notes: list[str] = ["The document calls it deprecated."] if operation.get("deprecated") is True else []
        try:
            values = self._values(path, method, item, operation, notes)
        except NotDeclarable as reason:
            return Proposal(name, method, path, shown.summary, problem=str(reason))
        except ValidationError as error:
            return Proposal(name, method, path, shown.summary, problem=error.messages[0])
        return Proposal(name, method, path, shown.summary, notes=tuple(notes), values={"name": name, **values})

    def _values(
        self, path: str, method: str, item: dict[str, Any], operation: dict[str, Any], notes: list[str]
    ) -> dict[str, Any]:
        self._schemas.begin()
        if method not in api_operations.METHODS:
            raise NotDeclarable(f"Bots cannot send {method}.")
        if any(part.get("servers") for part in (item, operation)):
            raise NotDeclarable("It has servers of its own: add an API for their address, and declare it there.")
        api_operations.validate_path(path)
        parameters = self._parameters(item, operation, notes)
        api_operations.validate_parameters(parameters)
        body, is_required = self._body(method, operation, notes)
        for error in api_operations.mismatches(method, path, parameters, has_body=body is not None).values():
            raise error
        api_operations.validate_body_schema(body)
        return {
            "method": method,
            "path": path,
            "parameters": parameters,
            "body_schema": body,
            "is_body_required": is_required,
            "scope": self._scope(operation),
            "is_safe_to_repeat": method in api_operations.SAFE_METHODS,
        }

    def _new_name(self, operation_id: object, method: str, path: str) -> str:
        """Make the operation's id a name: `orders/list` is `orders.list`. Without an id, method and path are."""
        name = _as_name(_text(operation_id)[: 2 * _LONGEST_NAME]) or _as_name(f"{method.lower()}.{path}") or "operation"
        name = name if name[0].isalpha() else f"operation.{name}"
        base, number = name[:_LONGEST_NAME].rstrip(".-"), 1
        while (name := base if number == 1 else f"{base[: _LONGEST_NAME - 5]}.{number}") in self._names:
            number += 1
        self._names.add(name)
        return name

    def _resolved(self, value: object) -> dict[str, Any]:
        """Follow references inside the document. Raises `NotDeclarable`."""
        for _ in range(_MAX_REFERENCES):
            if not isinstance(value, dict):
                raise NotDeclarable(_OTHER_FORM)
            if not isinstance(reference := value.get("$ref"), str):
                return value
            value = self._at(reference)
        raise NotDeclarable("Its references lead round in a circle.")

    def _at(self, reference: str) -> object:
        """Return what a JSON pointer names (RFC 6901). Raises `NotDeclarable`."""
        if not reference.startswith("#"):
            raise NotDeclarable("It refers to another document, which is not fetched. Bundle the two first.")
        if len(reference) > _MAX_REFERENCE_LENGTH:
            raise NotDeclarable("It refers to something that is not in the document.")
        value: Any = self._document
        for part in reference.removeprefix("#").split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            if isinstance(value, list) and name.isdecimal() and int(name[:9]) < len(value):
                value = value[int(name[:9])]
            elif isinstance(value, dict) and name in value:
                value = value[name]
            else:
                raise NotDeclarable("It refers to something that is not in the document.")
        return value

    def _parameters(self, item: dict[str, Any], operation: dict[str, Any], notes: list[str]) -> list[dict[str, Any]]:
        """Return the parameters. An optional one that cannot be declared is left out with a note."""
        listed = [part.get("parameters", []) for part in (item, operation)]
        if not all(isinstance(some, list) for some in listed):
            raise NotDeclarable(_OTHER_FORM)
        _refuse_more(sum(map(len, listed)), "parameters")
        described = [self._resolved(one) for some in listed for one in some]
        # The operation's own replace those of its path.
        by_place = {(_text(one.get("in")), _text(one.get("name"))): one for one in described}
        found = []
        for (place, name), parameter in by_place.items():
            if place == "header" and name.lower() in _IGNORED_HEADERS:
                continue
            try:
                found.append(self._parameter(parameter))
            except (NotDeclarable, ValidationError) as reason:
                if place == "path" or parameter.get("required") is True:
                    raise
                text = reason.messages[0] if isinstance(reason, ValidationError) else str(reason)
                notes.append(f"Left out: {text}")
        return found

    def _parameter(self, parameter: dict[str, Any]) -> dict[str, Any]:
        name, place = _text(parameter.get("name"))[:_LONGEST_NAME], _text(parameter.get("in"))
        if place not in api_operations.PLACES:
            raise NotDeclarable(f"{name}: parameters in {place[:_LONGEST_NAME]} cannot be sent.")
        if "content" in parameter:
            raise NotDeclarable(f"{name}: the parameter is written as JSON or another format.")
        schema = self._schemas.convert(parameter.get("schema", {}))
        types = api_operations.types_of(schema)
        usual = parameter.get("style", "form" if place == "query" else "simple") == (
            "form" if place == "query" else "simple"
        )
        if not usual or ("array" in types and parameter.get("explode", True) is not True):
            raise NotDeclarable(f"{name}: lists are only sent by repeating the parameter.")
        if "null" in types:  # there is no null in an address
            schema["type"] = sorted(types - {"null"})
        is_required = place == "path" or parameter.get("required") is True
        declared = {"name": parameter.get("name"), "in": place, "required": is_required, "schema": schema}
        api_operations.validate_parameters([declared])
        return declared

    def _body(self, method: str, operation: dict[str, Any], notes: list[str]) -> tuple[dict[str, Any] | None, bool]:
        """Return the schema of the JSON body, and whether it is required."""
        if "requestBody" not in operation:
            return None, False
        body = self._resolved(operation["requestBody"])
        if not isinstance(content := body.get("content"), dict) or not content:
            raise NotDeclarable(_OTHER_FORM)
        _refuse_more(len(content), "kinds of bodies")
        offered = {str(name).partition(";")[0].strip().lower(): value for name, value in content.items()}
        chosen = next((name for name in offered if name in _JSON), None)
        is_required = body.get("required") is True
        if chosen is None or method in api_operations.METHODS_WITHOUT_BODY:
            kinds = ", ".join(name[:50] for name in list(offered)[:3])
            reason = f"Its body is {kinds}, and only JSON can be sent." if chosen is None else f"{method} has no body."
            if is_required:
                raise NotDeclarable(reason)
            notes.append(f"Left out: {reason}")
            return None, False
        media = offered[chosen] if isinstance(offered[chosen], dict) else {}
        return self._schemas.convert(media.get("schema", {})), is_required

    def _scope(self, operation: dict[str, Any]) -> str:
        """Return the scopes of the first way to call it that is OAuth; empty if there is none."""
        asked = operation.get("security", self._document.get("security"))
        components = self._document.get("components")
        schemes = components.get("securitySchemes") if isinstance(components, dict) else None
        for way in asked[:_MAX_LISTED] if isinstance(asked, list) else ():
            for name, scopes in way.items() if isinstance(way, dict) and len(way) <= _MAX_LISTED else ():
                scheme = schemes.get(name) if isinstance(schemes, dict) else None
                if isinstance(scheme, dict) and scheme.get("type") in _OAUTH and isinstance(scopes, list):
                    _refuse_more(len(scopes), "scopes")
                    scope = " ".join(map(_text, scopes))
                    validate_scope(scope)
                    return scope
        return ""


def _text(value: object) -> str:
    """Return a text, and nothing for what is none: to write a nested value out takes long."""
    return value if isinstance(value, str) else ""


def _refuse_more(number: int, what: str) -> None:
    if number > _MAX_LISTED:
        raise NotDeclarable(f"It has more than {_MAX_LISTED} {what}.")


def _as_name(text: str) -> str:
    """Keep letters, digits, `_` and single `-`; everything else separates words, with one full stop."""
    words = [re.sub("-+", "-", word).strip("-") for word in re.findall("[A-Za-z0-9_-]+", text)]
    return ".".join(word for word in words if word)
