"""Google's ADK: a scripted Gemini by HTTP, and a chat that shows a confirmation's hint and answers with the digits."""

import asyncio
import os
from typing import Any

from adk_agent import CODE, CONVERSATION, agent_of
from aiohttp import web
from chat import Said, orders, play, served
from google.adk.runners import InMemoryRunner
from google.genai import types

from acme_orders import code_in
from consumer_delegation import conversation_id_of

CONFIRMATION = "adk_request_confirmation"
said: list[Said] = []
waiting: dict[str, str] = {}  # person: the id of the confirmation that their chat shows


async def generate(request: web.Request) -> web.Response:
    """Answer as a model does: call the tool, then say what it returned."""
    asked = await request.json()
    part = asked["contents"][-1]["parts"][-1]
    answer: dict[str, Any] = {"functionCall": {"name": "get_my_orders", "args": {}}}
    if returned := part.get("functionResponse"):
        answer = {"text": returned["response"].get("tell_the_person") or returned["response"]["status"]}
    content = {"role": "model", "parts": [answer]}
    return web.json_response({"candidates": [{"content": content, "finishReason": "STOP"}]})


async def main() -> None:
    model = web.Application()
    model.router.add_post("/{tail:.*}", generate)
    async with served(model) as address:
        os.environ |= {"GOOGLE_GEMINI_BASE_URL": address, "GOOGLE_API_KEY": "no-key"}
        runner = InMemoryRunner(agent_of(orders(), "gemini-scripted"), app_name="acme")

        async def say(person: str, text: str | None, in_room: bool) -> None:
            sessions, names = runner.session_service, {"app_name": "acme", "user_id": person, "session_id": person}
            if not await sessions.get_session(**names):
                await sessions.create_session(**names, state={CONVERSATION: conversation_id_of("room", person)})
            part = types.Part(text=text or " ")
            if person in waiting:
                answer = {"confirmed": True, "payload": {CODE: code_in(text)}}
                part = types.Part(
                    function_response=types.FunctionResponse(id=waiting.pop(person), name=CONFIRMATION, response=answer)
                )
            hints, texts = [], []
            message = types.Content(role="user", parts=[part])
            async for event in runner.run_async(user_id=person, session_id=person, new_message=message):
                for call in event.get_function_calls():
                    if call.name == CONFIRMATION:
                        waiting[person] = call.id
                        hints.append(call.args["toolConfirmation"]["hint"])
                if event.content and event.is_final_response():
                    texts += [each.text for each in event.content.parts or [] if each.text]
            said.extend({"where": "private", "text": each} for each in hints or texts)

        await play(say, said)


asyncio.run(main())
