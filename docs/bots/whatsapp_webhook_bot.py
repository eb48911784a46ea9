"""WhatsApp's Cloud API: a webhook that receives messages and answers them. The bot keeps nothing.

Meta withholds the number (`from`) of people who have chosen a username. `from_user_id`, their business-scoped id, stays
the same, so it names the conversation. An answer to it goes into `recipient`: in `to` it would be taken for a number,
and be lost without an error.

The same person comes back with the same id. So the brand's conversation ids are `reused`: "bye" ends the session, and
the next question begins another one. A brand can also have idle sessions closed.

It reads BASE, KEY, APP_SECRET, VERIFY_TOKEN, SEND_URL, SEND_TOKEN and PORT from the environment.
"""

import asyncio
import hashlib
import hmac
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

from acme_orders import Orders
from consumer_delegation import AsyncDelegation, conversation_id_of

MOST_BYTES = 1_000_000


@dataclass(frozen=True)
class Message:
    user_id: str  # a business-scoped id, or a number
    number: str
    text: str

    @property
    def conversation_id(self) -> str:
        return conversation_id_of("whatsapp", self.user_id or self.number)

    @property
    def recipient(self) -> dict[str, str]:
        return {"to": self.number} if self.number else {"recipient": self.user_id}


def messages_in(notification: dict[str, Any]) -> Iterator[Message]:
    for entry in notification.get("entry", []):
        for change in entry.get("changes", []):
            for message in change.get("value", {}).get("messages", []):
                user_id, number = message.get("from_user_id", ""), message.get("from", "")
                if message.get("type") == "text" and (user_id or number):
                    yield Message(user_id, number, message["text"]["body"])


async def answer(messages: list[Message]) -> None:
    headers = {"Authorization": f"Bearer {os.environ['SEND_TOKEN']}"}
    async with AsyncDelegation(os.environ["BASE"], os.environ["KEY"]) as delegation, httpx.AsyncClient() as graph:
        orders = Orders(delegation)
        for message in messages:
            reply = await orders.reply(message.conversation_id, message.text)
            sent = {"messaging_product": "whatsapp", "recipient_type": "individual", "type": "text"}
            body = {**sent, **message.recipient, "text": {"body": reply.text}}
            (await graph.post(os.environ["SEND_URL"], headers=headers, json=body)).raise_for_status()


class Webhook(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        """Prove to the platform that this address is ours."""
        query = parse_qs(urlsplit(self.path).query)
        ours = query.get("hub.verify_token") == [os.environ["VERIFY_TOKEN"]]
        self.finish_with(200 if ours else 403, query.get("hub.challenge", [""])[0] if ours else "")

    def do_POST(self) -> None:
        body = self.rfile.read(min(max(int(self.headers.get("Content-Length", 0)), 0), MOST_BYTES))
        expected = f"sha256={hmac.new(os.environ['APP_SECRET'].encode(), body, hashlib.sha256).hexdigest()}"
        # Without this check anybody could speak, and type codes, in the name of any number.
        if not hmac.compare_digest(self.headers.get("X-Hub-Signature-256", "").encode(), expected.encode()):
            return self.finish_with(403, "")
        self.finish_with(200, "")  # at once: the platform sends again what is not taken within seconds
        return asyncio.run(answer(list(messages_in(json.loads(body)))))

    def finish_with(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Webhook).serve_forever()
