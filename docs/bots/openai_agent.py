"""OpenAI's Agents SDK: a tool whose results never contain the token.

The conversation comes from the host, which knows whose chat it is, in the run's context. It is no parameter of the
tool: a model that was talked into naming another conversation would read another person's orders.
"""

from dataclasses import dataclass

from agents import Agent, RunContextWrapper, function_tool

from acme_orders import Orders


@dataclass
class Chat:
    """The run's context: one person's chat, with an id from `conversation_id_of`. A room has one for each person."""

    orders: Orders
    conversation_id: str


# The SDK makes every parameter of a strict schema required. Without `None` a model that has no code has to make one up.
@function_tool
async def get_my_orders(run: RunContextWrapper[Chat], completion_code: str | None) -> str:
    """Look up the orders of the person you are talking with.

    They may have to sign in first: then the result holds words for them. Pass those words on exactly as they are, wait
    for their next message, and call this tool again.

    Args:
        run: The chat.
        completion_code: The six digits that the person typed after signing in; null without. Never make them up.
    """
    return (await run.context.orders.look_up(run.context.conversation_id, completion_code)).text


agent = Agent[Chat](
    name="Acme", instructions="You are Acme's assistant. Answer from the tool alone.", tools=[get_my_orders]
)
