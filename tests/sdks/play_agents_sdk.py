"""Microsoft 365 Agents SDK: activities by HTTP, and the channel's connector service that takes the answers."""

import asyncio
from typing import Any

import aiohttp
from agents_sdk_bot import OrdersBot
from aiohttp import web
from chat import Said, orders, play, served
from microsoft_agents.hosting.aiohttp import CloudAdapter

said: list[Said] = []


class Connections:
    """Microsoft's sign-in of the bot is not played: every connection has a token."""

    def get_token_provider(self, *_: Any) -> "Connections":
        return self

    get_default_connection = get_connection = get_token_provider

    async def get_access_token(self, *_: Any) -> str:
        return "token-of-the-channel"


async def create(request: web.Request) -> web.Response:
    asked = await request.json()
    assert not asked["isGroup"]
    return web.json_response({"id": f"a:{asked['members'][0]['id']}"}, status=201)


async def receive(request: web.Request) -> web.Response:
    activity, chat = await request.json(), request.match_info["chat"]
    if activity["type"] == "message":
        buttons = [each["content"]["buttons"] for each in activity.get("attachments", [])]
        text = activity.get("text") or activity["attachments"][0]["content"]["text"]
        link = buttons[0][0]["value"] if buttons else ""
        said.append({"where": "private" if chat.startswith("a:") else "room", "text": text, "link": link})
    return web.json_response({"id": "1"})


async def main() -> None:
    adapter = CloudAdapter(connection_manager=Connections())  # type: ignore[arg-type]  # the part of it that is asked for
    bot = OrdersBot(orders(), adapter)
    app = web.Application()

    async def messages(request: web.Request) -> web.StreamResponse:
        return await adapter.process(request, bot) or web.Response()

    app.router.add_post("/api/messages", messages)
    app.router.add_post("/v3/conversations", create)
    app.router.add_post("/v3/conversations/{chat}/activities", receive)
    app.router.add_post("/v3/conversations/{chat}/activities/{replied_to}", receive)
    async with served(app) as address, aiohttp.ClientSession() as channel:

        async def say(person: str, text: str | None, in_room: bool) -> None:
            chat = {"id": f"a:29:{person}", "conversationType": "personal"}
            if in_room:
                chat = {"id": "19:room@thread.tacv2;messageid=1", "conversationType": "channel", "isGroup": True}
                text = f"<at>Acme</at> {text}"
            activity = {
                "type": "message", "id": "1", "channelId": "msteams", "serviceUrl": address, "conversation": chat,
                "from": {"id": f"29:{person}"}, "recipient": {"id": "28:acme"}, "text": text,
            }  # fmt: skip
            async with channel.post(f"{address}/api/messages", json=activity) as answer:
                assert answer.status == 202, await answer.text()

        await play(say, said)


asyncio.run(main())
