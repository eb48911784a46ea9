"""Actions for Rasa: `action_my_orders` needs a sign-in, `action_completion_code` goes on after it.

In the domain: a slot `completion_code`, filled by a regex entity of six digits. The action server reads BASE and
KEY.
"""

import os
from functools import cache
from typing import Any

from rasa_sdk.events import EventType, SlotSet
from rasa_sdk.executor import CollectingDispatcher
from rasa_sdk.interfaces import Action, Tracker
from rasa_sdk.types import DomainDict

from acme_orders import ONLY_IN_PRIVATE, Orders, code_in
from consumer_delegation import AsyncDelegation, conversation_id_of


@cache
def orders() -> Orders:
    return Orders(AsyncDelegation(os.environ["BASE"], os.environ["KEY"]))


def conversation_of(tracker: Tracker) -> str:
    """Return the id of one person's chat: sender ids are unique in their channel."""
    return conversation_id_of(tracker.get_latest_input_channel() or "rasa", tracker.sender_id)


def is_in_room(tracker: Tracker) -> bool:
    """Let your input channel put `is_group` into the metadata of messages that others can read."""
    return bool((tracker.latest_message.get("metadata") or {}).get("is_group"))


class ActionMyOrders(Action):
    def name(self) -> str:
        return "action_my_orders"

    async def run(self, dispatcher: CollectingDispatcher, tracker: Tracker, domain: DomainDict) -> list[EventType]:
        if is_in_room(tracker):
            dispatcher.utter_message(text=ONLY_IN_PRIVATE)
            return []
        reply = await orders().look_up(conversation_of(tracker))
        dispatcher.utter_message(text=reply.text)
        return []


class ActionCompletionCode(Action):
    def name(self) -> str:
        return "action_completion_code"

    async def run(self, dispatcher: CollectingDispatcher, tracker: Tracker, domain: DomainDict) -> list[EventType]:
        """Pass the six digits on, and do what had to wait for them."""
        if is_in_room(tracker):
            dispatcher.utter_message(text=ONLY_IN_PRIVATE)
            return [SlotSet("completion_code", None)]
        # A slot holds what its entity found: a text, a number without its first zeros, or a list of several.
        found = tracker.get_slot("completion_code")
        code = code_in(f"{found:06}" if isinstance(found, int) else first_text(found))
        reply = await orders().reply(conversation_of(tracker), code)
        dispatcher.utter_message(text=reply.text)
        return [SlotSet("completion_code", None)]


def first_text(value: Any) -> str:
    while isinstance(value, list) and value:
        value = value[-1]
    return value if isinstance(value, str) else ""
