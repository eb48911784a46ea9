"""rasa-sdk: its executor runs the actions as its server does; this plays Rasa, which keeps the slots."""

import asyncio
import re
from typing import Any

import rasa_actions
from chat import Said, play
from rasa_sdk.executor import ActionExecutor

slots: dict[str, Any] = {}
said: list[Said] = []


async def main() -> None:
    executor = ActionExecutor()
    executor.register_package(rasa_actions.__name__)

    async def say(person: str, text: str | None, in_room: bool) -> None:
        code = re.search(r"\d{3}[ .-]?\d{3}", text or "")
        if code:
            slots["completion_code"] = [code[0]]  # as a list slot, or an entity with several values
        action = "action_completion_code" if code else "action_my_orders"
        latest = {"text": text, "intent": {}, "entities": [], "metadata": {"is_group": in_room}}
        tracker = {
            "sender_id": person, "slots": slots, "latest_message": latest, "events": [], "paused": False,
            "latest_input_channel": "slack", "followup_action": None, "active_loop": {}, "latest_action_name": None,
        }  # fmt: skip
        done = await executor.run({"next_action": action, "tracker": tracker, "domain": {}, "version": "3.0"})
        for event in done.model_dump()["events"] if hasattr(done, "model_dump") else done["events"]:
            if event["event"] == "slot":
                slots[event["name"]] = event["value"]
        responses = done.model_dump()["responses"] if hasattr(done, "model_dump") else done["responses"]
        said.extend({"where": "room" if in_room else "private", "text": told["text"]} for told in responses)

    await play(say, said)


asyncio.run(main())
