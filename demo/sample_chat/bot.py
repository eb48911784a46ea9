"""The scripted bot. It branches on statuses and codes of the product's API, never on texts."""

import re
from collections.abc import Callable
from functools import wraps
from http import HTTPStatus

import requests

from demo.bot_api import Answer, BotApi, Json
from demo.sample_chat.conversation import Conversation, Message

ASK, SIGN_OUT, BYE = SUGGESTIONS = "Where is my order?", "Sign me out", "Bye"
CODE = re.compile(r"\D*(?:\d\D?){6}\D*")
WHY = "to look up your order"

# Messages for challenges that ended without a token.
ENDS = {
    "denied": "You are not signed in, so I cannot see your orders. Ask again whenever you like.",
    "cancelled": "That link is closed and nothing was shared. Ask again if you want a new one.",
    "expired": "The link has run out of time. Ask again and I will send a new one.",
    "superseded": "There is a newer link.",
    "withdrawn": "That link was taken back. Ask again and I will send a new one.",
    "failed": "That sign-in could not be tied to this chat, so I have dropped it. Ask again for a new link.",
}
ENDS_OF_HANDLES = {
    "other_conversation": "You signed in at a link of another chat, so that sign-in was ended. Ask again here.",
    "handle_unknown": "You came back a little too late. Ask again and I will send a new link.",
}
TROUBLE = "I cannot reach what I need right now. Nothing is lost; please try again in a moment."
ORDERS_WERE_REFUSED = "Acme no longer accepts your sign-in, so I have to ask you once more."
ODD = "Something did not go as I expected ({what}). Please try again in a moment."
WRONG_CODE = "completion_code_incorrect"
STATUSES_WITHOUT_CODE = frozenset({"unchallenged", "rechallenge_required", "challenged", "authorized"})


def say_if_unreachable(step: Callable[..., None]) -> Callable[..., None]:
    """Decorate a step: if a server cannot be reached, say so in the chat. The consumer can ask again."""

    @wraps(step)
    def careful(bot: "Bot", conversation: Conversation, *given: str) -> None:
        try:
            step(bot, conversation, *given)
        except requests.RequestException:
            last = conversation.messages[-1].text if conversation.messages else ""
            if last != TROUBLE:
                conversation.say(TROUBLE)

    return careful


class Bot:
    def __init__(self, api: BotApi) -> None:
        self.api = api

    def greet(self, conversation: Conversation) -> None:
        conversation.say("Hello, I am Acme's assistant. Ask me: where is my order?")

    @say_if_unreachable
    def hear(self, conversation: Conversation, text: str) -> None:
        if not text or conversation.is_closed:
            return
        conversation.messages.append(Message("you", text))
        words = text.lower()
        if CODE.fullmatch(text):
            self.take_code(conversation, "".join(re.findall(r"\d", text)))
        elif "order" in words:
            self.show_orders(conversation)
        elif "bye" in words:
            self.close(conversation)
        elif "sign" in words and "out" in words:
            self.sign_out(conversation)
        else:
            conversation.say(f"I only know a few things: “{ASK}”, “{SIGN_OUT}”, and “{BYE}”.")

    @say_if_unreachable
    def look(self, conversation: Conversation) -> None:
        """Read the challenge, and answer in the chat if its status has changed."""
        if not conversation.challenge_id:
            return
        answer = self.api.read_challenge(conversation.challenge_id)
        status = str(answer.body.get("status", ""))
        if not answer.is_ok:
            conversation.forget_challenge()
            self.odd(conversation, answer)
        elif status == "confirmation_needed" and not conversation.awaits_code:
            self.await_code(conversation, answer)
        elif status in ENDS:
            conversation.forget_challenge()
            conversation.say(ENDS[status])
        elif status == "completed":
            conversation.forget_challenge()
            self.show_orders(conversation)

    def await_code(self, conversation: Conversation, answer: Answer) -> None:
        """Ask for the completion code, unless the chat page will send a handle instead."""
        if answer.body.get("same_person_check") != "chat_page":
            conversation.awaits_code = True
            conversation.say("Thank you. The page you came back to shows six digits: please type them here.")

    def show_orders(self, conversation: Conversation) -> None:
        """Call the brand's API, or send the link of the sign-in that it takes. The same call later does it."""
        wish = {"purpose": WHY, "same_person_check": conversation.same_person_check, "replace": True}
        answer = self.api.call_operation(conversation.id, "orders.list", challenge=wish)
        if answer.status == HTTPStatus.ACCEPTED:
            if conversation.has_shown_orders:
                # The token has ended, or the brand has refused it just now.
                conversation.has_shown_orders = False
                conversation.say(ORDERS_WERE_REFUSED)
            self.send_link(conversation, answer)
        elif not answer.is_ok:
            self.odd(conversation, answer)
        else:
            self.tell_orders(conversation, answer.body["response"])

    def send_link(self, conversation: Conversation, answer: Answer) -> None:
        conversation.challenge_id = str(answer.body["challenge_id"])
        link, is_signed_in = str(answer.body["url"]), answer.body.get("status") == "confirmation_needed"
        conversation.awaits_code = is_signed_in and answer.body.get("same_person_check") != "chat_page"
        conversation.say(str(answer.body["message"]).replace(link, "").strip(), link="" if is_signed_in else link)

    def tell_orders(self, conversation: Conversation, response: Json) -> None:
        """Show what the brand's API said. Its status is not the product's."""
        if response["status"] == HTTPStatus.OK:
            conversation.has_shown_orders = True
            conversation.say("Here is what I found:", orders=tuple(response["body"].get("orders", ())))
        else:
            status = response["status"]
            conversation.say(f"Acme's orders are not there right now (HTTP {status}). Please try again later.")

    def take_code(self, conversation: Conversation, code: str) -> None:
        answer = self.api.complete(conversation.id, code)
        if answer.is_ok:
            conversation.forget_challenge()
            self.show_orders(conversation)
        elif answer.code == WRONG_CODE:
            left = answer.body.get("attempts_left")
            conversation.say(f"That is not the code I expected. Tries left: {left}.")
        elif answer.code in STATUSES_WITHOUT_CODE:
            conversation.forget_challenge()
            conversation.say("I was not waiting for a code. Ask me where your order is, and I will send you a link.")
        else:
            conversation.forget_challenge()
            self.odd(conversation, answer)

    @say_if_unreachable
    def take_handle(self, conversation: Conversation, handle: str) -> None:
        """Send the handle from the chat page's fragment to the product."""
        answer = self.api.complete_with_handle(conversation.id, handle)
        conversation.forget_challenge()
        if answer.is_ok:
            self.show_orders(conversation)
        elif answer.code in ENDS_OF_HANDLES:
            conversation.say(ENDS_OF_HANDLES[answer.code])
        else:
            self.odd(conversation, answer)

    def sign_out(self, conversation: Conversation) -> None:
        answer = self.api.end_token(conversation.id, "signed_out")
        conversation.forget_challenge()
        conversation.has_shown_orders = False
        if answer.is_ok:
            conversation.say("Done. I can no longer see your orders.")
        elif answer.status in {HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.GONE}:
            conversation.say("You were not signed in here, so there is nothing to end.")
        else:
            self.odd(conversation, answer)

    def close(self, conversation: Conversation) -> None:
        answer = self.api.close(conversation.id)
        if answer.status not in {HTTPStatus.OK, HTTPStatus.NOT_FOUND}:
            self.odd(conversation, answer)
            return
        conversation.forget_challenge()
        conversation.is_closed = True
        conversation.say("Goodbye. I have forgotten everything about this chat, and I can no longer act for you.")
        if answer.is_ok:
            conversation.say(receipt_in_words(answer))

    def odd(self, conversation: Conversation, answer: Answer) -> None:
        conversation.say(ODD.format(what=answer.code or f"HTTP {answer.status}"))


def receipt_in_words(answer: Answer) -> str:
    facts = answer.body
    closed_at = str(facts.get("closed_at"))[:19].replace("T", " at ")
    erased = facts.get("access_tokens_erased")
    return f"Your receipt: chat {facts.get('conversation_id')}, closed {closed_at} UTC, access erased: {erased}."
