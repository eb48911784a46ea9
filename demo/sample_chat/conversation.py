"""The state of the chats, in memory."""

import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

MOST_CONVERSATIONS = 1000


@dataclass(frozen=True)
class Message:
    author: str
    text: str
    link: str = ""
    orders: tuple[dict[str, Any], ...] = ()


@dataclass
class Conversation:
    """One person's chat: a page of their own.

    `key` is part of the page's URL; `id` is sent to the product. Neither can be computed from the other.
    """

    key: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    id: str = field(default_factory=lambda: f"sample-chat-{secrets.token_hex(6)}")
    messages: list[Message] = field(default_factory=list)
    prefers_code: bool = False
    has_script: bool = False
    challenge_id: str = ""
    awaits_code: bool = False
    has_shown_orders: bool = False
    is_closed: bool = False
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    def say(self, text: str, link: str = "", orders: tuple[dict[str, Any], ...] = ()) -> None:
        self.messages.append(Message("bot", text, link, orders))

    @property
    def same_person_check(self) -> str:
        """`chat_page` if the page has JavaScript, which must read the fragment; else a code to type."""
        return "chat_page" if self.has_script and not self.prefers_code else "completion_code"

    def forget_challenge(self) -> None:
        self.challenge_id, self.awaits_code = "", False


class Conversations:
    def __init__(self) -> None:
        self._by_key: OrderedDict[str, Conversation] = OrderedDict()
        self._lock = threading.Lock()

    def begin(self, *, prefers_code: bool = False) -> Conversation:
        conversation = Conversation(prefers_code=prefers_code)
        with self._lock:
            self._by_key[conversation.key] = conversation
            while len(self._by_key) > MOST_CONVERSATIONS:
                self._by_key.popitem(last=False)
        return conversation

    def find(self, key: str) -> Conversation | None:
        with self._lock:
            return self._by_key.get(key)
