"""From a brand's operations to the tools of MCP. No tool has an argument for a conversation, a token or a link."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any

import mcp_types as types

from consumer_delegation import ApiResponse, Operation

CONFIRM = "confirm_sign_in"
# OpenAI's API takes no longer one.
LONGEST_NAME = 64
# One page of tools.
MOST_LISTED = 100
MOST_LISTED_BYTES = 1_000_000
# As long as a code of the API may be.
LONGEST_DIGITS = 64
_DIGITS = {"type": "string", "description": "The six digits that the person typed. Never make them up."}
CONFIRM_TOOL = types.Tool(
    name=CONFIRM,
    description=(
        "Confirm a sign-in with the six digits that the person typed into this chat after signing in. Call it only when"
        " the person has typed them; then call the first tool again."
    ),
    input_schema={
        "type": "object",
        "properties": {"digits": _DIGITS},
        "required": ["digits"],
        "additionalProperties": False,
    },
)


def named(operations: Iterable[Operation]) -> dict[str, Operation]:
    """Give each operation the name of a tool. Many models' APIs refuse a full stop, so it becomes `_`.

    They also refuse more than 64 characters. Where that is not enough, or two operations would have one name, each of
    them gets a piece of its own name's digest. So a name that a client has listed never becomes that of the other
    operation when one of the two is switched off.
    """
    found = list(operations)
    plain = Counter(operation.name.replace(".", "_") for operation in found)
    return {_name(operation.name, plain): operation for operation in found}


def _name(operation: str, plain: Mapping[str, int]) -> str:
    name = operation.replace(".", "_")
    if plain[name] == 1 and len(name) <= LONGEST_NAME and name != CONFIRM:
        return name
    digest = sha256(operation.encode()).hexdigest()[:12]
    return f"{name[: LONGEST_NAME - 13]}_{digest}"


def page(named: Mapping[str, Operation], after: str, locale: str) -> tuple[list[types.Tool], str | None]:
    """Describe the tools that come after this name, as many as one answer should have, and return the last one's name.

    It is None if no tool is left. A name is a good cursor: tools may come and go between two pages.
    """
    described: list[types.Tool] = []
    size = 0
    for name in sorted(name for name in named if name > after):
        one = tool(name, named[name], locale)
        size += len(one.model_dump_json())
        if described and (len(described) == MOST_LISTED or size > MOST_LISTED_BYTES):
            return described, described[-1].name
        described.append(one)
    return described, None


def tool(name: str, operation: Operation, locale: str) -> types.Tool:
    """Describe an operation to clients and models."""
    return types.Tool(
        name=name,
        description=_text(operation.description, locale) or operation.name,
        input_schema=operation.input_schema,
        annotations=types.ToolAnnotations(read_only_hint=operation.read_only, open_world_hint=True),
    )


def answer_of(response: ApiResponse) -> types.CallToolResult:
    """Hand on what the brand's API said: as JSON, as text, or in base64."""
    body = response.body
    text = body if isinstance(body, str) and response.body_encoding != "json" else json.dumps(body, ensure_ascii=False)
    if response.body_encoding == "none":
        text = ""
    said = f"The brand's API answered {response.status}." if not response.is_success or not text else ""
    if response.body_encoding == "base64":
        said += " Its answer in base64:"
    return result("\n".join(part for part in (said.strip(), text) if part), is_error=not response.is_success)


def result(text: str, *, is_error: bool = False) -> types.CallToolResult:
    """Make a tool's result of a text."""
    return types.CallToolResult(content=[types.TextContent(text=text)], is_error=is_error)


def _text(description: Any, locale: str) -> str:
    """Choose the text in the chat's language, else in English, else the first one."""
    if isinstance(description, dict):
        return str(description.get(locale) or description.get("en") or next(iter(description.values()), ""))
    return str(description or "")
