"""The MCP server: it lists a brand's operations as tools and calls them, for whoever the connection belongs to."""

import json
import logging
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mcp_types as types
from mcp.server.lowlevel import Server
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.shared.exceptions import MCPError

from consumer_delegation import DelegationError, Operation
from consumer_delegation_mcp import elicitation, tools
from consumer_delegation_mcp.chat import NOT_DONE, Chat, in_words
from consumer_delegation_mcp.elicitation import Ability, Answer, Context

NAME = "consumer-delegation"
VERSION = "1.0.0"
# Longer than any challenge lives (an hour at most), so that the product says how one ended.
LONGEST_STATE = 3900.0
# Names of arguments come from a model, and may be as long as a request.
LONGEST_ECHO = 100
INSTRUCTIONS = (
    "The tools act for the person you are talking with, at the brand where they have an account. The first call may ask"
    " them to sign in there: then the result says what to do. Never ask anybody for a password."
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Front:
    """The handlers. `chat_of` finds the conversation of a request's principal."""

    chat_of: Callable[[Context], Chat]

    async def list_tools(self, ctx: Context, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        """List a page of the operations as they are declared now, and on the first one the tool that takes digits."""
        chat, after = self.chat_of(ctx), (params.cursor if params else None) or ""
        listed, next_cursor = tools.page(await self._named(chat), after, chat.settings.locale)
        # Whoever can ask with a form needs no digits from the model.
        if not (after or Ability.of(ctx).form):
            listed = [*listed, tools.CONFIRM_TOOL]
        return types.ListToolsResult(tools=listed, next_cursor=next_cursor)

    async def call_tool(self, ctx: Context, params: types.CallToolRequestParams) -> Answer:
        """Do an operation, or say what the person has to do first. Raises `MCPError` for a tool that is not there."""
        chat, arguments = self.chat_of(ctx), params.arguments or {}
        try:
            if params.name == tools.CONFIRM:
                return await _confirm(chat, arguments)
            operation = (await self._named(chat)).get(params.name)
            if operation is None:
                raise MCPError(types.INVALID_PARAMS, "There is no tool of this name.")
            return await self._do(ctx, chat, operation, params)
        except DelegationError as error:
            logger.warning("a call failed: %s", type(error).__name__)
            return tools.result(in_words(error), is_error=True)

    async def _do(self, ctx: Context, chat: Chat, operation: Operation, params: types.CallToolRequestParams) -> Answer:
        arguments = params.arguments or {}
        unknown = arguments.keys() - operation.input_schema.get("properties", {}).keys()
        if unknown:
            return tools.result(f"This tool takes no {', '.join(sorted(unknown))[:LONGEST_ECHO]}.", is_error=True)
        if not _is_json(arguments):
            return tools.result(
                "NaN and infinite numbers are no JSON. Call this tool with other values.", is_error=True
            )
        return await elicitation.answer(ctx, chat, operation, params)

    async def _named(self, chat: Chat) -> dict[str, Operation]:
        """Read the list at each use: what an admin has switched off is no tool any more."""
        try:
            return tools.named(await chat.delegation.operations())
        except DelegationError as error:
            raise MCPError(types.INTERNAL_ERROR, in_words(error, NOT_DONE)) from error


def _is_json(arguments: dict[str, Any]) -> bool:
    """Models write `NaN`, and the SDK reads it as a number."""
    try:
        json.dumps(arguments, allow_nan=False)
    except ValueError:
        return False
    return True


async def _confirm(chat: Chat, arguments: dict[str, Any]) -> types.CallToolResult:
    digits = arguments.get("digits")
    if not isinstance(digits, str) or not digits.strip() or len(digits) > tools.LONGEST_DIGITS:
        return tools.result("digits: what the person typed, as a text.", is_error=True)
    refusal = (await chat.confirm(digits)).refusal
    return tools.result(refusal or "The sign-in is confirmed. Now call the first tool again.", is_error=bool(refusal))


def server(front: Front, state_keys: Sequence[str] = ()) -> Server[Any]:
    """Make a server of the handlers, for any transport. Instances that share `state_keys` take one another's rounds."""
    made = Server(
        NAME,
        version=VERSION,
        instructions=INSTRUCTIONS,
        on_list_tools=front.list_tools,
        on_call_tool=front.call_tool,
        # No argument of a tool is a header, too. Without this the SDK lists all tools before each call, to find some.
        get_tool_input_schema=lambda _: None,
    )
    keys = list(state_keys) or [secrets.token_hex(32)]
    made.middleware.append(
        RequestStateBoundary(RequestStateSecurity(keys=keys, ttl=LONGEST_STATE), default_audience=NAME)
    )
    return made
