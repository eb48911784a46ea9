"""Run the MCP server on standard input and output: `python -m consumer_delegation_mcp`."""

import asyncio
import logging
import os
import sys

from mcp.server.stdio import stdio_server

from consumer_delegation import AsyncDelegation, DelegationError
from consumer_delegation_mcp.chat import Chat
from consumer_delegation_mcp.server import Front, server
from consumer_delegation_mcp.settings import NotConfigured, Settings, new_conversation_id


async def serve_stdio(settings: Settings) -> None:
    """Serve one client. This process is one person's, and so is its conversation."""
    async with AsyncDelegation(settings.base_url, settings.bot_key) as delegation, stdio_server() as (read, write):
        chat = Chat(delegation, settings, settings.conversation_id or new_conversation_id())
        front = server(Front(lambda _: chat))
        try:
            await front.run(read, write, front.create_initialization_options())
        finally:
            if settings.conversation_id is None:
                await _close(chat)


async def _close(chat: Chat) -> None:
    """Nobody can come back to a conversation whose id only this process knew."""
    try:
        await chat.close()
    except DelegationError as error:
        logging.getLogger(__name__).warning("the conversation was not closed: %s", type(error).__name__)


def main() -> None:
    """Read the settings and serve. What is wrong with them is said on standard error."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    # Each request would be a line with the conversation's id.
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        asyncio.run(serve_stdio(Settings.read(os.environ)))
    except NotConfigured as error:
        sys.exit(f"consumer_delegation_mcp: {error}")


if __name__ == "__main__":
    main()
