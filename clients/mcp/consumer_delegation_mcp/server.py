"""The MCP server: it lists a brand's operations as tools and calls them, for whoever the connection belongs to."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError

from consumer_delegation import CallResult, DelegationError, Operation
from consumer_delegation_mcp import tools
from consumer_delegation_mcp.chat import Chat, for_the_person, in_words

Context = ServerRequestContext[Any, Any]
NAME = "consumer-delegation"
INSTRUCTIONS = (
    "The tools act for the person you are talking with, at the brand where they have an account. The first call may ask"
    " them to sign in there: then the result says what to do. Never ask anybody for a password."
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Front:
    """The handlers. `chat_of` finds the conversation of a request's principal."""

    chat_of: Callable[[Context], Chat]

    async def list_tools(self, ctx: Context, _params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        """List the operations as they are declared now, and the tool that takes digits from the person's words."""
        chat = self.chat_of(ctx)
        named = await self._named(chat)
        listed = [tools.tool(name, operation, chat.settings.locale) for name, operation in named.items()]
        return types.ListToolsResult(tools=[*listed, tools.CONFIRM_TOOL])

    async def call_tool(self, ctx: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        """Do an operation, or say what the person has to do first. Raises `MCPError` for a tool that is not there."""
        chat, arguments = self.chat_of(ctx), params.arguments or {}
        try:
            if params.name == tools.CONFIRM:
                return await _confirm(chat, arguments)
            operation = (await self._named(chat)).get(params.name)
            if operation is None:
                raise MCPError(types.INVALID_PARAMS, "There is no tool of this name.")
            return await self._do(chat, operation, arguments)
        except DelegationError as error:
            logger.warning("a call failed: %s", type(error).__name__)
            return tools.result(in_words(error), is_error=True)

    async def _do(self, chat: Chat, operation: Operation, arguments: dict[str, Any]) -> types.CallToolResult:
        unknown = arguments.keys() - operation.input_schema.get("properties", {}).keys()
        if unknown:
            return tools.result(f"This tool takes no {', '.join(sorted(unknown))}.", is_error=True)
        answer = await chat.call(operation, arguments)
        if isinstance(answer, CallResult):
            return tools.answer_of(answer.response)
        return tools.result(for_the_person(answer))

    async def _named(self, chat: Chat) -> dict[str, Operation]:
        """Read the list at each use: what an admin has switched off is no tool any more."""
        try:
            return tools.named(await chat.delegation.operations())
        except DelegationError as error:
            raise MCPError(types.INTERNAL_ERROR, in_words(error)) from error


async def _confirm(chat: Chat, arguments: dict[str, Any]) -> types.CallToolResult:
    digits = arguments.get("digits")
    if not isinstance(digits, str) or not digits.strip() or len(digits) > tools.LONGEST_DIGITS:
        return tools.result("digits: what the person typed, as a text.", is_error=True)
    refusal = await chat.confirm(digits)
    return tools.result(refusal or "The sign-in is confirmed. Now call the first tool again.", is_error=bool(refusal))


def server(front: Front) -> Server[Any]:
    """Make a server of the handlers, for any transport."""
    return Server(NAME, instructions=INSTRUCTIONS, on_list_tools=front.list_tools, on_call_tool=front.call_tool)
