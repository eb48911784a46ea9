"""The examples for frameworks, each in the smallest part of its framework, against the real servers."""

import asyncio
import re
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import bot_framework_style
import jsonschema
import llm_tool
import pytest
import rasa_style

from delegation_client import Delegation
from tests.demo.stage import Stage, new_chat, wrong

LINK = re.compile(r"http://localhost:\d+/c/[\w-]+")
BOOTS = "Walking boots, size 39: On its way, arrives tomorrow"


def link_in(text: str) -> str:
    found = LINK.search(text)
    assert found, text
    return found[0]


@pytest.fixture
def delegation(stage: Stage) -> Delegation:
    return Delegation(f"{stage.addresses.product}/api/v1", stage.bot_key)


@dataclass
class Teams:
    """The part of Bot Framework that matters: one conversation, turn by turn."""

    bot: bot_framework_style.OrdersBot
    # Ids of Teams hold characters that mean something in a path.
    conversation: SimpleNamespace = field(
        default_factory=lambda: SimpleNamespace(id=f"19:{new_chat()}@thread.tacv2;messageid=1", is_group=False)
    )
    person: str = "29:ada"
    sent: list[dict[str, Any]] = field(default_factory=list)
    activity: SimpleNamespace = field(default_factory=SimpleNamespace)

    async def send_activity(self, activity: dict[str, Any]) -> None:
        self.sent.append(activity)

    def say(self, text: str) -> dict[str, Any]:
        self.activity = SimpleNamespace(
            text=text, conversation=self.conversation, from_property=SimpleNamespace(id=self.person)
        )
        asyncio.run(self.bot.on_message_activity(self))
        return self.sent[-1]

    def end(self) -> None:
        asyncio.run(self.bot.on_end_of_conversation_activity(self))


async def no_room(*_: object) -> None:
    raise AssertionError("there is no room")


def test_bot_framework_style(stage: Stage, delegation: Delegation) -> None:
    teams, ada = Teams(bot_framework_style.OrdersBot(delegation, stage.orders_url, no_room)), stage.consumer()
    assert teams.say("Hello")["text"] == "Ask me: where is my order?"
    assert teams.say("123456")["text"].startswith("Something is wrong: conversation_unknown")
    (card,) = teams.say("Where is my order?")["attachments"]
    assert card["contentType"] == "application/vnd.microsoft.card.signin"
    code = ada.gets_code(card["content"]["buttons"][0]["value"])
    assert "copy the code" in teams.say("Where is my order?")["text"]
    assert teams.say(wrong(code))["text"] == "That is not the code. Tries left: 4"
    assert BOOTS in teams.say(f" {code[:3]} {code[3:]}")["text"]
    ada.takes_back()
    assert teams.say("Where is my order?")["attachments"] != [card]
    teams.end()
    assert teams.say("Where is my order?")["text"] == "This chat is over. Please start a new one."


def test_bot_framework_style_in_a_room(stage: Stage, delegation: Delegation) -> None:
    """S11: everybody in the room has a chat of their own, and sees nothing of the others'."""
    private: dict[str, list[dict[str, Any]]] = {"29:ada": [], "29:rita": []}

    async def send_privately(turn: Any, activity: dict[str, Any]) -> None:
        private[turn.activity.from_property.id].append(activity)

    bot = bot_framework_style.OrdersBot(delegation, stage.orders_url, send_privately)
    ada = Teams(bot, SimpleNamespace(id=f"19:{new_chat()}@thread.tacv2", is_group=True))
    rita = Teams(bot, ada.conversation, person="29:rita")
    at_home = Teams(bot, SimpleNamespace(id=new_chat(), is_group=False))
    assert ada.say("Where is my order?")["text"] == "I have written to you in private."
    (card,) = private["29:ada"][0]["attachments"]
    code = stage.consumer().gets_code(card["content"]["buttons"][0]["value"])
    for somebody in (ada, rita):
        assert somebody.say(code)["text"].startswith("Please type the code into our private chat")
    assert BOOTS in at_home.say(code)["text"]
    rita.say("Where is my order?")
    assert "attachments" in private["29:rita"][0]
    ada.say("Where is my order?")
    assert BOOTS in private["29:ada"][1]["text"]
    assert BOOTS not in str([*ada.sent, *rita.sent])


@dataclass
class Rasa:
    """The part of Rasa that matters: slots, and an action that follows another."""

    sender_id: str = field(default_factory=new_chat)
    slots: dict[str, Any] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    actions: dict[str, Any] = field(
        default_factory=lambda: {
            action.name(): action for action in (rasa_style.ActionMyOrders(), rasa_style.ActionCompletionCode())
        }
    )

    def get_slot(self, key: str) -> Any:
        return self.slots.get(key)

    def utter_message(self, text: str, **_more: Any) -> None:
        self.said.append(text)

    def run(self, action: str, **slots: str) -> list[str]:
        """Run an action and those that follow it; return what was said."""
        self.slots |= slots
        self.said.clear()
        while action:
            events = self.actions[action].run(self, self, {})
            self.slots |= {event["name"]: event["value"] for event in events if event["event"] == "slot"}
            action = next((event["name"] for event in events if event["event"] == "followup"), "")
        return list(self.said)


def test_rasa_style(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    base = f"{stage.addresses.product}/api/v1"
    for name, value in {"BASE": base, "KEY": stage.bot_key, "ORDERS": stage.orders_url}.items():
        monkeypatch.setenv(name, value)
    rasa, ada = Rasa(), stage.consumer()
    (message,) = rasa.run("action_my_orders")
    code = ada.gets_code(link_in(message))
    assert rasa.run("action_completion_code", completion_code=wrong(code)) == ["That is not the code. Tries left: 4"]
    assert BOOTS in rasa.run("action_completion_code", completion_code=code)
    assert rasa.slots == {"blocked_action": None, "completion_code": None}
    assert "I cannot go on" in rasa.run("action_completion_code", completion_code=code)[0]
    ada.takes_back()
    assert link_in(rasa.run("action_my_orders")[0]) != link_in(message)
    stage.bot().close(rasa.sender_id)
    assert rasa.run("action_my_orders") == ["This chat is over. Please start a new one."]


def test_an_llm_tool_gets_words_or_orders_and_never_the_token(stage: Stage, delegation: Delegation) -> None:
    chat, ada = new_chat(), stage.consumer()
    seen: list[dict[str, Any]] = []

    def model_calls(**arguments: str) -> dict[str, Any]:
        jsonschema.validate(arguments, llm_tool.DEFINITION["input_schema"])
        tool = getattr(llm_tool, llm_tool.DEFINITION["name"])
        seen.append(tool(delegation, stage.orders_url, chat, **arguments))
        return seen[-1]

    asked = model_calls()
    assert asked["status"] == "sign_in_needed"
    code = ada.gets_code(link_in(asked["tell_the_person"]))
    assert "copy the code" in model_calls()["tell_the_person"]
    assert model_calls(completion_code=wrong(code))["tell_the_person"].endswith("Tries left: 4")
    found = model_calls(completion_code=code)
    assert (found["status"], found["orders"][0]["number"]) == ("ok", "A-1001")
    token = stage.bot().token(chat).body["access_token"]
    assert token not in str(seen)
    ada.takes_back()
    again = model_calls()
    assert link_in(again["tell_the_person"]) != link_in(asked["tell_the_person"])
    stage.bot().close(chat)
    assert model_calls()["status"] == "conversation_closed"


def test_a_model_cannot_name_a_conversation_or_a_brand_address() -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"conversation_id": "web:rita"}, llm_tool.DEFINITION["input_schema"])


def test_who_says_no_is_asked_again_with_a_new_link(stage: Stage, delegation: Delegation) -> None:
    teams = Teams(bot_framework_style.OrdersBot(delegation, stage.orders_url, no_room))
    links = [teams.say("orders")["attachments"][0]["content"]["buttons"][0]["value"]]
    stage.consumer().signs_in(links[0], "ada+deny")
    links.append(teams.say("orders")["attachments"][0]["content"]["buttons"][0]["value"])
    assert len(set(links)) == 2
