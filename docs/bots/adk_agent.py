"""Google's Agent Development Kit: a tool that pauses until the person has signed in and typed the code.

`request_confirmation` takes the question to the person and their digits to the tool, past the model. `request_credential`
would not fit: it lets ADK itself exchange a code for a token, and keeps that token in the session's state.

The conversation is `conversation_id` in the session's state. The host sets it from the authenticated chat when it creates
the session; it is no parameter of the tool, so no model can name another.
"""

from acme_orders import Orders
from google.adk.agents import LlmAgent
from google.adk.models import BaseLlm
from google.adk.tools import ToolContext

CONVERSATION = "conversation_id"
CODE = "completion_code"
INSTRUCTION = "You are Acme's assistant. Answer from the tool alone, and pass on its words exactly as they are."


def agent_of(orders: Orders, model: str | BaseLlm) -> LlmAgent:
    async def get_my_orders(tool_context: ToolContext) -> dict[str, str]:
        """Look up the orders of the person you are talking with. They may have to sign in first."""
        confirmed = tool_context.tool_confirmation
        code = str((confirmed.payload or {}).get(CODE, "")) if confirmed and confirmed.confirmed else ""
        reply = await orders.look_up(tool_context.state[CONVERSATION], code)
        if reply.waits:
            # The chat shows the hint, and answers with the payload: the digits that the person typed.
            tool_context.request_confirmation(hint=reply.text, payload={CODE: ""})
            return {"status": "The person has been asked to sign in."}
        return {"orders": reply.text}

    return LlmAgent(name="acme", model=model, instruction=INSTRUCTION, tools=[get_my_orders])
