"""The function that makes a conversation id of a platform's names (S11): the same in the guide and in both clients."""

import inspect
import json
import re
import subprocess
from pathlib import Path
from typing import Final

import pytest

from consumer_delegation import conversation_id_of
from tests.contract import document

ROOT: Final = Path(__file__).parent.parent.parent
GUIDE: Final = ROOT / "docs" / "bot-developer.md"
ACCEPTED: Final = re.compile(document()["components"]["parameters"]["ConversationId"]["schema"]["pattern"])
# What platforms have in their ids, and what somebody may choose who wants to be taken for another.
NAMES: Final = (
    *("19:abc@thread.tacv2;messageid=1", "C024BE91L", "29:1a-b_c", "a", "A", "ada", "ada|rita", "|", "||", "=", "=7C"),
    *("a|", "|a", "a=7C", "sha256=0", "a b", "a%20b", "a/b", "../x", "é", "e\u0301", "🙂", "\ud800", "\x00", "\n", " "),
    *(
        "x" * 99,
        "x" * 100,
        "x" * 198,
        "x" * 199,
        "x" * 200,
        "x" * 5000,
        "é" * 40,
        "Ⅻ",
        ".",
        "..",
        "...",
        "=2E",
        "=2E=2E",
    ),
    *("spaces/AAAA", "spaces=2FAAAA", "c3BhY2Vz+/8=", "c3BhY2Vz+/8", "\udc00", "\ud801", "sha256==", "sha256=="),
    *("GENERIC:x", "+447700900123", "U=", "%2E", "%2e%2e", "\u202e", "\ufffd"),
)


def test_different_names_get_different_ids_that_are_accepted() -> None:
    """S11: nobody can choose a name, or a room, that gives the id of somebody else's chat."""
    names = set(NAMES)
    ids = [conversation_id_of(name) for name in names]
    ids += [conversation_id_of(room, person) for room in names for person in names]
    assert len(set(ids)) == len(names) ** 2 + len(names)
    assert [found for found in ids if not ACCEPTED.fullmatch(found) or len(found) > 200] == []


def test_nobody_can_choose_a_name_that_looks_like_the_digest_of_a_long_one() -> None:
    """The bug: `sha256=` and a digest that begins with `0a` was also the id of a name with a line feed in it."""
    digest = conversation_id_of("x" * 201).removeprefix("sha256==")
    forged = [
        "sha256" + "".join(made) + rest for made, rest in ((["="], f"={digest}"), (["=="], digest), ([""], digest))
    ]
    forged.append("sha256" + chr(int(digest[:2], 16)) + digest[2:])
    assert conversation_id_of("x" * 201) not in map(conversation_id_of, forged)


def test_an_id_can_be_read_in_a_log() -> None:
    assert conversation_id_of("C024BE91L", "U012AB3CD") == "C024BE91L|U012AB3CD"
    assert conversation_id_of("spaces/AAAA") == "spaces=2FAAAA"
    assert conversation_id_of("19:abc@thread.tacv2;messageid=1", "29:ada/é") == (
        "19:abc@thread.tacv2;messageid=3D1|29:ada=2F=C3=A9"
    )


@pytest.mark.parametrize("names", [(), ("",), ("", "ada"), ("room", ""), ("", "")])
def test_an_id_without_a_name_is_refused(names: tuple[str, ...]) -> None:
    """S11: a message without its sender would act for everybody in the room."""
    with pytest.raises(ValueError, match="name room and person"):
        conversation_id_of(*names)


def test_the_guide_shows_this_very_function() -> None:
    assert inspect.getsource(conversation_id_of) in GUIDE.read_text(encoding="utf-8")


def test_the_contract_and_the_guide_say_whose_chat_an_id_names() -> None:
    """S11."""
    for page in (ROOT / "openapi.yaml", GUIDE):
        assert "id names one person's chat" in page.read_text(encoding="utf-8")


@pytest.mark.full
def test_typescript_makes_the_same_ids(built_typescript: Path) -> None:
    pairs = [[name] for name in NAMES] + [[room, person] for room in NAMES for person in NAMES[:9]]
    program = (
        f"import {{ conversationIdOf }} from {json.dumps(str(built_typescript / 'dist' / 'index.js'))};"
        "import { readFileSync } from 'node:fs';"
        "const pairs = JSON.parse(readFileSync(0, 'utf8'));"
        "process.stdout.write(JSON.stringify(pairs.map((names) => conversationIdOf(...names))));"
    )
    node = ["node", "--input-type=module", "-e", program]
    made = subprocess.run(node, input=json.dumps(pairs), capture_output=True, text=True, check=True)
    assert json.loads(made.stdout) == [conversation_id_of(*names) for names in pairs]
