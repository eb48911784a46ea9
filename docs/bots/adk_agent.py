"""Google's Agent Development Kit: a tool that pauses until the person has signed in and typed the code.

`request_confirmation` takes the question to the person and their digits to the tool, past the model.
`request_credential` would not fit: it lets ADK itself exchange a code for a token, and keeps that token in the
session's state.

The conversation is `conversation_id` in the session's state. The host sets it from the authenticated chat when it
creates the session; it is no parameter of the tool, so no model can name another.
"""

from google.adk.agents import LlmAgent
from google.adk.models import BaseLlm
from google.adk.tools.tool_context import ToolContext

from acme_orders import Orders

CONVERSATION = "conversation_id"
CODE = "completion_code"
INSTRUCTION = "You are Acme's assistant. Answer from the tool alone, and pass on its words exactly as they are."


def agent_of(orders: Orders, model: str | BaseLlm) -> LlmAgent:
    async def get_my_orders(tool_context: ToolContext) -> dict[str, str]:
        """Look up the orders of the person you are talking with. They may have to sign in first."""
        answer = tool_context.tool_confirmation
        code = str((answer.payload or {}).get(CODE, "")) if answer else typed_in(tool_context)
        reply = await orders.look_up(tool_context.state[CONVERSATION], code)
        if reply.waits and not answer:
            # The chat shows the hint, and answers with the payload: the digits that the person typed.
            tool_context.request_confirmation(hint=reply.text, payload={CODE: ""})
            return {"status": "The person has been asked to sign in."}
        # ADK drops a second confirmation of the same call, so after a wrong code the model says the words.
        return {"tell_the_person": reply.text}

    return LlmAgent(name="acme", model=model, instruction=INSTRUCTION, tools=[get_my_orders])


def typed_in(tool_context: ToolContext) -> str:
    """Return what the person has just typed: the digits come from there, and never from the model."""
    content = tool_context.user_content
    return " ".join(part.text for part in (content.parts or []) if part.text) if content else ""
