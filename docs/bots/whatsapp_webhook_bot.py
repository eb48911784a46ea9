"""In the style of WhatsApp's Cloud API: a webhook that receives messages and answers them. The bot keeps nothing.

A consumer who has signed in comes back with six digits, perhaps after a restart of ours. What they had asked for waits
in the challenge's `context`, and is done then.

The id is the customer's number, which comes back with every chat of theirs, and one day with somebody else's. So the
brand's conversation ids are `reused`: "bye" ends the session, and the next question begins another one. A brand can
also have idle sessions closed.

It reads BASE, KEY, ORDERS, APP_SECRET, VERIFY_TOKEN, SEND_URL, SEND_TOKEN and PORT from the environment.
"""

import hashlib
import hmac
import json
import os
import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from delegation_client import Delegation, Problem, SignInNeeded, request

MOST_BYTES = 1_000_000
CODE = re.compile(r"\s*(\d{3}[ .-]?\d{3})\s*")


def reply_to(delegation: Delegation, number: str, text: str) -> str:
    conversation_id, code = f"whatsapp:{number}", CODE.fullmatch(text)
    try:
        if code:
            blocked = blocked_request(delegation, conversation_id)
            delegation.complete(conversation_id, code[1])
            text = blocked
        if "bye" in text.lower():
            return say_goodbye(delegation, conversation_id)
        if "order" not in text.lower():
            return "Ask me: where is my order?"
        orders = delegation.call_as_consumer(
            conversation_id,
            lambda token: request("GET", os.environ["ORDERS"], token),
            purpose="to look up your order",
            context=text[:1000],
        )
    except SignInNeeded as needed:
        return needed.message
    except Problem as problem:
        return in_words(problem)
    if not orders.ok:
        return "Acme is not answering right now. Please try again later."
    return "\n".join(f"{order['item']}: {order['status']}" for order in orders.json()["orders"])


def say_goodbye(delegation: Delegation, conversation_id: str) -> str:
    try:
        delegation.close(conversation_id)
    except Problem as problem:
        if problem.status != 404:  # 404: there was nothing to forget
            raise
    return "Goodbye. I have forgotten everything about this chat."


def blocked_request(delegation: Delegation, conversation_id: str) -> str:
    """Return the words that led to the sign-in which now waits for its code."""
    for server in delegation.conversation(conversation_id)["authorization_servers"]:
        if server["challenge"]:
            return str(server["challenge"]["context"])
    return ""


def in_words(problem: Problem) -> str:
    if problem.code == "completion_code_incorrect":
        return f"That is not the code. Tries left: {problem.attempts_left}"
    if problem.code == "conversation_closed":
        return "This chat is over."
    if problem.status >= 500:
        return "Something is wrong on our side. Please try again in a minute."
    return "I am not waiting for a code. Ask me where your order is."


def messages_in(notification: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for entry in notification.get("entry", []):
        for change in entry.get("changes", []):
            for message in change["value"].get("messages", []):
                if message["type"] == "text":
                    yield message["from"], message["text"]["body"]


class Webhook(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        """Prove to the platform that this address is ours."""
        query = parse_qs(urlsplit(self.path).query)
        ours = query.get("hub.verify_token") == [os.environ["VERIFY_TOKEN"]]
        self.finish_with(200 if ours else 403, query.get("hub.challenge", [""])[0] if ours else "")

    def do_POST(self) -> None:
        body = self.rfile.read(min(max(int(self.headers.get("Content-Length", 0)), 0), MOST_BYTES))
        expected = hmac.new(os.environ["APP_SECRET"].encode(), body, hashlib.sha256).hexdigest()
        # Without this check anybody could speak, and type codes, in the name of any number.
        if not hmac.compare_digest(self.headers.get("X-Hub-Signature-256", ""), f"sha256={expected}"):
            return self.finish_with(403, "")
        self.finish_with(200, "")  # at once: the platform sends again what is not taken within seconds
        delegation = Delegation(os.environ["BASE"], os.environ["KEY"])
        for number, text in messages_in(json.loads(body)):
            sent = {"messaging_product": "whatsapp", "to": number, "type": "text"}
            words = {"body": reply_to(delegation, number, text)}
            request("POST", os.environ["SEND_URL"], os.environ["SEND_TOKEN"], {**sent, "text": words})
        return None

    def finish_with(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Webhook).serve_forever()
