"""Telegram, with python-telegram-bot. In a group the bot answers in the person's private chat.

It reads BASE, KEY and TELEGRAM_TOKEN. A bot may write to a person only after they have started it, so in a
group it may have to ask for that.
"""

import os

from telegram import InlineKeyboardButton, InlineKeyboardMarkup, Message, Update
from telegram.constants import ChatType
from telegram.error import Forbidden
from telegram.ext import Application, ApplicationBuilder, CallbackContext, MessageHandler, filters

from acme_orders import IN_PRIVATE, ONLY_IN_PRIVATE, SIGN_IN, Orders, Reply
from consumer_delegation import AsyncDelegation, conversation_id_of


class Bot:
    def __init__(self, orders: Orders) -> None:
        self.orders = orders

    async def hear(self, update: Update, context: CallbackContext) -> None:  # type: ignore[type-arg]  # its four defaults
        message = update.effective_message
        # Posts of channels and anonymous admins have no person; `from_user` is then missing, or a stand-in for many.
        if message is None or message.from_user is None or message.sender_chat or message.from_user.is_bot:
            return
        person = str(message.from_user.id)
        in_group = message.chat.type != ChatType.PRIVATE
        if in_group and not is_for(message, context.bot.username):
            return
        reply = await self.orders.reply(conversation_id_of("telegram", person), message.text)
        try:
            # A private chat has its person's id.
            await context.bot.send_message(chat_id=message.from_user.id, **in_telegram(reply))
        except Forbidden:
            await message.reply_text(ONLY_IN_PRIVATE)
            return
        if in_group:
            await message.reply_text(IN_PRIVATE)


def is_for(message: Message, username: str) -> bool:
    """Tell whether a message of a group mentions the bot: with privacy mode off it gets all of them."""
    return any(text.lower() == f"@{username.lower()}" for text in message.parse_entities(["mention"]).values())


def in_telegram(reply: Reply) -> dict[str, object]:
    if not reply.link:
        return {"text": reply.text}
    button = InlineKeyboardButton("Sign in", url=reply.link)
    return {"text": SIGN_IN, "reply_markup": InlineKeyboardMarkup([[button]])}


def add_to(application: Application, orders: Orders) -> None:  # type: ignore[type-arg]  # its six defaults
    application.add_handler(MessageHandler(filters.TEXT & ~filters.COMMAND, Bot(orders).hear))


if __name__ == "__main__":
    telegram = ApplicationBuilder().token(os.environ["TELEGRAM_TOKEN"]).build()
    add_to(telegram, Orders(AsyncDelegation(os.environ["BASE"], os.environ["KEY"])))
    telegram.run_polling()
