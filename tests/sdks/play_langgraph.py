"""LangGraph: one thread for each person, resumed with what they type while the graph waits."""

import asyncio
from typing import Any

from chat import Said, orders, play
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from langgraph_agent import graph_of

from consumer_delegation import conversation_id_of

said: list[Said] = []


async def main() -> None:
    graph = graph_of(orders(), InMemorySaver())

    async def say(person: str, text: str | None, in_room: bool) -> None:
        config: Any = {"configurable": {"thread_id": person, "conversation_id": conversation_id_of("room", person)}}
        waits = (await graph.aget_state(config)).interrupts
        done = await graph.ainvoke(Command(resume=text or "") if waits else {}, config)
        paused = done.get("__interrupt__")
        told = paused[0].value if paused else {"text": done["answer"], "link": ""}
        said.append({"where": "private", **told})
        assert "Bearer" not in str(await graph.aget_state(config))

    await play(say, said)


asyncio.run(main())
