"""A whole bot: BASE=... KEY=... ORDERS=... python python_bot.py, then ask where your order is. Needs requests only."""

import os
import re
import secrets
import sys
import threading
import time
from collections.abc import Callable
from urllib.parse import quote

import requests

BASE, KEY, ORDERS = (os.environ[name] for name in ("BASE", "KEY", "ORDERS"))
TROUBLE = "Something is wrong on our side. Please try again in a minute."


def call(method: str, url: str, bearer: str, seen: str = "", **body: object) -> requests.Response:
    def authenticate(request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {bearer}"  # as `auth`: a .netrc file replaces a plain header
        request.headers["If-None-Match"] = seen
        return request

    return requests.request(method, url, json=body or None, auth=authenticate, timeout=30, allow_redirects=False)


class Bot:
    def __init__(self, conversation_id: str, say: Callable[[str], None]) -> None:
        # Quoted: an id that a stranger may choose must not lead to somebody else's conversation.
        self.chat, self.say = f"{BASE}/conversations/{quote(conversation_id, safe='')}", say

    def hear(self, text: str) -> None:
        if re.fullmatch(r"\d{3}[ .-]?\d{3}", text):
            self.take_code(text)
        elif "order" in text.lower():
            self.show_orders()
        elif "bye" in text.lower():
            closed = call("DELETE", self.chat, KEY).status_code in {200, 404}  # 404: there was nothing to forget
            self.say("Goodbye. I have forgotten everything about this chat." if closed else TROUBLE)
        else:
            self.say("Ask me: where is my order?")

    def show_orders(self) -> None:
        answer = call("POST", f"{self.chat}/authorize", KEY, purpose="to look up your order", min_ttl=30)
        if answer.status_code == 200:
            self.ask_brand(answer.json()["access_token"])
        elif answer.status_code == 202:  # no token yet; the message holds the link, or asks for the code
            self.say(answer.json()["message"])
            seen = [answer.json()["challenge_id"], answer.headers["ETag"]]
            threading.Thread(target=self.follow, args=seen, daemon=True).start()
        else:
            over = answer.json()["code"] == "conversation_closed"
            self.say("This chat is over." if over else f"Something is wrong: {answer.json()['code']}")

    def ask_brand(self, access_token: str) -> None:
        orders = call("GET", ORDERS, access_token)
        if orders.status_code == 401:  # taken back at the brand: say so, and ask the consumer once more
            ended = call("DELETE", f"{self.chat}/token?reason=rejected", KEY)
            if ended.ok or ended.status_code == 409:  # 409: it has ended meanwhile, which is what we want
                self.show_orders()
            else:
                self.say(f"Something is wrong: {ended.json()['code']}")
        elif not orders.ok:
            self.say("Acme is not answering right now. Please try again later.")
        else:
            self.say("\n".join(f"{order['item']}: {order['status']}" for order in orders.json()["orders"]))

    def take_code(self, code: str) -> None:
        answer = call("POST", f"{self.chat}/completion", KEY, code=code)
        if answer.ok:
            self.show_orders()
        elif answer.json()["code"] == "completion_code_incorrect":
            self.say(f"That is not the code. Tries left: {answer.json()['attempts_left']}")
        elif answer.status_code >= 500:
            self.say(TROUBLE)
        else:
            self.say("I am not waiting for a code. Ask me where your order is.")

    def follow(self, challenge_id: str, seen: str) -> None:
        """Tell the consumer what became of the link, without being asked."""
        status = "issued"
        while status in {"issued", "started"}:
            answer = call("GET", f"{BASE}/challenges/{challenge_id}?wait=25", KEY, seen=seen)
            if answer.status_code == 200:  # 304: nothing has happened for 25 seconds
                status, seen = answer.json()["status"], answer.headers["ETag"]
            elif answer.status_code not in {304, 429, 503}:
                return  # nothing that waiting mends: the consumer's next question finds out how it stands
            time.sleep(int(answer.headers.get("Retry-After", 0)))  # too many wait, or it is away: come back later
        if status == "confirmation_needed":
            self.say("Now type the six digits of that page here.")
        elif status in {"denied", "cancelled", "expired", "failed"}:
            self.say(f"The sign-in did not happen ({status}). Ask again whenever you like.")


if __name__ == "__main__":
    bot = Bot(f"terminal-{secrets.token_hex(4)}", say=lambda text: print(f"bot: {text}", flush=True))
    for line in sys.stdin:
        bot.hear(line.strip())
