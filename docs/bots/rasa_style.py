"""In the style of Rasa: `action_my_orders` needs a sign-in, `action_completion_code` goes on after it.

No Rasa is needed to read or run it: an event is a dictionary, and `Dispatcher` and `Tracker` are the parts of rasa_sdk
that it uses. In rasa_sdk the classes derive from `Action`. In the domain: a slot `blocked_action`, and a slot
`completion_code` which is filled by a regex entity of six digits.
"""

import os
from typing import Any, Protocol

from delegation_client import Delegation, Problem, SignInNeeded, request

Event = dict[str, Any]


class Dispatcher(Protocol):
    def utter_message(self, text: str, **more: Any) -> None: ...


class Tracker(Protocol):
    # The conversation: one person's. In a channel with rooms, let the input channel make it with `chat_in_room`.
    sender_id: str

    def get_slot(self, key: str) -> Any: ...


def delegation() -> Delegation:
    return Delegation(os.environ["BASE"], os.environ["KEY"])


def slot(name: str, value: str | None) -> Event:
    return {"event": "slot", "timestamp": None, "name": name, "value": value}


def follow_up(action: str) -> Event:
    return {"event": "followup", "timestamp": None, "name": action}


class ActionMyOrders:
    def name(self) -> str:
        return "action_my_orders"

    def run(self, dispatcher: Dispatcher, tracker: Tracker, domain: dict[str, Any]) -> list[Event]:
        try:
            orders = delegation().call_as_consumer(
                tracker.sender_id,
                lambda token: request("GET", os.environ["ORDERS"], token),
                purpose="to look up your order",
            )
        except SignInNeeded as needed:
            dispatcher.utter_message(text=needed.message)
            return [slot("blocked_action", self.name())]
        except Problem as problem:
            dispatcher.utter_message(text=in_words(problem))
            return [slot("blocked_action", None)]
        if orders.ok:
            for order in orders.json()["orders"]:
                dispatcher.utter_message(text=f"{order['item']}: {order['status']}")
        else:
            dispatcher.utter_message(text="Acme is not answering right now. Please try again later.")
        return [slot("blocked_action", None)]


class ActionCompletionCode:
    def name(self) -> str:
        return "action_completion_code"

    def run(self, dispatcher: Dispatcher, tracker: Tracker, domain: dict[str, Any]) -> list[Event]:
        """Pass the six digits on, and let the action run that had to wait for them."""
        try:
            delegation().complete(tracker.sender_id, tracker.get_slot("completion_code"))
        except Problem as problem:
            dispatcher.utter_message(text=in_words(problem))
            return [slot("completion_code", None)]
        return [slot("completion_code", None), follow_up(tracker.get_slot("blocked_action") or "action_my_orders")]


def in_words(problem: Problem) -> str:
    if problem.code == "completion_code_incorrect":
        return f"That is not the code. Tries left: {problem.attempts_left}"
    if problem.code == "conversation_closed":
        return "This chat is over. Please start a new one."
    return f"I cannot go on with that ({problem.code}). Ask me where your order is."
