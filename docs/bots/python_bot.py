"""A whole bot: BASE=... KEY=... python python_bot.py, then ask where your order is. Needs our client."""

import os
import re
import secrets
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

from consumer_delegation import (
    ApiResponse,
    CallResult,
    Challenge,
    CodeIncorrect,
    Delegation,
    DelegationError,
    NotFound,
    NothingToConfirm,
    NoToken,
    Problem,
    Remedy,
)
from consumer_delegation.calls import ChallengeWishes

AWAY = "Acme is not answering right now. Please try again later."
IN_VAIN = "This does not work at the moment, and another try does not help. Please tell Acme."
NOT_WAITING = "I am not waiting for a code. Ask me where your order is."
# Nobody should wait for what time does not mend.
WORDS: dict[Remedy, str] = {
    "wait": "Something is wrong on our side. Please try again in a minute.",
    "sign_in": "Please sign in with the link that I have sent. Then ask me again.",
    "code": "Please type the six digits of the sign-in page here.",
    "again": "Please ask me again.",
    "new_chat": "This chat is over.",
    "brand": IN_VAIN,
}


class Bot:
    def __init__(self, delegation: Delegation, chat: str, say: Callable[[str], None]) -> None:
        self.delegation, self.chat, self.say = delegation, chat, say

    def hear(self, text: str) -> None:
        try:
            if re.fullmatch(r"\d{3}[ .-]?\d{3}", text):
                self.confirm(text)
            elif "order" in text.lower():
                self.show_orders()
            elif "bye" in text.lower():
                self.close()
            else:
                self.say("Ask me: where is my order?")
        except CodeIncorrect as wrong:
            self.say(f"That is not the code. Tries left: {wrong.attempts_left}")
        except (NothingToConfirm, NotFound):
            self.say(NOT_WAITING)
        except DelegationError as error:
            at_the_brand = isinstance(error, Problem) and error.code.startswith("api_") and error.remedy == "wait"
            self.say(AWAY if at_the_brand else WORDS[error.remedy])

    def confirm(self, code: str) -> None:
        """Pass the code on to the server that waits for it: a brand may have several."""
        conversation = self.delegation.conversation(self.chat)
        if (waiting := conversation.waits_for_code) is None:
            self.say(NOT_WAITING)
            return
        server = waiting.authorization_server
        self.delegation.complete(self.chat, code, session=conversation.session, authorization_server=server)
        self.show_orders()

    def show_orders(self) -> None:
        """Call the brand. Without a token that it accepts, the answer is the link, and the same call later does it."""
        wishes: ChallengeWishes = {"purpose": "to look up your order"}
        called: CallResult | Challenge
        try:
            called = self.delegation.call(self.chat, "orders.list", challenge=wishes)
        except NoToken as problem:
            if problem.code != "missing_scope" or problem.remedy != "sign_in":
                raise
            called = self.ask_for_more(wishes, problem)
        if isinstance(called, Challenge):
            self.say(called.message or "")  # it holds the link, or asks for the code
            threading.Thread(target=self.follow, args=[called], daemon=True).start()
        else:
            self.tell_orders(called.response)

    def ask_for_more(self, wishes: ChallengeWishes, problem: NoToken) -> Challenge:
        """Send a link for what the consumer left out at the last sign-in. No call does so by itself."""
        conversation = self.delegation.conversation(self.chat)
        wishes["session"] = conversation.session
        if server := conversation.server_of(problem.scope):
            wishes["authorization_server"] = server
        return self.delegation.create_challenge(self.chat, **wishes)

    def tell_orders(self, orders: ApiResponse) -> None:
        if orders.status == 429 or orders.status >= 500:  # the brand's own status
            self.say(AWAY)
        elif not orders.is_success or orders.body_encoding != "json":
            self.say(IN_VAIN)
        else:
            self.say("\n".join(f"{order['item']}: {order['status']}" for order in orders.body["orders"]))

    def close(self) -> None:
        with suppress(NotFound):  # there was nothing to forget
            self.delegation.close(self.chat, self.delegation.conversation(self.chat).session)
        self.say("Goodbye. I have forgotten everything about this chat.")

    def follow(self, challenge: Challenge) -> None:
        """Tell the consumer what became of the link, without being asked."""
        try:
            ended = self.delegation.wait(challenge)
        except DelegationError:
            return  # the consumer's next question finds out how it stands
        if ended.waits_for_code:
            self.say("Now type the six digits of that page here.")
        elif ended.needs_brand:
            self.say(IN_VAIN)
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
