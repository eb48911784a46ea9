"""The function that makes a conversation id of a room and a person (S11): in the guide, and beside the examples."""

import inspect
import re
from pathlib import Path

import pytest
import yaml

from delegation_client import chat_in_room

ROOT = Path(__file__).parent.parent.parent
GUIDE = ROOT / "docs" / "bot-developer.md"
ACCEPTED = re.compile(
    yaml.safe_load((ROOT / "openapi.yaml").read_text())["components"]["parameters"]["ConversationId"]["schema"][
        "pattern"
    ]
)
# What platforms have in their ids, and what somebody may choose who wants to be taken for another.
NAMES = (
    *("19:abc@thread.tacv2;messageid=1", "C024BE91L", "29:1a-b_c", "a", "A", "ada", "ada|rita", "|", "||", "=", "=7C"),
    *("a|", "|a", "a=7C", "sha256=0", "a b", "a%20b", "a/b", "../x", "é", "e\u0301", "🙂", "\ud800", "\x00", "\n", " "),
    *("x" * 99, "x" * 100, "x" * 198, "x" * 199, "x" * 200, "x" * 5000, "é" * 40, "Ⅻ"),
)


def test_different_pairs_get_different_ids_that_are_accepted() -> None:
    """S11: nobody can choose a name, or a room, that gives the id of somebody else's chat."""
    ids = [chat_in_room(room, person) for room in NAMES for person in NAMES]
    assert len(set(ids)) == len(NAMES) ** 2
    assert [found for found in ids if not ACCEPTED.fullmatch(found)] == []


def test_an_id_can_be_read_in_a_log() -> None:
    assert chat_in_room("C024BE91L", "U012AB3CD") == "C024BE91L|U012AB3CD"
    assert chat_in_room("19:abc@thread.tacv2;messageid=1", "29:ada/é") == (
        "19:abc@thread.tacv2;messageid=3D1|29:ada=2F=C3=A9"
    )


@pytest.mark.parametrize(("room", "person"), [("", "ada"), ("room", ""), ("", "")])
def test_an_id_of_a_room_alone_is_refused(room: str, person: str) -> None:
    """S11: a message without its sender would act for everybody in the room."""
    with pytest.raises(ValueError, match="name both"):
        chat_in_room(room, person)


def test_the_guide_shows_this_very_function() -> None:
    assert inspect.getsource(chat_in_room) in GUIDE.read_text()


def test_the_contract_and_the_guide_say_whose_chat_an_id_names() -> None:
    """S11."""
    for page in (ROOT / "openapi.yaml", GUIDE):
        assert "id names one person's chat" in page.read_text()
