"""Schemas of OpenAPI documents become those that a declaration may have: wider, never narrower, and bounded."""

from typing import Any, Final

import pytest
from jsonschema import Draft202012Validator

from brands.openapi_documents import proposals_of
from tests.brands.test_openapi_documents import JSON_BODY, ORDER, document, proposal

A_OR_NULL: Final = {"anyOf": [{"type": "string", "enum": ["a"]}, {"type": "null"}]}


def body(schema: Any, version: str = "3.1.0", **components: Any) -> Any:
    """Return the schema that is proposed for a body."""
    operation = {"requestBody": {"content": {"application/json": {"schema": schema}}}}
    found = proposal(operation, method="post", version=version, components={"schemas": components})
    assert found.problem == ""
    Draft202012Validator.check_schema(found.values["body_schema"])
    return found.values["body_schema"]


@pytest.mark.parametrize(
    ("schema", "converted"),
    [
        ({"type": "string", "nullable": True}, {"type": ["null", "string"]}),
        ({"type": "string", "nullable": True, "enum": ["a", None]}, A_OR_NULL),
        ({"enum": ["a"], "nullable": True, "type": "string"}, A_OR_NULL),
        ({"type": "integer", "minimum": 1, "exclusiveMinimum": True}, {"type": "integer", "exclusiveMinimum": 1}),
        ({"type": "integer", "maximum": 9, "exclusiveMaximum": False}, {"type": "integer", "maximum": 9}),
        ({"$ref": "#/components/schemas/Order", "type": "string"}, {"type": "object"}),
        ({"discriminator": {"propertyName": "kind"}, "xml": {}, "example": None, "type": "object"}, {"type": "object"}),
    ],
)  # fmt: skip
def test_a_schema_of_version_3_0_is_written_as_in_3_1(schema: Any, converted: Any) -> None:
    assert body(schema, "3.0.3", Order={"type": "object"}) == converted


@pytest.mark.parametrize(
    ("schema", "converted"),
    [
        ({"type": "string", "pattern": "^(a+)+$", "maxLength": 9}, {"type": "string", "maxLength": 9}),
        ({"uniqueItems": True, "minItems": 1}, {"minItems": 1}),
        ({"multipleOf": 0.01, "minimum": 0.5}, {"minimum": 0.5}),
        ({"maximum": 2**70, "minimum": -(2**63) + 1}, {"minimum": -(2**63) + 1}),
        ({"type": "file"}, {}),
        ({"patternProperties": {"^x-": {}}, "additionalProperties": False}, {}),
        ({"unevaluatedProperties": False, "type": "object"}, {"type": "object"}),
        ({"not": {"pattern": "x"}}, {}),
        ({"if": {"pattern": "x"}, "then": False}, {}),
        ({"oneOf": [{"pattern": "a"}, {"pattern": "b"}]}, {"anyOf": [{}, {}]}),
        ({"const": None}, {}),
        ({"enum": ["a", None]}, {"anyOf": [{"enum": ["a"]}, {"type": "null"}]}),
        ({"properties": {"a": True, "b": False}}, {"properties": {"a": {}, "b": {"not": {}}}}),
        (
            {"required": ["id", "a"], "properties": {"id": {"readOnly": True}, "a": {}}},
            {"required": ["a"], "properties": {"id": {}, "a": {}}},
        ),
        # The bug: `readOnly` was only seen beside the property's name.
        (
            {"required": ["id"], "properties": {"id": {"$ref": "#/components/schemas/Id"}}},
            {"required": [], "properties": {"id": {}}},
        ),
        # The bug: a name that is none was looked up, and ended the import with a 500.
        ({"required": [["id"]], "properties": {"id": {}}}, {"properties": {"id": {}}}),
        ({"$ref": ORDER, "maxProperties": 2}, {"allOf": [{"type": "object"}, {"maxProperties": 2}]}),
        ({"properties": [], "allOf": {}, "required": "a", "minLength": "1", "items": [{}]}, {"items": {}}),
        (7, {}),
    ],
)  # fmt: skip
def test_what_a_declaration_cannot_have_makes_it_wider_and_never_narrower(schema: Any, converted: Any) -> None:
    assert body(schema, Order={"type": "object"}, Id={"readOnly": True}) == converted


def test_a_schema_that_contains_itself_is_cut_off() -> None:
    tree = {
        "type": "object",
        "properties": {"children": {"type": "array", "items": {"$ref": "#/components/schemas/Tree"}}},
    }
    found = body({"$ref": "#/components/schemas/Tree"}, Tree=tree)
    assert found == {"type": "object", "properties": {"children": {"type": "array", "items": {}}}}


def test_a_small_document_that_refers_to_itself_without_end_costs_little() -> None:
    """P15. The attack: forty schemas, each of which names the next one ten times."""
    schemas: dict[str, Any] = {f"s{n}": {"allOf": [{"$ref": f"#/components/schemas/s{n + 1}"}] * 10} for n in range(40)}
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/s0"}}}
    paths = {f"/{n}": {"post": {"requestBody": {"content": content}}} for n in range(900)}
    found = proposals_of(document(paths, components={"schemas": schemas | {"s40": {}}}))
    assert {one.problem for one in found} == {
        "Its schemas are too large, with everything that they refer to.",
        "The document is too large, with everything that its operations refer to.",
    }


@pytest.mark.parametrize("long", ["x" * 60_000, [["x"] * 20_000], [[{"x": {"y" * 60_000: 1}}]]])
def test_a_long_value_that_every_operation_repeats_costs_little(long: Any) -> None:
    """P15. The attack: nine hundred operations each repeat one list of values nine hundred times."""
    properties = {f"p{n}": {"$ref": "#/components/schemas/long"} for n in range(900)}
    schemas = {"Order": {"properties": properties}, "long": {"enum": [long]}}
    paths = {f"/{n}": {"post": {"requestBody": JSON_BODY}} for n in range(900)}
    found = proposals_of(document(paths, components={"schemas": schemas}))
    assert {one.problem.partition(" too large")[0] for one in found} == {"Its schemas are", "The document is"}
