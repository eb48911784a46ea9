"""LangGraph: the graph pauses (`interrupt`) until the person has signed in and typed the code.

The conversation is `conversation_id` in the run's configuration. The host sets it from the authenticated chat, and no
model can change it. Checkpoints keep the state and what the graph is resumed with: never a token, but codes, which are
used once.
"""

from typing import Literal, TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import interrupt

from acme_orders import Orders


class State(TypedDict, total=False):
    answer: str
    link: str
    waits: bool
    code: str


def graph_of(orders: Orders, checkpointer: BaseCheckpointSaver[str]) -> CompiledStateGraph[State, None, State, State]:
    """Build the graph. Its input is empty; it is resumed with what the person types."""

    async def look_up(state: State, config: RunnableConfig) -> State:
        reply = await orders.look_up(config["configurable"]["conversation_id"], state.get("code"))
        return {"answer": reply.text, "link": reply.link, "waits": reply.waits, "code": ""}

    # A node of its own: a resumed node runs again from its beginning, with all that it was resumed with before. A wrong
    # code would be posted again, and use up another try.
    async def ask(state: State) -> State:
        return {"code": str(interrupt({"text": state["answer"], "link": state["link"]}))}

    def next_node(state: State) -> Literal["ask", "__end__"]:
        return "ask" if state["waits"] else "__end__"

    graph = StateGraph(State)
    graph.add_node("look_up", look_up)
    graph.add_node("ask", ask)
    graph.add_edge(START, "look_up")
    graph.add_conditional_edges("look_up", next_node)
    graph.add_edge("ask", "look_up")
    return graph.compile(checkpointer=checkpointer)
