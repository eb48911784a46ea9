"""Run the MCP server: `python -m consumer_delegation_mcp`. On standard input and output, or where it is to listen."""

import asyncio
import logging
import os
import sys

import uvicorn
from mcp.server.stdio import stdio_server

from consumer_delegation import AsyncDelegation, DelegationError
from consumer_delegation_mcp.chat import Chat
from consumer_delegation_mcp.http import app, conversation_of_principal
from consumer_delegation_mcp.server import Front, server
from consumer_delegation_mcp.settings import HttpSettings, NotConfigured, Settings, new_conversation_id


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


async def serve_http(settings: Settings, where: HttpSettings) -> None:
    """Serve everybody who is authorized; without authorization, whoever uses this machine, as one person."""
    async with AsyncDelegation(settings.base_url, settings.bot_key) as delegation:
        of_this_process = settings.conversation_id or new_conversation_id()
        own = Chat(delegation, settings, of_this_process)
        front = server(
            Front(lambda _: Chat(delegation, settings, conversation_of_principal() or of_this_process)),
            where.state_keys,
        )
        config = uvicorn.Config(
            app(front, where), where.host, where.port, access_log=False, log_config=None, server_header=False
        )
        try:
            await uvicorn.Server(config).serve()
        finally:
            if settings.conversation_id is None and not where.issuer:
                await _close(own)


async def _close(chat: Chat) -> None:
    """Nobody can come back to a conversation whose id only this process knew."""
    try:
        await chat.close()
    except DelegationError as error:
        logging.getLogger(__name__).warning("the conversation was not closed: %s", type(error).__name__)


def main() -> None:
    """Read the settings and serve. What is wrong with them is said on standard error."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    # Each request would be a line with the conversation's id, and each MCP session one with its own.
    for name in ("httpx", "httpcore", "mcp"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        settings, where = Settings.read(os.environ), HttpSettings.read(os.environ)
        asyncio.run(serve_stdio(settings) if where is None else serve_http(settings, where))
    except NotConfigured as error:
        sys.exit(f"consumer_delegation_mcp: {error}")


if __name__ == "__main__":
    main()
