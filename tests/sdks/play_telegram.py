"""python-telegram-bot: updates as Telegram's, and the Bot API that takes the answers."""

import asyncio
import itertools
import json
from typing import Any

from aiohttp import web
from chat import Said, orders, play, served
from telegram import Update
from telegram.ext import ApplicationBuilder
from telegram_bot import add_to

ROOM = -100200
numbers = itertools.count(1)
said: list[Said] = []


async def call(request: web.Request) -> web.Response:
    """Answer a method of the Bot API."""
    asked = dict(await request.post())
    bot = {"id": 42, "is_bot": True, "first_name": "Acme", "username": "acme_123456_bot"}
    if request.match_info["method"] == "getMe":
        return web.json_response({"ok": True, "result": bot})
    markup = json.loads(str(asked.get("reply_markup", "{}")))
    link = markup["inline_keyboard"][0][0]["url"] if markup else ""
    said.append(
        {"where": "room" if int(str(asked["chat_id"])) == ROOM else "private", "text": asked["text"], "link": link}
    )
    sent = {"message_id": next(numbers), "date": 0, "chat": {"id": int(str(asked["chat_id"])), "type": "private"}}
    return web.json_response({"ok": True, "result": sent})


def update(person: str, text: str | None, in_room: bool) -> dict[str, Any]:
    number = int.from_bytes(person.encode()) % 10**9
    user = {"id": number, "is_bot": False, "first_name": person}
    chat: dict[str, Any] = {"id": number, "type": "private"}
    message: dict[str, Any] = {"message_id": next(numbers), "date": 0, "from": user, "chat": chat}
    if in_room:
        mention = "@acme_123456_bot"
        message |= {"chat": {"id": ROOM, "type": "supergroup", "title": "Room"}, "text": f"{mention} {text}"}
        message["entities"] = [{"type": "mention", "offset": 0, "length": len(mention)}]
    elif text is not None:
        message["text"] = text
    return {"update_id": next(numbers), "message": message}


async def main() -> None:
    api = web.Application()
    api.router.add_post("/{token}/{method}", call)
    async with served(api) as address:
        application = ApplicationBuilder().token("42:token").base_url(f"{address}/bot").build()
        add_to(application, orders())
        async with application:

            async def say(person: str, text: str | None, in_room: bool) -> None:
                await application.process_update(Update.de_json(update(person, text, in_room), application.bot))

            await play(say, said)


asyncio.run(main())
