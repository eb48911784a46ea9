#!/usr/bin/env bash
# One would guess that a tool of Google's ADK may ask its person again, as often as it needs: `request_confirmation` in a
# call that was resumed by a confirmation works like the first one.
# Seen: the second request is dropped without an error or a log line. The first run of the call emits an event with the
# function call adk_request_confirmation; the resumed run, which asks in the same way, emits none, and the turn goes on to
# the model as if the tool were done.
# Why it matters here: a tool that takes six digits through the confirmation has to ask again after a wrong code. In
# docs/bots/adk_agent.py the model says the words then, and the digits are read from the person's next message.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check "google-adk==2.13.0"

cat > seen.py <<'PYTHON'
import asyncio
from importlib.metadata import version

from google.adk.agents import LlmAgent
from google.adk.models import BaseLlm, LlmResponse
from google.adk.runners import InMemoryRunner
from google.adk.tools.tool_context import ToolContext
from google.genai import types

CONFIRMATION = "adk_request_confirmation"
asked = []


def take_code(tool_context: ToolContext) -> dict:
    """Take the code that the person types."""
    tool_context.request_confirmation(hint="Type the code.", payload={"code": ""})
    asked.append(bool(tool_context.tool_confirmation))
    return {"status": "asked"}


class Scripted(BaseLlm):
    """A model that calls the tool, and then says something."""

    async def generate_content_async(self, llm_request, stream=False):
        returned = llm_request.contents[-1].parts[-1].function_response
        part = types.Part(text="done") if returned else types.Part.from_function_call(name="take_code", args={})
        yield LlmResponse(content=types.Content(role="model", parts=[part]))


async def main():
    runner = InMemoryRunner(LlmAgent(name="bot", model=Scripted(model="scripted"), tools=[take_code]), app_name="bot")
    await runner.session_service.create_session(app_name="bot", user_id="ada", session_id="chat")

    async def turn(part):
        message, calls = types.Content(role="user", parts=[part]), []
        async for event in runner.run_async(user_id="ada", session_id="chat", new_message=message):
            calls += [call for call in event.get_function_calls() if call.name == CONFIRMATION]
        return calls

    first = await turn(types.Part(text="Where is my order?"))
    wrong = {"confirmed": True, "payload": {"code": "000000"}}
    answer = types.FunctionResponse(id=first[0].id, name=CONFIRMATION, response=wrong)
    second = await turn(types.Part(function_response=answer))
    print(f"google-adk {version('google-adk')}: the tool asked {len(asked)} times; confirmations shown: {len(first)}, {len(second)}")
    raise SystemExit((asked, len(first), len(second)) != ([False, True], 1, 0))


asyncio.run(main())
PYTHON
venv/bin/python -W ignore seen.py
