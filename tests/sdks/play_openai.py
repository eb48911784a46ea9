"""OpenAI's Agents SDK: a scripted model by HTTP, which makes up a code whenever the schema asks for one."""

import asyncio
import json
from typing import Any

from agents import OpenAIChatCompletionsModel, Runner, set_tracing_disabled
from aiohttp import web
from chat import Said, orders, play, served
from openai import AsyncOpenAI
from openai_agent import Chat, agent

from acme_orders import code_in
from consumer_delegation import conversation_id_of

said: list[Said] = []


async def complete(request: web.Request) -> web.Response:
    """Answer as a model does: call the tool, then say what it returned."""
    asked = await request.json()
    last = asked["messages"][-1]
    assert "Bearer" not in json.dumps(asked["messages"])
    message: dict[str, Any] = {"role": "assistant", "content": last["content"]}
    if last["role"] == "user":
        (tool,) = asked["tools"]
        parameters = tool["function"]["parameters"]
        arguments = {}
        if "completion_code" in parameters["required"]:
            may_be_null = {"type": "null"} in parameters["properties"]["completion_code"].get("anyOf", [])
            typed = code_in(last["content"])
            # What is required and has no null is made up. A model that has null makes codes up now and then, too.
            makes_up = not may_be_null or "please" in last["content"]
            arguments = {"completion_code": typed or ("123456" if makes_up else None)}
        function = {"name": tool["function"]["name"], "arguments": json.dumps(arguments)}
        message = {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "1", "type": "function", "function": function}],
        }
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return web.json_response(
        {"id": "1", "object": "chat.completion", "created": 0, "model": "scripted", "choices": [choice]}
    )


async def main() -> None:
    set_tracing_disabled(True)
    model = web.Application()
    model.router.add_post("/v1/chat/completions", complete)
    async with served(model) as address:
        client = AsyncOpenAI(base_url=f"{address}/v1", api_key="no-key", max_retries=0)
        acme = agent.clone(model=OpenAIChatCompletionsModel(model="scripted", openai_client=client))
        looked_up = orders()

        async def say(person: str, text: str | None, in_room: bool) -> None:
            chat = Chat(looked_up, conversation_id_of("room", person))
            done = await Runner.run(acme, text or "", context=chat)
            said.append({"where": "private", "text": str(done.final_output)})

        await play(say, said)


asyncio.run(main())
