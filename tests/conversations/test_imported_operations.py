"""Operations of an OpenAPI document that others wrote are called at a server that reads that document by itself."""

import json
import re
from collections import ChainMap
from typing import Any, Final

import pytest
import yaml
from openapi_schema_validator import OAS30Validator

from brands.models import BrandAPI, Operation
from brands.openapi_documents import Proposal, proposals_of, read_document
from tests.brand_api import Caller
from tests.brands.test_openapi_documents import document_of_others
from tests.hostile_token_endpoint import Script, http_answer

pytestmark = pytest.mark.django_db

DOCUMENT: Final[Any] = yaml.safe_load(document_of_others())
BASE: Final = "/shop/v1"


def resolved(value: Any) -> Any:
    """Follow a reference inside the document."""
    while "$ref" in value:
        target = DOCUMENT
        for name in value["$ref"].split("/")[1:]:
            target = target[name.replace("~1", "/")]
        value = target
    return value


def example_of(schema: Any) -> Any:
    """Make a value that the schema allows."""
    schema = resolved(schema)
    if "enum" in schema:
        return schema["enum"][0]
    if "example" in schema:
        return schema["example"]
    if alternatives := schema.get("oneOf") or schema.get("anyOf"):
        return example_of(alternatives[0])
    if "allOf" in schema:
        parts = [example_of(part) for part in schema["allOf"]]
        # Members of one object; or one schema to which the document adds words.
        objects = [part for part in parts if isinstance(part, dict)]
        return dict(ChainMap(*objects)) if objects else parts[0]
    if schema.get("type") == "object" or "properties" in schema:
        return {name: example_of(inner) for name, inner in schema.get("properties", {}).items()}
    if schema.get("type") == "array":
        return [example_of(schema["items"])]
    return {"integer": 1, "number": 1, "boolean": True, "string": "a@acme.example"}[schema.get("type", "string")]


def documented(method: str, path: str) -> tuple[Any, list[Any]] | None:
    """Find the operation of a request, and its parameters, in the document."""
    for template, item in DOCUMENT["paths"].items():
        pattern = re.sub(r"\\\{[^/]+\\\}", "[^/]+", re.escape(template))
        if re.fullmatch(pattern, path) and method.lower() in item:
            operation = item[method.lower()]
            return operation, [resolved(one) for one in (*item.get("parameters", []), *operation.get("parameters", []))]
    return None


def answer_to(request: bytes) -> bytes:
    """Answer as the server of the document: 200 with the operation's summary, or 400 with what is wrong."""
    head, _, body = request.partition(b"\r\n\r\n")
    method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
    found = documented(method, target.partition("?")[0].removeprefix(BASE))
    if found is None:
        return http_answer(json.dumps({"wrong": target}).encode(), status=400)
    operation, _ = found
    described = resolved(operation["requestBody"]) if "requestBody" in operation else {}
    if not body:
        wrong = "no body" if described.get("required") else ""
    else:
        schema = {**described["content"]["application/json"]["schema"], "components": DOCUMENT["components"]}
        wrong = " ".join(error.message for error in OAS30Validator(schema).iter_errors(json.loads(body)))
    answer = {"wrong": wrong} if wrong else {"summary": operation["summary"].strip()}
    return http_answer(json.dumps(answer).encode(), status=400 if wrong else 200)


def called(caller: Caller, proposal: Proposal) -> tuple[Any, Any]:
    """Declare an operation and call it with values of the document. Returns the API's status and body."""
    operation = Operation(api=BrandAPI.objects.get(), **{**proposal.values, "scope": ""})
    operation.full_clean(exclude={"brand"})
    operation.save()
    found = documented(proposal.method, re.sub(r"\{[^/]+\}", "x", proposal.path))
    assert found is not None
    documented_operation, parameters = found
    arguments = {one["name"]: example_of(one["schema"]) for one in parameters if one.get("required")}
    wish: dict[str, Any] = {"arguments": arguments}
    if operation.body_schema is not None:
        body = resolved(documented_operation["requestBody"])["content"]["application/json"]
        wish["body"] = example_of(body["schema"])
    status, answer = caller.call(proposal.name, **wish)
    assert status == 200, answer
    return answer["response"]["status"], answer["response"]["body"]


def test_operations_that_others_described_are_called_as_they_described_them(caller: Caller) -> None:
    """P15, P3, P4: all of django-allauth's own document that can be declared."""

    def script() -> Script:
        return [answer_to(caller.api.requests[-1])]

    caller.api.script = script
    proposals = [one for one in proposals_of(read_document(document_of_others())) if not one.problem]
    answers = {one.name: called(caller, one) for one in proposals}
    assert answers == {one.name: (200, {"summary": one.summary}) for one in proposals}
    assert len({one.method for one in proposals}) >= 4
    assert len(proposals) > 50
    assert len(caller.api.requests) == len(proposals)
