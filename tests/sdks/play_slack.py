"""Slack's Bolt: signed events by HTTP, and the Web API that takes the answers."""

import asyncio
import json
import time
from typing import Any

from aiohttp import web
from chat import Said, orders, play, served
from slack_bolt.request.async_request import AsyncBoltRequest
from slack_bot import app_of
from slack_sdk.signature import SignatureVerifier
from slack_sdk.web.async_client import AsyncWebClient

SECRET = "signing-secret"
said: list[Said] = []


async def call(request: web.Request) -> web.Response:
    """Answer a method of the Web API."""
    asked: dict[str, Any] = dict(await request.post())
    if request.content_type == "application/json":
        asked = await request.json()
    method = request.match_info["method"]
    if method == "chat.postMessage":
        blocks = asked.get("blocks") or []
        blocks = json.loads(blocks) if isinstance(blocks, str) else blocks
        link = next((block["elements"][0]["url"] for block in blocks if block["type"] == "actions"), "")
        where = "private" if asked["channel"].startswith("D") else "room"
        said.append({"where": where, "text": asked["text"], "link": link})
    known = {
        "auth.test": {"user_id": "UBOT", "bot_id": "BBOT", "team_id": "T1", "url": "", "team": "", "user": ""},
        "conversations.open": {"channel": {"id": f"D{asked.get('users')}"}},
        "chat.postMessage": {"ts": "2.0"},
    }
    return web.json_response({"ok": True, **known[method]})


async def main() -> None:
    api = web.Application()
    api.router.add_post("/api/{method}", call)
    async with served(api) as address:
        app = app_of(orders(), AsyncWebClient(token="xoxb-token", base_url=f"{address}/api/"), SECRET)

        async def say(person: str, text: str | None, in_room: bool) -> None:
            user = f"U{person.upper()}"
            event = {
                "type": "message",
                "channel_type": "im",
                "channel": f"D{user}",
                "user": user,
                "text": text,
                "ts": "1.0",
            }
            if in_room:
                event |= {
                    "type": "app_mention",
                    "channel_type": "channel",
                    "channel": "C1",
                    "text": f"<@U012345678> {text}",
                }
            body = json.dumps({"type": "event_callback", "team_id": "T1", "api_app_id": "A1", "event": event})
            sent_at = str(int(time.time()))
            signature = SignatureVerifier(SECRET).generate_signature(timestamp=sent_at, body=body)
            proof = {"x-slack-request-timestamp": [sent_at], "x-slack-signature": [signature]}
            headers = {"content-type": ["application/json"], **proof}
            answer = await app.async_dispatch(AsyncBoltRequest(body=body, headers=headers))
            assert answer.status == 200, answer.body
            # Bolt answers the event first, and lets the listener go on.
            listeners = [task for task in asyncio.all_tasks() if "ListenerRunner" in repr(task.get_coro())]
            await asyncio.gather(*listeners)

        await play(say, said)


asyncio.run(main())
