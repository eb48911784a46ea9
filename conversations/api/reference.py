"""The contract as rows of a page: what `templates/api/docs.html` shows is said nowhere but in `openapi.yaml`."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, Final

from django.utils.html import format_html_join
from django.utils.safestring import SafeString

from conversations.api.contract import resolved

# What a shell fills in; the page says how each of them is set.
_SHELL_VARIABLES: Final = {"{conversation_id}": "$CHAT", "{challenge_id}": "$CHALLENGE_ID"}
_VOCABULARIES: Final = {
    "AuthorizationStatus": "Where a conversation stands",
    "ChallengeStatus": "How a challenge stands",
    "ChallengeError": "Why a challenge failed: error",
    "AttemptError": "What went wrong in the last attempt: last_error",
    "EndReason": "How a token ended",
    "SamePersonCheck": "Same-person checks",
}
_CODE_OF_CURL: Final = '"{\\"code\\": \\"$CODE\\"}"'

Json = dict[str, Any]


@dataclass(frozen=True)
class Field:
    """A parameter, or a field of a body."""

    name: str
    place: str
    required: bool
    form: str
    description: SafeString


@dataclass(frozen=True)
class Example:
    """One answer as it goes over the wire; of a problem also its code, and the call where it sends the bot."""

    name: str
    summary: SafeString
    text: str
    code: str = ""
    detail: str = ""
    next_call: str = ""


@dataclass(frozen=True)
class Answer:
    """An answer of a call: its status and its examples."""

    status: int
    description: SafeString
    examples: list[Example]


@dataclass(frozen=True)
class OneCall:
    """Everything about one call."""

    operation: str
    method: str
    path: SafeString
    summary: str
    description: SafeString
    scopes: list[str]
    fields: list[Field]
    request: list[Example]
    good: list[Answer]
    problems: list[Answer]
    curl: str
    expected: int


@dataclass(frozen=True)
class Word:
    """A word of a vocabulary and what it means."""

    word: str
    meaning: SafeString


@dataclass(frozen=True)
class Reference:
    """The whole page."""

    title: str
    version: str
    description: list[SafeString]
    base_url: str
    calls: list[OneCall]
    vocabularies: list[tuple[str, str, list[Word]]]
    events: list[str]
    problems: list[tuple[int, Example]]


def reference_of(document: Json) -> Reference:
    """Return the rows of the page."""
    info = document["info"]
    named = document["components"]["examples"]
    problems = [(value["value"]["status"], name) for name, value in named.items() if "code" in value["value"]]
    return Reference(
        title=info["title"],
        version=info["version"],
        description=[_marked(text) for text in info["description"].strip().split("\n\n")],
        base_url=document["servers"][0]["url"],
        calls=list(_calls(document)),
        vocabularies=list(_vocabularies(document)),
        events=list(document["webhooks"]),
        problems=[(status, _example(document, name, named[name])) for status, name in sorted(problems)],
    )


def _calls(document: Json) -> Iterator[OneCall]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if method != "parameters":
                yield _call(document, method.upper(), path, methods.get("parameters", []), operation)


def _call(document: Json, method: str, path: str, shared: list[Json], operation: Json) -> OneCall:
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    answers = [_answer(document, int(status), answer) for status, answer in operation["responses"].items()]
    good = [answer for answer in answers if answer.status < HTTPStatus.BAD_REQUEST]
    return OneCall(
        operation=operation["operationId"],
        method=method,
        path=format_html_join("", "/{}<wbr>", ((part,) for part in path.split("/")[1:])),
        summary=operation["summary"],
        description=_marked(operation.get("description", "")),
        scopes=[scope for requirement in operation["security"] for scope in requirement["botKey"]],
        fields=[*_parameters(document, [*shared, *operation.get("parameters", [])]), *_body_fields(document, body)],
        request=_examples(document, body),
        good=good,
        problems=[answer for answer in answers if answer.status >= HTTPStatus.BAD_REQUEST],
        curl=_curl(method, path, _first_example(document, body)),
        expected=good[0].status,
    )


def _answer(document: Json, status: int, answer: Json) -> Answer:
    answer = resolved(document, answer)
    contents = answer.get("content", {}).values()
    examples = [example for content in contents for example in _examples(document, content)]
    return Answer(status, _marked(answer["description"]), examples)


def _examples(document: Json, content: Json) -> list[Example]:
    return [_example(document, name, example) for name, example in content.get("examples", {}).items()]


def _example(document: Json, name: str, example: Json) -> Example:
    example = resolved(document, example)
    value = example["value"]
    found = Example(name, _marked(example.get("summary", "")), json.dumps(value, indent=2, ensure_ascii=False))
    if "code" not in value or "next" not in value:
        return found
    # Two examples of one code are told apart by what else they hold.
    details = [f"{member} {value[member]}" for member in ("reason", "attempts_left") if member in value]
    next_call = (value["next"] or {}).get("operation", "")
    return replace(found, code=value["code"], detail=", ".join(details), next_call=next_call)


def _first_example(document: Json, body: Json) -> Any:
    examples = body.get("examples", {}).values()
    return next((resolved(document, example)["value"] for example in examples), None)


def _parameters(document: Json, parameters: list[Json]) -> Iterator[Field]:
    for row in parameters:
        parameter = resolved(document, row)
        schema = parameter["schema"]
        description = _marked(parameter.get("description", ""))
        yield Field(parameter["name"], parameter["in"], parameter.get("required", False), _form(schema), description)


def _body_fields(document: Json, body: Json) -> Iterator[Field]:
    schema = resolved(document, body.get("schema", {}))
    for name, row in schema.get("properties", {}).items():
        required = name in schema.get("required", [])
        yield Field(name, "body", required, _form(resolved(document, row)), _marked(row.get("description", "")))


def _form(schema: Json) -> str:
    """Say in words what a schema takes."""
    kinds = schema.get("type", [])
    words = [" or ".join([kinds] if isinstance(kinds, str) else kinds)]
    if "enum" in schema:
        words = [" or ".join(str(value) for value in schema["enum"])]
    if "maxLength" in schema:
        words.append(f"at most {schema['maxLength']} characters")
    if "maximum" in schema:
        words.append(f"{schema['minimum']} to {schema['maximum']}")
    if "default" in schema:
        words.append(f"default {json.dumps(schema['default'])}")
    return ", ".join(words)


def _curl(method: str, path: str, body: Any) -> str:
    for place, variable in _SHELL_VARIABLES.items():
        path = path.replace(place, variable)
    lines = [f'curl -i -X {method} "$BASE{path}"', '-H "Authorization: Bearer $KEY"']
    if body is not None:
        text = _CODE_OF_CURL if "code" in body else f"'{json.dumps(body)}'"
        lines += ['-H "Content-Type: application/json"', f"-d {text}"]
    return " \\\n  ".join(lines)


def _vocabularies(document: Json) -> Iterator[tuple[str, str, list[Word]]]:
    for name, heading in _VOCABULARIES.items():
        meanings = document["components"]["schemas"][name]["x-meanings"]
        yield name, heading, [Word(word, _marked(meaning)) for word, meaning in meanings.items()]


def _marked(text: str) -> SafeString:
    """Return escaped text in which what stands between backticks is code."""
    parts = text.split("`")
    pairs = zip(parts[::2], [*parts[1::2], ""], strict=False)
    return format_html_join("", "{}{}", ((plain, _code(code)) for plain, code in pairs))


def _code(text: str) -> SafeString:
    return format_html_join("", "<code>{}</code>", [(text,)] if text else [])
