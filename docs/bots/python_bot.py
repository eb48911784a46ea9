"""A whole bot: BASE=... KEY=... python python_bot.py, then ask where your order is. Needs our client."""

import os
import re
import secrets
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

import httpx

from consumer_delegation import (
    ApiResponse,
    Challenge,
    CodeIncorrect,
    ConversationClosed,
    Delegation,
    DelegationError,
    NotFound,
    NothingToConfirm,
    Problem,
)

TROUBLE = "Something is wrong on our side. Please try again in a minute."


class Bot:
    def __init__(self, delegation: Delegation, chat: str, say: Callable[[str], None]) -> None:
        self.delegation, self.chat, self.say = delegation, chat, say

    def hear(self, text: str) -> None:
        try:
            if re.fullmatch(r"\d{3}[ .-]?\d{3}", text):
                self.delegation.complete(self.chat, text)
                self.show_orders()
            elif "order" in text.lower():
                self.show_orders()
            elif "bye" in text.lower():
                self.close()
            else:
                self.say("Ask me: where is my order?")
        except CodeIncorrect as wrong:
            self.say(f"That is not the code. Tries left: {wrong.attempts_left}")
        except (NothingToConfirm, NotFound):
            self.say("I am not waiting for a code. Ask me where your order is.")
        except ConversationClosed:
            self.say("This chat is over.")
        except Problem as problem:
            self.say(f"Something is wrong: {problem.code}" if problem.code else TROUBLE)
        except (DelegationError, httpx.TransportError):
            self.say(TROUBLE)

    def show_orders(self) -> None:
        """Call the brand. Without a token that it accepts, the answer is the link, and the same call later does it."""
        called = self.delegation.call(self.chat, "orders.list", challenge={"purpose": "to look up your order"})
        if isinstance(called, Challenge):
            self.say(called.message or "")  # it holds the link, or asks for the code
            threading.Thread(target=self.follow, args=[called], daemon=True).start()
        else:
            self.tell_orders(called.response)

    def tell_orders(self, orders: ApiResponse) -> None:
        if not orders.is_success:  # the brand's own status
            self.say("Acme is not answering right now. Please try again later.")
        else:
            self.say("\n".join(f"{order['item']}: {order['status']}" for order in orders.body["orders"]))

    def close(self) -> None:
        with suppress(NotFound):  # there was nothing to forget
            self.delegation.close(self.chat)
        self.say("Goodbye. I have forgotten everything about this chat.")

    def follow(self, challenge: Challenge) -> None:
        """Tell the consumer what became of the link, without being asked."""
        try:
            ended = self.delegation.wait(challenge)
        except DelegationError:
            return  # the consumer's next question finds out how it stands
        if ended.waits_for_code:
            self.say("Now type the six digits of that page here.")
        elif ended.status in {"denied", "cancelled", "expired", "failed"}:
            self.say(f"The sign-in did not happen ({ended.status}). Ask again whenever you like.")


if __name__ == "__main__":
    with Delegation(os.environ["BASE"], os.environ["KEY"]) as client:
        bot = Bot(
            client,
            f"terminal-{secrets.token_hex(4)}",
            lambda text: print(f"bot: {text}", flush=True),
        )
        for line in sys.stdin:
            bot.hear(line.strip())
