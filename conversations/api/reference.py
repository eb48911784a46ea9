"""Serve the OpenAPI document, `openapi.yaml` with this installation's URL, as JSON and as an HTML page."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Final

import msgspec
import yaml
from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.template.loader import render_to_string
from django.utils.cache import get_conditional_response
from django.utils.html import format_html_join
from django.utils.safestring import SafeString

from web.errors import Problem

# Shell variables for path parameters in the curl examples. The page explains how to set them.
_SHELL_VARIABLES: Final = {
    "{conversation_id}": "$CHAT",
    "{challenge_id}": "$CHALLENGE_ID",
    "{operation}": "orders.list",
}
# Enumerations whose values the page explains, with their headings.
_ENUMERATIONS: Final = {
    "AuthorizationStatus": "The status of a conversation",
    "ChallengeStatus": "The status of a challenge",
    "ChallengeError": "Why a challenge failed: error",
    "AuthorizationRequestError": "What went wrong in the last sign-in: last_error",
    "EndReason": "How a token ended",
    "SamePersonCheck": "Same-person checks",
}
# The body of curl examples with a completion code. In double quotes, so that the shell inserts $CODE.
_CURL_BODY_WITH_CODE: Final = '"{\\"code\\": \\"$CODE\\"}"'

Json = dict[str, Any]


@lru_cache(maxsize=1)
def openapi_document(public_base_url: str) -> dict[str, Any]:
    """Load the OpenAPI document. It is cached, so callers must not change it."""
    text = (settings.BASE_DIR / "openapi.yaml").read_text(encoding="utf-8")
    document: dict[str, Any] = yaml.safe_load(text)
    return document | {"servers": [{"url": f"{public_base_url}/api/v1"}]}


def resolved(document: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    """Follow a `$ref` within the document; a node without one is returned unchanged."""
    reference = node.get("$ref")
    if reference is None:
        return node
    target: Any = document
    for part in reference.removeprefix("#/").split("/"):
        target = target[part]
    return dict(target)


@dataclass(frozen=True)
class Field:
    """A parameter or a member of the request body.

    `place` is path, query, header or body. `allowed` says in words which values are allowed.
    """

    name: str
    place: str
    required: bool
    allowed: str
    description: SafeString


@dataclass(frozen=True)
class Example:
    """An example body. If it is a problem document (RFC 9457), also its code and the operation to call next."""

    name: str
    summary: SafeString
    text: str
    code: str = ""
    detail: str = ""
    next_call: str = ""


@dataclass(frozen=True)
class Response:
    """One response of an operation."""

    status: int
    description: SafeString
    examples: list[Example]


@dataclass(frozen=True)
class Operation:
    """One operation of the API.

    `successes`: the responses with a status below 400. `expected`: the first such status.
    """

    operation_id: str
    method: str
    path: SafeString
    summary: str
    description: SafeString
    scopes: list[str]
    fields: list[Field]
    request: list[Example]
    successes: list[Response]
    problems: list[Response]
    curl: str
    expected: int


@dataclass(frozen=True)
class EnumerationValue:
    value: str
    meaning: SafeString


@dataclass(frozen=True)
class Reference:
    """The context of the HTML page."""

    title: str
    version: str
    description: list[SafeString]
    base_url: str
    operations: list[Operation]
    enumerations: list[tuple[str, str, list[EnumerationValue]]]
    events: list[str]
    problems: list[tuple[int, Example]]


def reference_of(document: Json) -> Reference:
    info = document["info"]
    examples = document["components"]["examples"]
    problems = [
        (example["value"]["status"], name) for name, example in examples.items() if _is_problem(example["value"])
    ]
    return Reference(
        title=info["title"],
        version=info["version"],
        description=[_html_with_code(text) for text in info["description"].strip().split("\n\n")],
        base_url=document["servers"][0]["url"],
        operations=list(_operations(document)),
        enumerations=list(_enumerations(document)),
        events=list(document["webhooks"]),
        problems=[(status, _example(document, name, examples[name])) for status, name in sorted(problems)],
    )


def _operations(document: Json) -> Iterator[Operation]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if method != "parameters":
                yield _operation(document, method.upper(), path, methods.get("parameters", []), operation)


def _operation(document: Json, method: str, path: str, shared: list[Json], operation: Json) -> Operation:
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    responses = [_response(document, int(status), response) for status, response in operation["responses"].items()]
    successes = [response for response in responses if response.status < HTTPStatus.BAD_REQUEST]
    return Operation(
        operation_id=operation["operationId"],
        method=method,
        # <wbr> lets the browser break a long path.
        path=format_html_join("", "/{}<wbr>", ((part,) for part in path.split("/")[1:])),
        summary=operation["summary"],
        description=_html_with_code(operation.get("description", "")),
        scopes=[scope for requirement in operation["security"] for scope in requirement["botKey"]],
        fields=[*_parameters(document, [*shared, *operation.get("parameters", [])]), *_body_fields(document, body)],
        request=_examples(document, body),
        successes=successes,
        problems=[response for response in responses if response.status >= HTTPStatus.BAD_REQUEST],
        curl=_curl(method, path, _first_example(document, body)),
        expected=successes[0].status,
    )


def _response(document: Json, status: int, response: Json) -> Response:
    response = resolved(document, response)
    contents = response.get("content", {}).values()
    examples = [example for content in contents for example in _examples(document, content)]
    return Response(status, _html_with_code(response["description"]), examples)


def _examples(document: Json, content: Json) -> list[Example]:
    return [_example(document, name, example) for name, example in content.get("examples", {}).items()]


def _example(document: Json, name: str, example: Json) -> Example:
    example = resolved(document, example)
    value = example["value"]
    plain = Example(name, _html_with_code(example.get("summary", "")), json.dumps(value, indent=2, ensure_ascii=False))
    if not _is_problem(value):
        return plain
    # Two examples with the same code are distinguished by these members.
    details = [f"{member} {value[member]}" for member in ("reason", "attempts_left") if member in value]
    next_call = (value["next"] or {}).get("operation", "")
    return replace(plain, code=value["code"], detail=", ".join(details), next_call=next_call)


def _is_problem(value: Json) -> bool:
    """Whether an example value is a problem document: only those have a code and the next call."""
    return "code" in value and "next" in value


def _first_example(document: Json, body: Json) -> Any:
    examples = body.get("examples", {}).values()
    return next((resolved(document, example)["value"] for example in examples), None)


def _parameters(document: Json, parameters: list[Json]) -> Iterator[Field]:
    for reference in parameters:
        parameter = resolved(document, reference)
        schema = parameter["schema"]
        description = _html_with_code(parameter.get("description", ""))
        yield Field(
            parameter["name"], parameter["in"], parameter.get("required", False), _allowed_values(schema), description
        )


def _body_fields(document: Json, body: Json) -> Iterator[Field]:
    whole = resolved(document, body.get("schema", {}))
    # A body of several shapes: a field is required if it is in each of them.
    shapes = [resolved(document, shape) for shape in whole.get("oneOf", [whole])]
    members = {name: member for shape in shapes for name, member in shape.get("properties", {}).items()}
    for name, member in members.items():
        required = all(name in shape.get("required", []) for shape in shapes)
        yield Field(
            name,
            "body",
            required,
            _allowed_values(resolved(document, member)),
            _html_with_code(member.get("description", "")),
        )


def _allowed_values(schema: Json) -> str:
    """Describe in words which values a schema allows."""
    kinds = schema.get("type", [])
    words = [" or ".join([kinds] if isinstance(kinds, str) else kinds)]
    if "enum" in schema:
        words = [" or ".join(str(value) for value in schema["enum"])]
    if "maxLength" in schema:
        words.append(f"at most {schema['maxLength']} characters")
    if "maximum" in schema:
        words.append(f"{schema['minimum']} to {schema['maximum']}")
    return ", ".join(words)


def _curl(method: str, path: str, body: Any) -> str:
    for place, variable in _SHELL_VARIABLES.items():
        path = path.replace(place, variable)
    lines = [f'curl -i -X {method} "$BASE{path}"', '-H "Authorization: Bearer $KEY"']
    if body is not None:
        text = _CURL_BODY_WITH_CODE if "code" in body else f"'{json.dumps(body)}'"
        lines += ['-H "Content-Type: application/json"', f"-d {text}"]
    return " \\\n  ".join(lines)


def _enumerations(document: Json) -> Iterator[tuple[str, str, list[EnumerationValue]]]:
    for name, heading in _ENUMERATIONS.items():
        meanings = document["components"]["schemas"][name]["x-meanings"]
        yield name, heading, [EnumerationValue(value, _html_with_code(meaning)) for value, meaning in meanings.items()]


def _html_with_code(text: str) -> SafeString:
    """Escape text for HTML. Text between backticks becomes a `code` element."""
    parts = text.split("`")  # plain text and code in turn
    pairs = zip(parts[::2], [*parts[1::2], ""], strict=False)
    return format_html_join("", "{}{}", ((plain, _code(code)) for plain, code in pairs))


def _code(text: str) -> SafeString:
    return format_html_join("", "<code>{}</code>", [(text,)] if text else [])


def openapi_json(request: HttpRequest) -> HttpResponseBase:
    """`GET /api/v1/openapi.json`."""
    return _document(request, _openapi_as_json, "application/json")


def docs(request: HttpRequest) -> HttpResponseBase:
    """`GET /api/docs`."""
    return _document(request, _openapi_as_page, "text/html; charset=utf-8")


def _document(request: HttpRequest, render: Callable[[str], bytes], content_type: str) -> HttpResponseBase:
    if request.method not in {"GET", "HEAD"}:
        allowed = {"Allow": "GET, HEAD"}
        return Problem(405, "method_not_allowed", "This address accepts GET, HEAD.", headers=allowed).response()
    content = render(settings.PUBLIC_BASE_URL)
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {"Cache-Control": "public, max-age=300", "ETag": etag}
    response = HttpResponse(content, content_type=content_type, headers=headers)
    return get_conditional_response(request, etag=etag, response=response) or response


@lru_cache(maxsize=1)
def _openapi_as_json(public_base_url: str) -> bytes:
    return msgspec.json.encode(openapi_document(public_base_url))


@lru_cache(maxsize=1)
def _openapi_as_page(public_base_url: str) -> bytes:
    document = openapi_document(public_base_url)
    return render_to_string("api/docs.html", {"reference": reference_of(document)}).encode()
