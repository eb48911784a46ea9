"""From a brand's operations to the tools of MCP. No tool has an argument for a conversation, a token or a link."""

import json
from collections.abc import Iterable
from typing import Any

import mcp_types as types

from consumer_delegation import ApiResponse, Operation

CONFIRM = "confirm_sign_in"
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

    An operation whose name is taken then gets another `_`: the tools of two operations are never one.
    """
    tools: dict[str, Operation] = {}
    for operation in sorted(operations, key=lambda each: each.name):
        name = operation.name.replace(".", "_")
        while name in tools or name == CONFIRM:
            name += "_"
        tools[name] = operation
    return tools


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
