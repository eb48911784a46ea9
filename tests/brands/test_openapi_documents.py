"""Operations are proposed from OpenAPI documents that others wrote, hostile ones too."""

import json
from importlib.metadata import files
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brands import openapi_documents
from brands.openapi_documents import NotReadable, Proposal, base_url_of, proposals_of, read_document

ORDER: Final = "#/components/schemas/Order"
JSON_BODY: Final = {
    "required": True,
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Order"}}},
}


def document(paths: dict[str, Any], version: str = "3.1.0", **more: Any) -> dict[str, Any]:
    return read_document(json.dumps({"openapi": version, "info": {"title": "Orders"}, "paths": paths} | more).encode())


def proposal(operation: dict[str, Any], path: str = "/orders", method: str = "get", **more: Any) -> Proposal:
    (found,) = proposals_of(document({path: {method: operation}}, **more))
    return found


def test_an_operation_is_proposed_with_everything_that_it_declares() -> None:
    operation = {
        "operationId": "orders/note-update",
        "summary": "Change  a\nnote",
        "deprecated": True,
        "security": [{"key": []}, {"login": ["orders.read", "orders.write"]}],
        "parameters": [
            {"name": "limit", "in": "query", "schema": {"type": "integer", "maximum": 100}},
            {"name": "Authorization", "in": "header", "required": True, "schema": {"type": "string"}},
        ],
        "requestBody": {"$ref": "#/components/requestBodies/Note"},
    }
    item = {
        "parameters": [{"$ref": "#/components/parameters/id"}, {"name": "limit", "in": "query"}],
        "put": operation,
        "summary": "One order",
    }
    components: dict[str, Any] = {
        "parameters": {"id": {"name": "order_id", "in": "path", "required": True, "schema": {"type": "string"}}},
        "requestBodies": {"Note": JSON_BODY},
        "schemas": {"Order": {"type": "object", "required": ["note"], "properties": {"note": {"type": "string"}}}},
        "securitySchemes": {"key": {"type": "apiKey"}, "login": {"type": "oauth2", "flows": {}}},
    }
    (found,) = proposals_of(document({"/orders/{order_id}/note": item}, components=components))
    assert (found.name, found.summary, found.problem) == ("orders.note-update", "Change a note", "")
    assert found.notes == ("The document calls it deprecated.",)
    assert found.values == {
        "name": "orders.note-update",
        "method": "PUT",
        "path": "/orders/{order_id}/note",
        "parameters": [
            {"name": "order_id", "in": "path", "required": True, "schema": {"type": "string"}},
            {"name": "limit", "in": "query", "required": False, "schema": {"type": "integer", "maximum": 100}},
        ],
        "body_schema": {"type": "object", "required": ["note"], "properties": {"note": {"type": "string"}}},
        "is_body_required": True,
        "scope": "orders.read orders.write",
        "is_safe_to_repeat": False,
    }


@pytest.mark.parametrize(
    ("operation_id", "method", "path", "name"),
    [
        ("listOrders", "get", "/orders", "listOrders"),
        ("orders/list", "get", "/orders", "orders.list"),
        ("List all orders!", "get", "/orders", "List.all.orders"),
        ("2fa--check-", "get", "/orders", "operation.2fa-check"),
        ("", "get", "/", "get"),
        ("../../", "delete", "/orders/x", "delete.orders.x"),
        ("ä", "get", "/orders", "get.orders"),
        (7, "get", "/orders", "get.orders"),
        ("x" * 200, "get", "/orders", "x" * 100),
    ],
)
def test_an_id_becomes_a_name(operation_id: Any, method: str, path: str, name: str) -> None:
    assert proposal({"operationId": operation_id}, path, method).name == name


def test_two_operations_never_have_one_name() -> None:
    found = proposals_of(document({f"/{number}": {"get": {"operationId": "x" * 100}} for number in range(3)}))
    assert [one.name for one in found] == ["x" * 100, "x" * 95 + ".2", "x" * 95 + ".3"]


COOKIE: Final = {"name": "session", "in": "cookie", "required": True}
FORM: Final = {"required": True, "content": {"application/x-www-form-urlencoded": {}}}


@pytest.mark.parametrize(
    ("operation", "method", "path", "problem"),
    [
        ({"parameters": [COOKIE]}, "get", "/orders", "session: parameters in cookie cannot be sent."),
        (
            {"parameters": [COOKIE | {"in": "querystring"}]},
            "get",
            "/orders",
            "session: parameters in querystring cannot",
        ),
        ({"parameters": [COOKIE | {"in": "header", "name": "Host"}]}, "get", "/orders", "Host cannot be declared"),
        (
            {"parameters": [COOKIE | {"in": "query", "content": {}}]},
            "get",
            "/orders",
            "written as JSON or another format",
        ),
        (
            {"parameters": [COOKIE | {"in": "query", "style": "deepObject"}]},
            "get",
            "/orders",
            "lists are only sent by repeating the parameter",
        ),
        (
            {"parameters": [COOKIE | {"in": "query", "explode": False, "schema": {"type": "array"}}]},
            "get",
            "/orders",
            "lists are only sent by repeating the parameter",
        ),
        ({"requestBody": FORM}, "post", "/orders", "Its body is application/x-www-form-urlencoded, and only JSON"),
        ({"requestBody": {"required": True, "content": {"text/xml": {}}}}, "post", "/orders", "Its body is text/xml"),
        ({"requestBody": JSON_BODY}, "delete", "/orders", "DELETE has no body."),
        ({}, "trace", "/orders", "Bots cannot send TRACE."),
        ({}, "options", "/orders", "Bots cannot send OPTIONS."),
        ({}, "get", "/orders/{id}.json", "A parameter has to be a whole segment"),
        ({}, "get", "/orders/{id}", "The path names id"),
        ({}, "get", "/orders/../admin", "The path has an empty segment"),
        ({"servers": [{"url": "https://rival.example"}]}, "get", "/orders", "It has servers of its own"),
        ({"parameters": [{"$ref": "other.yaml#/id"}]}, "get", "/orders", "It refers to another document"),
        ({"parameters": [{"$ref": "https://rival.example/#/id"}]}, "get", "/orders", "It refers to another document"),
        ({"parameters": [{"$ref": "file:///etc/passwd"}]}, "get", "/orders", "It refers to another document"),
        ({"parameters": [{"$ref": "#/components/none"}]}, "get", "/orders", "something that is not in the document"),
        ({"parameters": [{"$ref": "#/paths/~1orders/get/parameters/0"}]}, "get", "/orders", "lead round in a circle"),
        ({"parameters": ["limit"]}, "get", "/orders", "not in the form that OpenAPI asks for"),
        ({"parameters": 7}, "get", "/orders", "not in the form that OpenAPI asks for"),
        ({"requestBody": []}, "post", "/orders", "not in the form that OpenAPI asks for"),
        (
            {"requestBody": {"required": True, "content": [7]}},
            "post",
            "/orders",
            "not in the form that OpenAPI asks for",
        ),
        ({"parameters": [{"in": ["query"], "name": {}, "required": True}]}, "get", "/orders", "cannot be sent"),
        ({"security": [{"login": ["a\nb"]}]}, "get", "/orders", "Separate scopes by one space"),
    ],
)
def test_what_cannot_be_declared_says_why(operation: Any, method: str, path: str, problem: str) -> None:
    components = {"securitySchemes": {"login": {"type": "oauth2"}}, "schemas": {"Order": {}}}
    found = proposal(operation, path, method, components=components)
    assert problem in found.problem
    assert found.values == {}


def test_a_path_in_a_file_of_its_own_is_named() -> None:
    """The bug: a document of several files seemed to describe nothing."""
    (lost, found) = proposals_of(document({"/orders": {"$ref": "orders.yaml"}, "/more": {"get": {}}}))
    assert (lost.path, lost.problem) == (
        "/orders",
        "It refers to another document, which is not fetched. Bundle the two first.",
    )
    assert (found.path, found.problem) == ("/more", "")


def test_what_is_optional_is_left_out_with_a_note() -> None:
    optional = {"parameters": [COOKIE | {"required": False}], "requestBody": FORM | {"required": False}}
    found = proposal(optional, method="post")
    assert (found.problem, found.values["parameters"], found.values["body_schema"]) == ("", [], None)
    assert found.notes == (
        "Left out: session: parameters in cookie cannot be sent.",
        "Left out: Its body is application/x-www-form-urlencoded, and only JSON can be sent.",
    )


def test_a_body_of_several_kinds_is_sent_as_json() -> None:
    content = {"text/xml": {}, "Application/JSON; charset=utf-8": {"schema": {"type": "object"}}}
    assert proposal({"requestBody": {"content": content}}, method="post").values["body_schema"] == {"type": "object"}


YAML: Final = """
openapi: 3.1
paths:
  /orders:
    get:
      operationId: orders.list
      parameters:
      - {name: state, in: query, schema: &state {enum: [no, yes, on, 2026-01-01, 010, "1:30", ~, true, 7, 1.5]}}
      - {name: other, in: query, schema: *state}
"""


def test_yaml_is_read_as_json_is() -> None:
    """The bug: YAML 1.1 reads the country `no` as false, a date as no text, and 010 as 8."""
    (found,) = proposals_of(read_document(YAML.encode()))
    (one, other) = (parameter["schema"] for parameter in found.values["parameters"])
    assert one == other
    assert one["anyOf"][0] == {"enum": ["no", "yes", "on", "2026-01-01", "010", "1:30", True, 7, 1.5]}


HEAD: Final = "openapi: 3.0.0\npaths: {}\n"
BOMB: Final = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "no OpenAPI document"),
        (b"\xff\xfe{}", "neither JSON nor YAML"),
        (b"{", "neither JSON nor YAML"),
        (b"[" * 100_000, "too many values or levels"),
        (b'{"a":' * 100_000, "neither JSON nor YAML"),
        (b'{"a": ' + b"1" * 5_000 + b"}", "neither JSON nor YAML"),
        (b"a: [", "neither JSON nor YAML"),
        (b"<!DOCTYPE html><html></html>", "no OpenAPI document"),
        (b"x" * 1_000_001, "larger than 1 MB"),
        (HEAD.encode() + BOMB.encode(), "too many values or levels"),
        (HEAD.encode() + b"a: &a [*a]", "repeats something that it is a part of"),
        (HEAD.encode() + b"a: *b", "repeats something that it is a part of"),
        (HEAD.encode() + b"a: !!python/object/apply:os.system [id]", "neither JSON nor YAML"),
        (HEAD.encode() + b"---\nopenapi: 3.0.0", "neither JSON nor YAML"),
        (b"? [a]\n: b", "neither JSON nor YAML"),
        (b'{"swagger": "2.0", "paths": {}}', "Swagger 2.0"),
        (b'{"openapi": "4.0.0", "paths": {}}', "no OpenAPI document of version"),
        (b'{"openapi": "3.1.0"}', "describes no paths"),
        (b'{"openapi": "3.1.0", "paths": {}}', "describes no operations"),
        (b'{"openapi": "3.1.0", "paths": {"x": {"get": {}}, "/z": {"get": 7, "x-a": {}}}}', "no operations"),
        (json.dumps({"openapi": "3.1.0", "paths": {f"/{n}": {"get": {}} for n in range(1_001)}}).encode(), "more than"),
    ],
)
def test_what_is_no_document_or_too_much_is_refused(content: bytes, problem: str) -> None:
    """P15: aliases, depth, size, and what would run code."""
    with pytest.raises(NotReadable, match=problem):
        proposals_of(read_document(content))


LONG: Final = "a." * 450_000
MANY: Final = 15_000


@pytest.mark.parametrize(
    ("operation", "problem", "notes"),
    [
        ({"parameters": [{"name": f"p{n}", "in": "query"} for n in range(MANY)]}, "more than 100 parameters", 0),
        ({"parameters": [{"name": f"p{n}", "in": "cookie"} for n in range(MANY)]}, "more than 100 parameters", 0),
        ({"parameters": [{"name": LONG, "in": "query"}]}, "", 1),
        ({"parameters": [{"name": [[1]] * MANY, "in": [[1]] * MANY}]}, "", 1),
        ({"requestBody": {"content": {f"a/b{n}": {} for n in range(MANY)}}}, "more than 100 kinds", 0),
        ({"requestBody": {"$ref": "#" + LONG.replace(".", "/")}}, "not in the document", 0),
        ({"requestBody": {"content": {"application/json": {"schema": {"properties": {LONG: {}}}}}}}, "too large", 0),
        ({"security": [{"a": []}] * MANY}, "", 0),
        ({"security": [{"login": ["s"] * MANY}]}, "more than 100 scopes", 0),
        ({"summary": LONG}, "", 0),
        ({"description": [[1]] * MANY}, "", 0),
        ({"operationId": LONG}, "", 0),
    ],
)
def test_a_large_operation_that_every_path_repeats_costs_little(operation: Any, problem: str, notes: int) -> None:
    """P15. The attack: 999 paths refer to one that is nearly as large as a document may be."""
    paths = {"/a": {"post": operation}} | {f"/{n}": {"$ref": "#/paths/~1a"} for n in range(999)}
    login = {"securitySchemes": {"login": {"type": "oauth2"}}}
    found = proposals_of(document(paths, components=login))
    assert len(found) == 1_000
    assert all(problem in one.problem and bool(problem) == bool(one.problem) for one in found)
    assert {len(one.notes) for one in found} == {notes}
    assert max(len(one.summary) + len(one.name) for one in found) <= 300


@pytest.mark.parametrize(
    ("servers", "url"),
    [
        ([{"url": "https://api.acme.example/v1/"}], "https://api.acme.example/v1"),
        (
            [{"url": "https://{r}.acme.example/{v}", "variables": {"r": {"default": "eu"}, "v": {"default": 2}}}],
            "https://eu.acme.example/2",
        ),
        ([{"url": "/v1"}], ""),
        ([{"url": "http://api.acme.example"}], ""),
        ([{"url": "https://{region}.acme.example"}], ""),
        ([{"url": "https://{r}.acme.example", "variables": {"r": 7}}], ""),
        ([{"url": 7}], ""),
        ([7], ""),
        ({}, ""),
        (None, ""),
    ],
)  # fmt: skip
def test_the_address_of_the_first_server_is_proposed(servers: Any, url: str) -> None:
    assert base_url_of({"servers": servers}) == url


_MEMBERS: Final = st.sampled_from(
    [
        *("$ref", "name", "in", "required", "schema", "content", "application/json", "type", "properties", "items"),
        *("allOf", "enum", "nullable", "parameters", "requestBody", "security", "servers", "operationId", "style"),
    ]
)
_VALUES: Final[st.SearchStrategy[Any]] = st.sampled_from(
    [
        None,
        True,
        0,
        -1,
        1.5,
        "",
        "x",
        "path",
        "query",
        "object",
        "array",
        "\x00",
        "#",
        "#/paths/~1{a}/get",
        "x.yaml",
        [],
        {},
    ]
)
_ODD: Final = st.recursive(
    _VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_MEMBERS, inner, max_size=5), max_leaves=25
)


@given(operation=st.dictionaries(_MEMBERS, _ODD, max_size=6), item=st.dictionaries(_MEMBERS, _ODD), more=_ODD)
def test_whatever_the_description_holds_it_is_a_proposal_or_a_problem(operation: Any, item: Any, more: Any) -> None:
    """The attack: an odd document is a 500 for an admin, and a traceback of somebody else's text in our log."""
    paths = {"/{a}": {**item, "get": operation, "post": operation}, "/plain": {"get": {}}}
    for version in ("3.0.0", "3.1.0"):
        for found in proposals_of(document(paths, version, components=more, security=more, servers=more)):
            assert bool(found.problem) != bool(found.values)


def document_of_others() -> bytes:
    """Return the document that django-allauth carries of its own API: version 3.0, in YAML, with aliases."""
    (found,) = [file for file in files("django-allauth") or () if file.name == "openapi.yaml"]
    return Path(str(found.locate())).read_bytes()


def test_a_document_that_others_wrote_is_read_whole() -> None:
    found = proposals_of(read_document(document_of_others()))
    assert len(found) > 50
    assert {one.path.rpartition("/v1/")[2]: one.problem for one in found if one.problem} == {
        "auth/provider/redirect": "Its body is application/x-www-form-urlencoded, and only JSON can be sent.",
        "auth/sessions": "DELETE has no body.",
    }
    assert {one.method for one in found} == {"GET", "POST", "PUT", "PATCH", "DELETE"}
    assert max(len(json.dumps(dict(one.values))) for one in found) < openapi_documents.MAX_DOCUMENT_BYTES
