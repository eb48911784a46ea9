"""Check every answer that a test's bot gets against `openapi.yaml`."""

import re
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import jsonschema
import yaml
from django.http import HttpResponse

CONTRACT: Final = Path(__file__).parent.parent / "openapi.yaml"
# Status codes that every URL may answer.
EVERYWHERE: Final = {"404 not_found", "405 method_not_allowed", "400 bad_request"}
PROBLEM: Final = "application/problem+json"


@lru_cache
def document() -> dict[str, Any]:
    """The contract."""
    # The loader in C needs a tenth of the time.
    return dict(yaml.load(CONTRACT.read_text(encoding="utf-8"), yaml.CSafeLoader))


def check(method: str, path: str, response: HttpResponse) -> None:
    """Fail if the contract does not allow this answer for this call."""
    if response.status_code == 304:
        assert response.content == b"", "304 has no body"
        _check_headers(_promised(method, path, response), response)
        return
    answer = response.json()  # type: ignore[attr-defined]  # the test client adds it
    if f"{response.status_code} {answer.get('code')}" in EVERYWHERE:
        validate(answer, {"$ref": "#/components/schemas/Problem"})
        return
    promised = _promised(method, path, response)
    content = promised["content"]
    media_type = response["Content-Type"].split(";")[0]
    assert media_type in content, f"{method} {path} answered {media_type}"
    validate(answer, content[media_type]["schema"])
    if media_type == PROBLEM:
        _check_problem(answer, content[PROBLEM], f"{method} {path}")
    _check_headers(promised, response)


def _promised(method: str, path: str, response: HttpResponse) -> dict[str, Any]:
    operation = _operation(method, path)
    promised = operation["responses"].get(str(response.status_code))
    assert promised is not None, f"the contract does not promise {response.status_code} for {method} {path}"
    return _resolve(promised)


def _check_headers(promised: dict[str, Any], response: HttpResponse) -> None:
    headers = {name: _resolve(header) for name, header in promised.get("headers", {}).items()}
    for name, header in headers.items():
        assert response.has_header(name) or not header.get("required"), f"the contract promises {name}"
        if response.has_header(name):
            value: Any = response[name]
            validate(int(value) if header["schema"]["type"] == "integer" else value, header["schema"])
    for name in ("ETag", "Retry-After"):
        assert name in headers or not response.has_header(name), f"the contract does not promise {name}"


def check_webhook(payload: dict[str, Any], headers: dict[str, str]) -> None:
    """Fail if the contract does not allow the body or headers of a delivered event."""
    promised = document()["webhooks"][payload["type"]]["post"]
    validate(payload, promised["requestBody"]["content"]["application/json"]["schema"])
    for parameter in map(_resolve, promised["parameters"]):
        validate(headers[parameter["name"]], parameter["schema"])
    if payload["type"].startswith("challenge."):
        assert payload["type"] == f"challenge.{payload['data']['status']}"


def as_of_this_version(schema: Any) -> Any:
    """A schema without room for growth: no members but the named ones, no values but those of its enumeration."""
    if isinstance(schema, list):
        return [as_of_this_version(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: as_of_this_version(value) for name, value in schema.items()}
    if isinstance(closed.get("properties"), dict) and closed.get("type") == "object":
        closed.setdefault("additionalProperties", False)
    if "anyOf" in closed:
        closed["anyOf"] = [kind for kind in closed["anyOf"] if kind.get("type") != "string"]
    return closed


def examples(content: dict[str, Any]) -> dict[str, Any]:
    """The values of a content's examples, by name."""
    return {name: _resolve(example)["value"] for name, example in content.get("examples", {}).items()}


def operations() -> dict[str, tuple[str, str]]:
    """Method and path of each call, by its operationId."""
    (server,) = document()["servers"]
    return {
        operation["operationId"]: (method.upper(), server["url"] + template)
        for template, methods in document()["paths"].items()
        for method, operation in methods.items()
        if method != "parameters"
    }


def _check_problem(answer: dict[str, Any], content: dict[str, Any], what: str) -> None:
    """Fail if the contract does not name the problem's code for this call, or names another next call."""
    alike = [example for example in examples(content).values() if example["code"] == answer["code"]]
    assert alike, f"the contract has no example of {answer['code']} for {what}"
    if answer["code"] == "rate_limited":  # the next call is the refused call itself
        assert answer["next"]["operation"] == _operation(*what.split(" ", maxsplit=1))["operationId"]
    else:
        named = [example["next"] and example["next"]["operation"] for example in alike]
        assert (answer["next"] and answer["next"]["operation"]) in named, answer
    if answer["next"]:
        method, address = operations()[answer["next"]["operation"]]
        assert answer["next"]["method"] == method
        assert re.fullmatch(re.sub(r"\\\{\w+\\\}", "[^/?#]+", re.escape(address)), answer["next"]["path"]), answer


def _operation(method: str, path: str) -> dict[str, Any]:
    found = [
        (template.count("/"), methods[method.lower()])
        for template, methods in document()["paths"].items()
        if method.lower() in methods
        and re.fullmatch(re.sub(r"\{[a-z_]+\}", r"[^?]*", template), path.split("?", maxsplit=1)[0])
    ]
    assert found, f"the contract does not know {method} {path}"
    return dict(max(found, key=lambda pair: pair[0])[1])


def _resolve(node: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in node:
        return node
    target: Any = document()
    for part in node["$ref"].removeprefix("#/").split("/"):
        target = target[part]
    return dict(target)


def validate(answer: Any, schema: dict[str, Any]) -> None:
    """Fail if a value does not match a schema of the contract, or has what this version does not name.

    The contract lets answers grow, for the clients of today. This version answers what it names and nothing else.
    """
    _validate(answer, {**as_of_this_version(schema), "components": _closed_components()})


def validate_as_a_client(answer: Any, schema: dict[str, Any]) -> None:
    """Fail if a value does not match a schema of the contract, as a client of today reads the answers of tomorrow."""
    _validate(answer, _with_named_schemas(schema))


def _with_named_schemas(schema: dict[str, Any]) -> dict[str, Any]:
    return {**schema, "components": {"schemas": document()["components"]["schemas"]}}


@lru_cache
def _closed_components() -> dict[str, Any]:
    """The named schemas as of this version, made once for all answers."""
    return {"schemas": as_of_this_version(document()["components"]["schemas"])}


def _validate(answer: Any, schema: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker()).validate(answer)
