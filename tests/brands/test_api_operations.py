"""What can be declared as an operation: paths, parameters, schemas. Hostile admins and bots are kept out here."""

from typing import Any

import pytest
from django.core.exceptions import ValidationError
from jsonschema import Draft202012Validator

from brands import api_operations
from oauth_client.validators import validate_base_url


def code_of(check: Any, *values: Any) -> str | None:
    """Return the code of the refusal; None if the value is accepted."""
    try:
        check(*values)
    except ValidationError as error:
        return str(error.code)
    return None


def parameter(**changes: Any) -> dict[str, Any]:
    return {"name": "limit", "in": "query", "required": False, "schema": {"type": "integer"}} | changes


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/orders",
        "/orders/",
        "/orders/{order_id}",
        "/orders/{order-id}/items/{n}/",
        "/v1.0/a:b@c,d;e=f",
        "/.well-known",
    ],
)
def test_a_path_of_whole_segments_can_be_declared(path: str) -> None:
    assert code_of(api_operations.validate_path, path) is None


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("", "no_path"),
        ("orders", "no_path"),
        ("https://rival.example/orders", "no_path"),
        (7, "no_path"),
        ("/" + "a" * 1024, "no_path"),
        ("/orders?all=1", "path_with_query"),
        ("/orders#top", "invalid_path"),
        ("//rival.example/orders", "path_with_dots"),
        ("/orders//items", "path_with_dots"),
        ("/orders/..", "path_with_dots"),
        ("/orders/../admin", "path_with_dots"),
        ("/./orders", "path_with_dots"),
        ("/orders/.../x", "path_with_dots"),
        ("/orders/..;x=1/admin", "path_with_dots"),
        ("/orders/%2e%2e", "invalid_path"),
        ("/orders/a%2fb", "invalid_path"),
        ("/orders\\admin", "invalid_path"),
        ("/orders\r\nHost: rival.example", "invalid_path"),
        ("/orders\x00", "invalid_path"),
        ("/bestellungen/ä", "invalid_path"),
        ("/orders/{id}.json", "partial_path_parameter"),
        ("/orders/v{id}", "partial_path_parameter"),
        ("/orders/{a}{b}", "partial_path_parameter"),
        ("/orders/{id", "partial_path_parameter"),
        ("/orders/{}", "invalid_path_parameter"),
        ("/orders/{a b}", "invalid_path_parameter"),
        ("/orders/{id}/{id}", "repeated_path_parameter"),
    ],
)
def test_a_path_that_servers_could_read_otherwise_is_refused(path: object, code: str) -> None:
    """P13: the admin's template is what is called, and a value is one segment of it."""
    assert code_of(api_operations.validate_path, path) == code


@pytest.mark.parametrize(
    "name", ["X-Request-Id", "Accept-Language", "If-Match", "Idempotency-Key", "api_key", "Accept"]
)
def test_a_header_of_the_apis_own_can_be_declared(name: str) -> None:
    assert code_of(api_operations.validate_header_name, name) is None


@pytest.mark.parametrize(
    "name",
    [
        *("Host", "Cookie", "Authorization", "DPoP", "User-Agent", "Origin", "Referer", "Expect", "TE", "Trailer"),
        *("Connection", "Keep-Alive", "Transfer-Encoding", "Upgrade", "Via", "Forwarded", "Early-Data"),
        *("Content-Length", "Content-Type", "Content-Encoding", "Content-Location", "Accept-Encoding"),
        *("Proxy", "Proxy-Authorization", "Proxy-Connection", "Sec-Fetch-Site"),
        *("X-Forwarded-For", "x-forwarded-host", "X-Forwarded", "X-Real-IP", "True-Client-IP", "X-Host"),
        *("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "X-Original-URL", "X-Rewrite-URL"),
        *("x_forwarded_for", "CONTENT_LENGTH", "X_Http_Method_Override", "proxy_authorization"),
    ],
)
def test_a_header_that_is_not_the_bots_to_choose_cannot_be_declared(name: str) -> None:
    """P13: also with underscores, which WSGI, CGI and PHP read as hyphens."""
    assert code_of(api_operations.validate_parameters, [parameter(**{"name": name, "in": "header"})]) == (
        "header_not_declarable"
    )


@pytest.mark.parametrize("name", ["", "X Y", "X:Y", "X\r\nCookie", "Größe", "x" * 101, ":authority"])
def test_what_is_no_header_name_is_refused(name: str) -> None:
    assert code_of(api_operations.validate_header_name, name) == "invalid_name"


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({}, "no_parameters"),
        ([parameter()] * 51, "no_parameters"),
        (["limit"], "invalid_parameter"),
        ([{"name": "limit"}], "invalid_parameter"),
        ([parameter(style="form")], "invalid_parameter"),
        ([parameter(**{"in": "cookie"})], "unknown_place"),
        ([parameter(**{"in": ["query"]})], "unknown_place"),
        ([parameter(name=7)], "invalid_name"),
        ([parameter(name="a\nb")], "invalid_name"),
        ([parameter(**{"name": "a/b", "in": "path", "required": True})], "invalid_name"),
        ([parameter(required="yes")], "invalid_required"),
        ([parameter(**{"in": "path"})], "not_required"),
        ([parameter(schema=True)], "invalid_schema"),
        ([parameter(schema={"type": "object"})], "unwritable_type"),
        ([parameter(schema={"type": ["string", "null"]})], "unwritable_type"),
        ([parameter(**{"in": "header", "name": "X-A", "schema": {"type": "array"}})], "unwritable_type"),
        ([parameter(), parameter()], "repeated_name"),
        ([parameter(), parameter(**{"in": "header"})], "repeated_name"),
        ([parameter(**{"in": "header", "name": name}) for name in ("X-A", "x-a")], "repeated_name"),
    ],
)
def test_parameters_that_cannot_be_sent_are_refused(parameters: object, code: str) -> None:
    assert code_of(api_operations.validate_parameters, parameters) == code


def test_all_parameters_together_are_as_long_as_one_schema() -> None:
    """P14: what is declared is prepared in the memory of each process."""
    long = {"enum": ["a" * 2_000]}
    many = [{"name": f"q{number}", "in": "query", "schema": long} for number in range(50)]
    assert code_of(api_operations.validate_parameters, many) == "parameters_too_large"
    assert code_of(api_operations.validate_parameters, many[:30]) is None


def test_parameters_that_can_be_sent() -> None:
    given = [
        parameter(),
        parameter(name="filter[state]", schema={"type": "array", "items": {"enum": ["open", "closed"]}}),
        parameter(name="Limit"),
        parameter(**{"name": "id", "in": "path", "required": True, "schema": {}}),
        {"name": "X-A", "in": "header"},
    ]
    assert code_of(api_operations.validate_parameters, given) is None


SCHEMA = {
    "type": "object",
    "title": "An order",
    "required": ["reason"],
    "additionalProperties": False,
    "properties": {
        "reason": {"type": "string", "minLength": 1, "maxLength": 200},
        "count": {"type": ["integer", "null"], "minimum": 1, "exclusiveMaximum": 10.5, "multipleOf": 2},
        "lines": {
            "type": "array",
            "items": {"anyOf": [{"const": 7}, {"enum": ["a", True, 1.5]}, False]},
            "maxItems": 9,
        },
    },
    "dependentRequired": {"count": ["lines"]},
    "if": {"not": {"required": ["count"]}},
    "then": {"maxProperties": 2},
    "examples": [{"reason": "late"}],
}


def test_an_accepted_schema_is_one_of_the_draft() -> None:
    assert code_of(api_operations.validate_body_schema, SCHEMA) is None
    assert code_of(api_operations.validate_body_schema, None) is None
    assert code_of(api_operations.validate_body_schema, {}) is None
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("keyword", sorted(api_operations.KEYWORDS))
@pytest.mark.parametrize("value", [None, True, -1, 0, 1.5, "x", [], {}, ["x", "x"], [7], {"x": 7}, [{"type": "x"}]])
def test_what_the_draft_refuses_of_a_keyword_is_refused_here(keyword: str, value: Any) -> None:
    """The rules are our own, and the draft's meta-schema would stop none of these later."""
    if code_of(api_operations.validate_schema, {keyword: value}) is None:
        Draft202012Validator.check_schema({keyword: value})


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(depth):
        schema = {"items": schema}
    return schema


@pytest.mark.parametrize(
    ("schema", "code"),
    [
        ([], "invalid_schema"),
        ("string", "invalid_schema"),
        (False, "invalid_schema"),
        ({"type": "file"}, "invalid_schema"),
        ({"type": []}, "invalid_schema"),
        ({"properties": []}, "invalid_schema"),
        ({"properties": {"a": 7}}, "invalid_schema"),
        ({"allOf": {}}, "invalid_schema"),
        ({"allOf": []}, "invalid_schema"),
        ({"required": "reason"}, "invalid_schema"),
        ({"minLength": True}, "invalid_schema"),
        ({"maximum": "7"}, "invalid_schema"),
        ({"multipleOf": 0.01}, "invalid_schema"),
        ({"multipleOf": 0}, "invalid_schema"),
        ({"$ref": "#"}, "keyword_not_declarable"),
        ({"$ref": "https://rival.example/schema.json"}, "keyword_not_declarable"),
        ({"items": {"$dynamicRef": "#x"}}, "keyword_not_declarable"),
        ({"$id": "https://rival.example/"}, "keyword_not_declarable"),
        ({"$defs": {}}, "keyword_not_declarable"),
        ({"pattern": "^a+$"}, "keyword_not_declarable"),
        ({"propertyNames": {"pattern": "^a+$"}}, "keyword_not_declarable"),
        ({"patternProperties": {"^a+$": {}}}, "keyword_not_declarable"),
        ({"uniqueItems": True}, "keyword_not_declarable"),
        ({"unevaluatedProperties": False}, "keyword_not_declarable"),
        ({"maxLenght": 7}, "keyword_not_declarable"),
        ({"const": None}, "null_in_schema"),
        ({"enum": ["a", None]}, "null_in_schema"),
        ({"const": 10**400}, "invalid_number"),
        ({"maximum": float("nan")}, "invalid_number"),
        ({"maximum": float("inf")}, "invalid_number"),
        ({"const": "\x00"}, "invalid_schema"),
        ({"const": "\ud800"}, "invalid_schema"),
        ({"const": {"\x00": 1}}, "invalid_schema"),
        ({"const": {7: 1}}, "invalid_schema"),
        ({"const": {1, 2}}, "invalid_schema"),
        ({"enum": ["a" * 70_000]}, "schema_too_large"),
        ({"allOf": [{}] * 1_001}, "schema_too_large"),
        (nested(41), "schema_too_deep"),
        (nested(5_000), "schema_too_deep"),
    ],
)
def test_a_schema_that_could_take_our_time_or_means_nothing_is_refused(schema: object, code: str) -> None:
    """P14: an admin of a brand must not be able to stop a process that serves all brands."""
    assert code_of(api_operations.validate_schema, schema) == code


@pytest.mark.parametrize(
    ("method", "path", "has_body", "found"),
    [
        ("GET", "/orders", False, {}),
        ("POST", "/orders/{id}", True, {"parameters": "path_parameter_not_declared"}),
        ("GET", "/orders", True, {"body_schema": "no_body_allowed"}),
        ("HEAD", "/orders", True, {"body_schema": "no_body_allowed"}),
        ("DELETE", "/orders", True, {"body_schema": "no_body_allowed"}),
    ],
)
def test_the_parts_of_a_declaration_are_compared(method: str, path: str, has_body: bool, found: dict[str, str]) -> None:
    errors = api_operations.mismatches(method, path, [parameter()], has_body=has_body)
    assert {name: error.code for name, error in errors.items()} == found


def test_a_path_parameter_that_the_path_lacks_is_named() -> None:
    unused = parameter(**{"name": "id", "in": "path", "required": True})
    (error,) = api_operations.mismatches("GET", "/orders", [unused], has_body=False).values()
    assert error.messages == ["The path has no {id}: write it there, or remove the parameter."]


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("https://api.acme.example", None),
        ("https://api.acme.example/", None),
        ("https://api.acme.example/v1/orders/", None),
        ("https://api.acme.example/v1?tenant=1", "base_url_query"),
        ("https://api.acme.example/v1#top", "endpoint_fragment"),
        ("https://ada:secret@api.acme.example/v1", "endpoint_userinfo"),
        ("http://api.acme.example/v1", "endpoint_scheme"),
        ("https://10.0.0.1/v1", "endpoint_ip_address"),
        ("https://api.acme.example:8443/v1", "endpoint_port"),
        ("https://api.acme.example/v1/../admin", "base_url_path"),
        ("https://api.acme.example/%2E%2e/admin", "base_url_path"),
        ("https://api.acme.example/a%2Fb", "base_url_path"),
        ("https://api.acme.example/a//b", "base_url_path"),
        ("https://api.acme.example/..;/admin", "base_url_path"),
    ],
)
def test_a_base_url_is_one_to_which_a_path_can_be_added(url: str, code: str | None) -> None:
    """N1."""
    assert code_of(validate_base_url, url) == code
