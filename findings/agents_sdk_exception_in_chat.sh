#!/usr/bin/env bash
# One would guess that an exception in a bot of the Microsoft 365 Agents SDK for Python ends in the log, and that people in
# the chat read an apology at most.
# Seen: CloudAdapter's own handler sends "Exception caught : " and the exception's text to the conversation, in a room to
# everybody. It is set in the constructor, and no setting turns it off; only another `on_turn_error` replaces it.
# Why it matters here: exceptions name addresses and hosts, and those of some libraries hold whole requests. The example in
# docs/bots/agents_sdk_bot.py sets a handler of its own.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check "microsoft-agents-hosting-aiohttp==1.9.0" "aiohttp==3.14.5"

cat > seen.py <<'PYTHON'
import asyncio
import contextlib
import io
from importlib.metadata import version

import aiohttp
from aiohttp import web
from microsoft_agents.hosting.aiohttp import CloudAdapter
from microsoft_agents.hosting.core import ActivityHandler

PLANTED = "https://internal.example/orders?customer=4711"
sent = []


class Bot(ActivityHandler):
    async def on_message_activity(self, turn_context):
        raise RuntimeError(f"no answer from {PLANTED}")


class Connections:
    """Microsoft's sign-in of the bot is not played."""

    def get_token_provider(self, *_):
        return self

    async def get_access_token(self, *_):
        return "token"


async def receive(request):
    """Take an activity as the channel's connector service does."""
    activity = await request.json()
    sent.append(activity.get("text") or "")
    return web.json_response({"id": "1"})


async def main():
    adapter, bot, app = CloudAdapter(connection_manager=Connections()), Bot(), web.Application()

    async def messages(request):
        return await adapter.process(request, bot)

    app.router.add_post("/api/messages", messages)
    app.router.add_post("/v3/conversations/{tail:.*}", receive)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    address = f"http://127.0.0.1:{runner.addresses[0][1]}"
    activity = {
        "type": "message", "id": "1", "channelId": "msteams", "serviceUrl": address, "text": "Where is my order?",
        "conversation": {"id": "19:room@thread.tacv2", "isGroup": True}, "from": {"id": "29:ada"}, "recipient": {"id": "28:bot"},
    }
    async with aiohttp.ClientSession() as channel:
        await channel.post(f"{address}/api/messages", json=activity)
    await runner.cleanup()


with contextlib.redirect_stdout(io.StringIO()):
    asyncio.run(main())
in_chat = [text for text in sent if PLANTED in text]
print(f"microsoft-agents-hosting-core {version('microsoft-agents-hosting-core')}: in the room: {in_chat}")
raise SystemExit(len(in_chat) < 1)
PYTHON
venv/bin/python -W ignore seen.py 2> /dev/null
