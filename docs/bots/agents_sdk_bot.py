"""Microsoft 365 Agents SDK (Teams and others): a sign-in card, and a private chat for whoever asks in a room.

Whoever reads a code that somebody else got could use it for a link that they had forwarded. So nothing but "I have
written to you in private" is said in a room. It reads BASE, KEY, PORT and the settings of the SDK.
"""

import logging
import os

from aiohttp import web
from microsoft_agents.activity import (
    ActionTypes,
    Activity,
    ActivityTypes,
    CardAction,
    ConversationParameters,
    SigninCard,
    load_configuration_from_env,
)
from microsoft_agents.authentication.msal import MsalConnectionManager
from microsoft_agents.hosting.aiohttp import CloudAdapter, jwt_authorization_middleware
from microsoft_agents.hosting.core import ActivityHandler, CardFactory, ClaimsIdentity, TurnContext

from acme_orders import FAULT, IN_PRIVATE, SIGN_IN, Orders, Reply
from consumer_delegation import AsyncDelegation, conversation_id_of


async def apologise(turn_context: TurnContext, error: Exception) -> None:
    """Handle what the bot did not expect. The SDK's own handler writes the exception's text into the chat."""
    logging.getLogger(__name__).error("The turn failed", exc_info=error)
    await turn_context.send_activity(FAULT)


class OrdersBot(ActivityHandler):
    def __init__(self, orders: Orders, adapter: CloudAdapter) -> None:
        self.orders, self.adapter = orders, adapter
        adapter.on_turn_error = apologise

    async def on_message_activity(self, turn_context: TurnContext) -> None:  # type: ignore[override]  # it is one
        asked = turn_context.activity
        if is_private(asked):
            await self.answer(turn_context, asked.text)
            return
        if not (asked.from_property and asked.recipient):
            return  # nobody to write to

        async def answer_in_private(private: TurnContext) -> None:
            await self.answer(private, asked.text)

        person = ConversationParameters(is_group=False, bot=asked.recipient, members=[asked.from_property])
        if asked.conversation.tenant_id:  # Teams needs it; other channels have none
            person.tenant_id = asked.conversation.tenant_id
        identity = turn_context.identity or ClaimsIdentity()
        await self.adapter.create_conversation(
            identity.get_app_id() or "",
            asked.channel_id or "",
            asked.service_url,
            identity.get_token_audience(),
            person,
            answer_in_private,
        )
        await turn_context.send_activity(IN_PRIVATE)

    async def answer(self, private: TurnContext, text: str | None) -> None:
        """Answer in a private chat. Its text is None where somebody sent a picture."""
        chat = private.activity
        # The chat's own id, and not its person's: in some channels a page says who the person is.
        reply = await self.orders.reply(conversation_id_of(chat.channel_id or "", chat.conversation.id), text)
        await private.send_activity(in_activity(reply))


def is_private(activity: Activity) -> bool:
    """Channels set one of the two, or neither if they have no rooms."""
    kind = activity.conversation.conversation_type
    return kind == "personal" if kind else not activity.conversation.is_group


def in_activity(reply: Reply) -> Activity:
    if not reply.link:
        return Activity(type=ActivityTypes.message, text=reply.text)
    button = CardAction(type=ActionTypes.open_url, title="Sign in", value=reply.link)
    card = CardFactory.signin_card(SigninCard(text=SIGN_IN, buttons=[button]))
    return Activity(type=ActivityTypes.message, attachments=[card])


def application(bot: OrdersBot) -> web.Application:
    async def messages(request: web.Request) -> web.StreamResponse:
        return await bot.adapter.process(request, bot) or web.Response()

    app = web.Application(middlewares=[jwt_authorization_middleware])
    app.router.add_post("/api/messages", messages)
    return app


if __name__ == "__main__":
    connections = MsalConnectionManager(**load_configuration_from_env(os.environ))
    delegation = AsyncDelegation(os.environ["BASE"], os.environ["KEY"])
    acme = OrdersBot(Orders(delegation), CloudAdapter(connection_manager=connections))
    served = application(acme)
    served["agent_configuration"] = connections.get_default_connection_configuration()
    web.run_app(served, port=int(os.environ["PORT"]))
