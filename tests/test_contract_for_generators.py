"""`openapi.yaml` as generators of clients read it: what one of them misread, none of them meets again."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import jsonschema
import pytest
import yaml

from tests import contract
from tests.contract import CONTRACT, document
from tests.machine import missing

Node = dict[str, Any]
OPERATION_IDS = [
    "createChallenge", "readChallenge", "withdrawChallenge", "complete", "authorize", "readToken", "endToken",
    "readConversation", "closeConversation", "callOperation", "listOperations",
]  # fmt: skip


def test_the_file_has_no_merge_keys_and_no_anchors() -> None:
    """YAML 1.2 has no `<<`: js-yaml 5 and npm yaml left `challenge_id` out of an issued challenge."""
    text = CONTRACT.read_text(encoding="utf-8")
    events = list(yaml.parse(text))
    assert [event for event in events if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None)] == []
    assert [event for event in events if getattr(event, "value", None) == "<<"] == []


def test_no_enumeration_holds_null() -> None:
    """A Python enumeration made of it had a member for null, which is true: `if challenge.error:` always held."""
    listed = [schema["enum"] for schema in schemas() if "enum" in schema]
    assert len(listed) > 8
    assert [values for values in listed if not all(isinstance(value, str) for value in values)] == []


def test_only_objects_and_enumerations_have_names() -> None:
    """Pydantic wraps a named text or a named null: `if challenge.purpose:` always held too."""
    named = document()["components"]["schemas"]
    bare = [name for name, schema in named.items() if not {"properties", "enum", "oneOf"} & set(schema)]
    assert bare == []
    assert [name for name, schema in named.items() if isinstance(schema.get("type"), list)] == []


def test_no_schema_has_a_default() -> None:
    """TypeScript made such members required, and zod sent them."""
    assert [schema for schema in schemas() if "default" in schema] == []


def test_every_pattern_is_one_in_python_and_in_javascript() -> None:
    """In the `u` mode, and written as a literal between slashes with no line separator in it."""
    patterns = sorted({schema["pattern"] for schema in schemas() if "pattern" in schema})
    assert len(patterns) > 4
    for pattern in patterns:
        re.compile(pattern)
        assert not re.search(r"[\x00-\x1f\u2028\u2029]|\\u|\\x", pattern), pattern
    node = shutil.which("node") or missing("Node is not installed: patterns were not tried in JavaScript")
    program = "for (const text of JSON.parse(process.argv[1])) new RegExp(text, 'u')"
    subprocess.run([node, "-e", program, json.dumps(patterns)], check=True)


def test_every_parameter_has_a_bound() -> None:
    """The bug: `after` was checked by the answer alone, and a generated client sent texts of any length."""
    parameters = [each for each in schemas() if "in" in each and "schema" in each]
    assert len(parameters) > 15
    assert [each["name"] for each in parameters if not has_bounds(each["schema"])] == []


def has_bounds(schema: Node) -> bool:
    return "enum" in schema or ({"minimum", "maximum"} if schema["type"] == "integer" else {"maxLength"}) <= set(schema)


def test_every_operation_has_one_tag_of_the_list() -> None:
    names = [tag["name"] for tag in document()["tags"]]
    assert {tag for _, operation in operations() for tag in operation["tags"]} == set(names)
    assert {len(operation["tags"]) for _, operation in operations()} == {1}


def test_operation_ids_stay_and_are_unique() -> None:
    """A generated client has its functions' names from them."""
    ids = [operation["operationId"] for _, operation in operations()]
    assert len(ids) == len(set(ids))
    assert ids[: len(OPERATION_IDS)] == OPERATION_IDS
    assert ids[len(OPERATION_IDS) :] == [event.replace(".", "_") for event in document()["webhooks"]]


def test_the_title_is_a_short_name_of_a_package() -> None:
    assert document()["info"]["title"] == "Consumer Delegation"


def test_every_event_names_its_own_type_alone() -> None:
    """One schema allowed every type, so that `type` told a compiler nothing."""
    named = document()["components"]["schemas"]
    references = []
    for event, methods in document()["webhooks"].items():
        reference = methods["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        schema = named[reference.rsplit("/", 1)[1]]
        assert schema["properties"]["type"] == {"type": "string", "const": event}
        references.append(reference)
    assert [kind["$ref"] for kind in named["WebhookEvent"]["oneOf"]] == references
    assert named["WebhookEvent"]["discriminator"]["mapping"] == dict(
        zip(document()["webhooks"], references, strict=True)
    )


def test_the_two_answers_of_authorize_share_no_required_member_that_tells_them_apart() -> None:
    token, challenge = (document()["components"]["schemas"][name] for name in ("AccessToken", "IssuedChallenge"))
    assert "access_token" in token["required"]
    assert "access_token" not in challenge["properties"]
    assert "challenge_id" in challenge["required"]
    assert "challenge_id" not in token["properties"]


@pytest.mark.parametrize(
    ("smaller", "larger"),
    [("Challenge", "IssuedChallenge"), ("TokenFacts", "AccessToken"), ("Standing", "EndedToken"),
     ("ChallengeRequest", "AuthorizeRequest")],
)  # fmt: skip
def test_what_is_written_out_twice_is_alike(smaller: str, larger: str) -> None:
    part, whole = (document()["components"]["schemas"][name] for name in (smaller, larger))
    different = {name for name, value in part["properties"].items() if whole["properties"][name] != value}
    # L2: a token that a bot gets is no DPoP token.
    assert different == ({"token_type"} if larger == "AccessToken" else set())
    assert set(part.get("required", [])) <= set(whole.get("required", []))


def test_what_events_say_of_a_token_is_what_a_read_says() -> None:
    named = document()["components"]["schemas"]
    shapes = [
        named["TokenFacts"],
        named["TokenIssuedEvent"]["properties"]["data"],
        named["TokenEndedEvent"]["properties"]["data"],
    ]
    for smaller, larger in pairwise(shapes):
        assert {name: larger["properties"][name] for name in smaller["properties"]} == smaller["properties"]
        assert set(smaller["required"]) < set(larger["required"])


def test_answers_may_grow_and_requests_may_not() -> None:
    """A client that is generated today takes a member that comes tomorrow; a mistyped field is refused today."""
    closed = {
        name
        for name, schema in document()["components"]["schemas"].items()
        if schema.get("additionalProperties") is False
    }
    assert closed == {"ChallengeRequest", "AuthorizeRequest", "CallRequest", "CodeCompletion", "HandleCompletion"}
    assert [
        schema for schema in schemas() if schema.get("additionalProperties") is False and "properties" not in schema
    ] == []


def test_only_the_two_lists_of_states_are_closed_in_answers() -> None:
    """Every other list of values is open where an answer uses it: more reasons, errors, checks and codes may come."""
    used: dict[str, set[bool]] = {}
    for schema in schemas():
        for member in schema.get("properties", {}).values():
            for kind in (member, *member.get("anyOf", [])):
                name = kind.get("$ref", "").rsplit("/", 1)[-1]
                if "enum" in document()["components"]["schemas"].get(name, {}):
                    used.setdefault(name, set()).add(
                        any(way.get("type") == "string" for way in member.get("anyOf", []))
                    )
    closed = {name for name, ways in used.items() if ways == {False}}
    assert closed == {"ChallengeStatus", "AuthorizationStatus"}
    assert {frozenset(ways) for name, ways in used.items() if name not in closed} == {frozenset({True})}


def test_a_list_without_a_name_has_only_what_the_request_has_sent() -> None:
    """The bug: the page for generators said that every `end_reason` may grow; that of `endToken` is closed."""
    named = document()["components"]["schemas"]
    closed = {
        (owner, member): values["enum"]
        for owner, schema in named.items()
        for member, values in schema.get("properties", {}).items()
        if "enum" in values
    }
    reasons = next(each["schema"]["enum"] for each in schemas() if each.get("name") == "reason" and "in" in each)
    claims = list(named["ChallengeRequest"]["properties"]["expected_claims"]["properties"])
    assert closed == {("EndedToken", "end_reason"): reasons, ("Problem", "claim"): claims}
    page = (CONTRACT.parent / "docs" / "generate-a-client.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| ") and "`end_reason`" in line]
    assert [row.split(" | ")[1].split(":")[0] for row in rows] == ["yes", "no"]


def test_the_text_beside_a_list_of_values_is_a_bare_one() -> None:
    """With a pattern it became a class of its own, and `problem.code == "challenged"` was never true."""
    beside = [way for schema in schemas() for way in schema.get("anyOf", []) if way.get("type") == "string"]
    assert len(beside) > 10
    assert [way for way in beside if way != {"type": "string"}] == []


def test_an_answer_of_tomorrow_is_valid_today_but_not_from_this_version() -> None:
    problem = document()["components"]["examples"]["unchallenged"]["value"]
    grown = problem | {"code": "of_tomorrow", "reason": "of_tomorrow", "member_of_tomorrow": 1}
    schema = {"$ref": "#/components/schemas/Problem"}
    contract.validate_as_a_client(grown, schema)
    for name in ("code", "reason", "member_of_tomorrow"):
        with pytest.raises(jsonschema.ValidationError):
            contract.validate(problem | {name: grown[name]}, schema)


def operations() -> Iterator[tuple[str, Node]]:
    """Yield every operation with its address or the name of its event."""
    for place, methods in [*document()["paths"].items(), *document()["webhooks"].items()]:
        yield from ((place, methods[method]) for method in methods if method != "parameters")


def schemas() -> list[Node]:
    """Every node below the contract that may be a schema: all but the examples' values."""
    found: list[Node] = []

    def walk(node: Any) -> None:
        if isinstance(node, list):
            for item in node:
                walk(item)
        elif isinstance(node, dict):
            found.append(node)
            for name, value in node.items():
                if name not in {"examples", "x-meanings", "responses", "discriminator"}:
                    walk(value)

    whole = document()
    walk([whole["paths"], whole["webhooks"]])
    walk({name: part for name, part in whole["components"].items() if name != "examples"})
    return found
