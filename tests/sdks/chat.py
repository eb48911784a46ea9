"""What the players share: the chat is standard input and output, one JSON object a line.

A player runs in the environment of its SDK, and puts the platform's wire (HTTP) around the example: what a person says
goes in as the platform would send it, and what the bot sends is caught where the platform would receive it.
"""

import asyncio
import contextlib
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from aiohttp import web

from acme_orders import Orders
from consumer_delegation import AsyncDelegation

Said = dict[str, Any]  # where: "private" or "room"; text; link
Say = Callable[[str, str | None, bool], Awaitable[None]]


def orders() -> Orders:
    return Orders(AsyncDelegation(os.environ["BASE"], os.environ["KEY"]))


@contextlib.asynccontextmanager
async def served(app: web.Application) -> AsyncIterator[str]:
    """Serve on loopback; the address has no slash at its end."""
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def link_in(text: str) -> str:
    found = re.search(r"http://localhost:\d+/c/[\w-]+", text)
    return found[0] if found else ""


async def play(say: Say, said: list[Said]) -> None:
    """Pass on what people say, until the chat ends, and print what the bot said to each."""
    print(json.dumps({"ready": True}), flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        heard = json.loads(line)
        said.clear()
        await say(heard["person"], heard["text"], heard["in_room"])
        print(json.dumps({"said": said}), flush=True)
