"""Convert the schemas of an OpenAPI document to the keywords that a declaration may have.

What cannot be kept is left out, such as regular expressions, and what contains itself is cut off. So a converted schema
may allow more than the document, and never less.
"""

from collections.abc import Callable
from typing import Any, Final

from django.core.exceptions import ValidationError

from brands import api_operations

# Of a whole document. Each operation repeats what it refers to, so small documents can become large.
_MAX_CONVERTED: Final = 50_000
_MAX_LENGTH: Final = 4_000_000
# A level may become three: with a reference that has siblings, and with null.
_MAX_LEVELS: Final = api_operations.MAX_DEPTH // 3

_COPIED: Final = (
    *("type", "enum", "const", "format", "required", "dependentRequired", "multipleOf"),
    *("minLength", "maxLength", "minItems", "maxItems", "minContains", "minProperties", "maxProperties"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
)
_ONE: Final = ("items", "contains", "additionalProperties", "propertyNames")
_MANY: Final = ("allOf", "anyOf", "prefixItems")
_NAMED: Final = ("properties", "dependentSchemas")


class NotDeclarable(Exception):
    """An operation cannot be declared. The message says why."""


class SchemaConverter:
    """Converts the schemas of one document. `resolve` returns what a reference names.

    `has_nullable` says that the document is of version 3.0, whose schemas are not those of JSON Schema.
    """

    def __init__(self, resolve: Callable[[str], object], *, has_nullable: bool) -> None:
        self._resolve = resolve
        self._has_nullable = has_nullable
        self._left_of_all, self._length_of_all = _MAX_CONVERTED, _MAX_LENGTH
        self.begin()

    def begin(self) -> None:
        """Begin another operation, which may have `MAX_SUBSCHEMAS` schemas, and `MAX_SCHEMA_LENGTH`, again."""
        self._left, self._length = api_operations.MAX_SUBSCHEMAS, api_operations.MAX_SCHEMA_LENGTH

    def convert(self, schema: object) -> dict[str, Any]:
        """Return the schema as a declaration may have it. Raises `NotDeclarable`."""
        return self._schema(schema, ())

    def _count(self, schemas: int = 0, length: int = 0) -> None:
        """Take from what is left. Nothing more is converted of a document that has used up its share."""
        self._left, self._left_of_all = self._left - schemas, self._left_of_all - schemas
        self._length, self._length_of_all = self._length - length, self._length_of_all - length
        if self._left_of_all < 0 or self._length_of_all < 0:
            raise NotDeclarable("The document is too large, with everything that its operations refer to.")
        if self._left < 0 or self._length < 0:
            raise NotDeclarable("Its schemas are too large, with everything that they refer to.")

    def _schema(self, schema: object, trail: tuple[str, ...]) -> dict[str, Any]:
        """Convert a schema. `trail` has an entry for each level above it: the reference, or an empty text."""
        self._count(schemas=1)
        if schema is False:
            return {"not": {}}
        if not isinstance(schema, dict) or len(trail) >= _MAX_LEVELS:
            return {}
        if isinstance(reference := schema.get("$ref"), str):
            if reference in trail:  # a schema may contain itself
                return {}
            referred = self._schema(self._resolve(reference), (*trail, reference))
            siblings = {} if self._has_nullable else self._schema(_without(schema, "$ref"), trail)
            return {"allOf": [referred, siblings]} if referred and siblings else referred or siblings
        return self._with_null(self._keywords(schema, trail), schema)

    def _keywords(self, schema: dict[str, Any], trail: tuple[str, ...]) -> dict[str, Any]:
        within = (*trail, "")
        found: dict[str, Any] = {name: schema[name] for name in _COPIED if name in schema}
        self._count(length=sum(map(_length_of, found.values())))
        for name in _ONE:
            if name in schema:
                is_plain = name == "additionalProperties" and isinstance(schema[name], bool)
                found[name] = schema[name] if is_plain else self._schema(schema[name], within)
        # Exactly one may match: with less to check, two could.
        for name in (*_MANY, "oneOf"):
            if isinstance(schema.get(name), list) and schema[name]:
                found["anyOf" if name == "oneOf" else name] = [self._schema(inner, within) for inner in schema[name]]
        for name in _NAMED:
            if isinstance(schema.get(name), dict):
                self._count(length=sum(len(str(key)) for key in schema[name]))
                found[name] = {str(key): self._schema(inner, within) for key, inner in schema[name].items()}
        if "patternProperties" in schema:  # their names would be unknown ones
            found.pop("additionalProperties", None)
        if isinstance(found.get("required"), list) and isinstance(properties := schema.get("properties"), dict):
            # A property that only answers have is not sent, also where it is required.
            read_only = {name for name, inner in properties.items() if self._is_read_only(inner)}
            found["required"] = [
                name for name in found["required"] if not isinstance(name, str) or name not in read_only
            ]
        return _plain(found)

    def _is_read_only(self, schema: object) -> bool:
        """Whether a property is only in answers. Its schema may say so, or the one that it refers to."""
        for _ in range(_MAX_LEVELS):
            if not isinstance(schema, dict) or schema.get("readOnly") is True:
                break
            schema = self._resolve(schema["$ref"]) if isinstance(schema.get("$ref"), str) else None
        return isinstance(schema, dict) and schema.get("readOnly") is True

    def _with_null(self, found: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
        """Write OpenAPI 3.0's `nullable` as 3.1 does."""
        types = api_operations.types_of(found)
        if not self._has_nullable or schema.get("nullable") is not True or not types:
            return found
        if "enum" in found:
            return {"anyOf": [found, {"type": "null"}]}
        return found | {"type": sorted(types | {"null"})}


def _plain(found: dict[str, Any]) -> dict[str, Any]:
    """Leave out what a declaration cannot have, in both versions' spellings."""
    for limit, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if isinstance(found.get(exclusive), bool) and found.pop(exclusive) and limit in found:  # OpenAPI 3.0
            found[exclusive] = found.pop(limit)
    nullable = isinstance(found.get("enum"), list) and None in found["enum"]
    if nullable:
        found["enum"] = [value for value in found["enum"] if value is not None]
    kept = {name: value for name, value in found.items() if _is_declarable(name, value)}
    return {"anyOf": [kept, {"type": "null"}]} if nullable and "enum" in kept else kept


def _length_of(value: Any, depth: int = 0) -> int:
    """Estimate the length of a keyword's value as JSON. What is nested too deeply is refused before it is read."""
    if isinstance(value, str):
        return len(value) + 2
    if not isinstance(value, dict | list) or depth > api_operations.MAX_DEPTH * 3:
        return 1
    inner = [*value, *value.values()] if isinstance(value, dict) else value
    return 2 + sum(_length_of(item, depth + 1) for item in inner)


def _is_declarable(name: str, value: object) -> bool:
    """Whether a keyword alone is a valid declaration, such as a `multipleOf` without a fraction."""
    if name in {*_ONE, *_MANY, *_NAMED, "oneOf"}:
        return True  # converted
    try:
        api_operations.validate_schema({name: value})
    except ValidationError:
        return False
    return True


def _without(schema: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key != name}
