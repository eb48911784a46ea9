"""In the style of Bot Framework and the Agents SDK: a handler of messages, a sign-in card, a prompt for the code.

No SDK is needed to read or run it; `TurnContext` is the part of theirs that it uses.

In a room with several people, each of them has a conversation of their own (`chat_in_room`). Links, codes and orders go
to the person alone: whoever reads a code that somebody else got could use it for a link that they had forwarded.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from delegation_client import Delegation, Problem, SignInNeeded, chat_in_room, request

SIX_DIGITS = re.compile(r"\s*(\d{3}[ .-]?\d{3})\s*")
Activity = dict[str, Any]


class TurnContext(Protocol):
    activity: Any  # .text, .conversation.id, .conversation.is_group, .from_property.id

    async def send_activity(self, activity: Activity) -> object: ...


# Opens the person's own chat with the bot, and sends it there: `create_conversation` in the SDKs.
SendPrivately = Callable[[TurnContext, Activity], Awaitable[object]]


class OrdersBot:
    def __init__(self, delegation: Delegation, orders_url: str, send_privately: SendPrivately) -> None:
        self.delegation, self.orders_url, self.send_privately = delegation, orders_url, send_privately
        self.asked_in: dict[str, str] = {}  # person: the chat in a room whose code they type in private

    async def on_message_activity(self, turn: TurnContext) -> object:
        conversation_id, text = self.conversation_of(turn), turn.activity.text
        code, in_room = SIX_DIGITS.fullmatch(text), turn.activity.conversation.is_group
        if code and in_room:
            return await turn.send_activity(
                message("Please type the code into our private chat, where nobody reads it.")
            )
        # The calls block, so they get a thread: one slow brand must not hold up every conversation.
        if code:
            reply = await asyncio.to_thread(self.continue_with_code, conversation_id, code[1])
        elif "order" in text.lower():
            reply = await asyncio.to_thread(self.begin, conversation_id)
        else:
            reply = message("Ask me: where is my order?")
        if in_room:
            await turn.send_activity(message("I have written to you in private."))
            return await self.send_privately(turn, reply)
        return await turn.send_activity(reply)

    def conversation_of(self, turn: TurnContext) -> str:
        """Return the id of this person's conversation: never that of a room."""
        person, chat = turn.activity.from_property.id, turn.activity.conversation
        if not chat.is_group:
            return self.asked_in.get(person, str(chat.id))
        self.asked_in[person] = chat_in_room(chat.id, person)
        return self.asked_in[person]

    async def on_end_of_conversation_activity(self, turn: TurnContext) -> None:
        """Erase what was granted: it belongs to this conversation and ends with it."""
        await asyncio.to_thread(self.delegation.close, self.conversation_of(turn))
        self.asked_in.pop(turn.activity.from_property.id, None)

    def begin(self, conversation_id: str) -> Activity:
        try:
            orders = self.delegation.call_as_consumer(
                conversation_id, lambda token: request("GET", self.orders_url, token), purpose="to look up your order"
            )
        except SignInNeeded as needed:
            return message(needed.message) if needed.awaits_code else sign_in_card(needed)
        except Problem as problem:
            return message(in_words(problem))
        if not orders.ok:
            return message("Acme is not answering right now. Please try again later.")
        return message("\n".join(f"{order['item']}: {order['status']}" for order in orders.json()["orders"]))

    def continue_with_code(self, conversation_id: str, code: str) -> Activity:
        """Take what the SDKs call the magic code, and go on with what was asked before it."""
        try:
            self.delegation.complete(conversation_id, code)
        except Problem as problem:
            return message(in_words(problem))
        return self.begin(conversation_id)


def in_words(problem: Problem) -> str:
    if problem.code == "completion_code_incorrect":
        return f"That is not the code. Tries left: {problem.attempts_left}"
    if problem.code == "conversation_closed":
        return "This chat is over. Please start a new one."
    if problem.code in {"unchallenged", "challenged", "rechallenge_required", "authorized"}:
        return "I am not waiting for a code. Ask me where your order is."
    return f"Something is wrong: {problem.code}"


def message(text: str) -> Activity:
    return {"type": "message", "text": text}


def sign_in_card(needed: SignInNeeded) -> Activity:
    """The button opens the system browser: never an embedded web view (RFC 8252 section 8.12)."""
    button = {"type": "openUrl", "title": "Sign in", "value": needed.url}
    content = {"text": "Sign in, then type the six digits here that you will see.", "buttons": [button]}
    return {
        "type": "message",
        "attachments": [{"contentType": "application/vnd.microsoft.card.signin", "content": content}],
    }
