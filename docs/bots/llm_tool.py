"""The tool of llm_tool.json, as the host of an agent runs it. What is returned goes to the model; the token never does.

The conversation's id comes from the host, which knows whose chat it is (in a room: `chat_in_room`). It is no parameter
of the tool: a model that was talked into naming another conversation would read another person's orders. A link that
the model gives away is of no use elsewhere: what somebody signs in to there counts only once its code is typed into
this conversation.
"""

import json
from pathlib import Path
from typing import Any

from delegation_client import Delegation, Problem, SignInNeeded, request

DEFINITION: dict[str, Any] = json.loads(Path(__file__).with_suffix(".json").read_text())


def get_my_orders(
    delegation: Delegation, orders_url: str, conversation_id: str, completion_code: str = ""
) -> dict[str, Any]:
    """Return the orders, or what the model has to tell the person."""
    try:
        if completion_code:
            delegation.complete(conversation_id, completion_code)
        orders = delegation.call_as_consumer(
            conversation_id, lambda token: request("GET", orders_url, token), purpose="to look up your order"
        )
    except SignInNeeded as needed:
        then = "" if needed.awaits_code else " Afterwards please type the six digits that you see into this chat."
        return {"status": "sign_in_needed", "tell_the_person": needed.message + then}
    except Problem as problem:
        return {"status": problem.code, "tell_the_person": in_words(problem)}
    if not orders.ok:
        return {"status": "brand_unavailable", "tell_the_person": "Acme is not answering right now. Try again later."}
    return {"status": "ok", "orders": orders.json()["orders"]}


def in_words(problem: Problem) -> str:
    if problem.code == "completion_code_incorrect":
        return f"That is not the code on the page. Tries left: {problem.attempts_left}"
    if problem.code == "conversation_closed":
        return "This chat is over. Please start a new one."
    return "That did not work. Please ask for your orders again."
