"""Slack, with Bolt. Whatever room a person asks in, links, codes and orders go to their private chat with the bot.

It reads BASE, KEY, SLACK_BOT_TOKEN, SLACK_SIGNING_SECRET and PORT. The app subscribes to `app_mention` and
`message.im`; its bot token has `chat:write`, `im:write`, `im:history` and `app_mentions:read`.
"""

import os
from typing import Any

from slack_bolt.async_app import AsyncApp, AsyncSay
from slack_sdk.web.async_client import AsyncWebClient

from acme_orders import IN_PRIVATE, SIGN_IN, Orders, Reply
from consumer_delegation import AsyncDelegation, conversation_id_of

Event = dict[str, Any]


def conversation_of(event: Event, team: str) -> str:
    """Return the id of this person's private chat: never that of a channel or thread, where others read."""
    return conversation_id_of("slack", team, event["user"])


def in_blocks(reply: Reply) -> Event:
    if not reply.link:
        return {"text": reply.text}
    button = {
        "type": "button",
        "text": {"type": "plain_text", "text": "Sign in"},
        "url": reply.link,
        "action_id": "sign_in",
    }
    section = {"type": "section", "text": {"type": "plain_text", "text": SIGN_IN}}
    # Without `unfurl_links` Slack would fetch the link for a preview; that does no harm, but shows nothing either.
    blocks = [section, {"type": "actions", "elements": [button]}]
    return {"text": SIGN_IN, "blocks": blocks, "unfurl_links": False}


def app_of(orders: Orders, client: AsyncWebClient, signing_secret: str) -> AsyncApp:
    app = AsyncApp(client=client, signing_secret=signing_secret)

    @app.event("message")
    async def private_message(event: Event, context: Event, say: AsyncSay) -> None:
        # Edits, joins and the bot's own messages are messages, too. They have a subtype or a bot_id.
        if event.get("channel_type") == "im" and not event.get("subtype") and not event.get("bot_id"):
            reply = await orders.reply(conversation_of(event, context["team_id"]), event.get("text"))
            await say(**in_blocks(reply))

    @app.event("app_mention")
    async def mention(event: Event, context: Event, say: AsyncSay, client: AsyncWebClient) -> None:
        reply = await orders.reply(conversation_of(event, context["team_id"]), event.get("text"))
        private = await client.conversations_open(users=event["user"])
        await client.chat_postMessage(channel=private["channel"]["id"], **in_blocks(reply))
        await say(text=IN_PRIVATE, thread_ts=event.get("thread_ts", event["ts"]))

    @app.action("sign_in")
    async def pressed(ack: Any) -> None:
        await ack()  # a button with an address tells us, too; the browser opens by itself

    return app


if __name__ == "__main__":
    bot = Orders(AsyncDelegation(os.environ["BASE"], os.environ["KEY"]))
    slack = AsyncWebClient(token=os.environ["SLACK_BOT_TOKEN"])
    app_of(bot, slack, os.environ["SLACK_SIGNING_SECRET"]).start(int(os.environ["PORT"]))
