"""The MCP server, a real client of MCP, the real product, and somebody who signs in."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.demo.stage import Stage, new_chat, wrong
from tests.machine import missing

pytestmark = pytest.mark.full

FOLDER: Final = Path(__file__).parent
ROOT: Final = FOLDER.parent.parent
PYTHON: Final = ROOT / ".venv-mcp" / "bin" / "python"
# Every frame of both directions, and what the server logs, goes into a file.
RECORDED: Final = 'tee -a "$FRAMES" | "$PYTHON" -m consumer_delegation_mcp 2>>"$FRAMES" | tee -a "$FRAMES"'
MODES: Final = {"legacy": "2025-11-25", "auto": "2026-07-28"}
BOOTS: Final = "Walking boots, size 39"


@dataclass
class Client:
    """A client of MCP that has started the server, and the file with all their frames."""

    process: "subprocess.Popen[str]"
    frames: Path
    conversation_id: str
    revision: str = ""

    def says(self, **line: Any) -> dict[str, Any]:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(line) + "\n")
        self.process.stdin.flush()
        return self.hears()

    def hears(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, "the client has ended"
        heard: dict[str, Any] = json.loads(line)
        return heard

    def calls(self, tool: str, **arguments: Any) -> str:
        """Call a tool that does not fail."""
        answer = self.says(call=tool, arguments=arguments)
        assert answer.get("is_error") is False, answer
        return str(answer["text"])

    def fails(self, tool: str, **arguments: Any) -> str:
        answer = self.says(call=tool, arguments=arguments)
        assert answer.get("is_error") is True, answer
        return str(answer["text"])

    def is_asked(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool that asks the person something first."""
        asked: dict[str, Any] = self.says(call=tool, arguments=arguments)["asked"]
        return asked


def settings_of(stage: Stage, conversation_id: str, frames: Path) -> dict[str, str]:
    return {
        "PATH": "/usr/bin:/bin",
        "PYTHON": str(PYTHON),
        "FRAMES": str(frames),
        "CONSUMER_DELEGATION_URL": f"{stage.addresses.product}/api/v1",
        "CONSUMER_DELEGATION_BOT_KEY": stage.bot_key,
        "CONSUMER_DELEGATION_CONVERSATION_ID": conversation_id,
        "CONSUMER_DELEGATION_PURPOSE": "to look up your order",
    }


@contextmanager
def client(stage: Stage, frames: Path, mode: str, *, elicitation: bool = False, **settings: str) -> Iterator[Client]:
    if not PYTHON.exists():
        missing("the MCP server is not installed (make mcp)")
    conversation_id = new_chat()
    environment = settings_of(stage, conversation_id, frames) | settings
    wanted = {"command": ["/bin/sh", "-c", RECORDED], "env": environment, "mode": mode, "elicitation": elicitation}
    with subprocess.Popen(
        [PYTHON, FOLDER / "play_client.py", json.dumps(wanted)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            started = Client(process, frames, conversation_id)
            started.revision = started.hears()["ready"]
            yield started
            assert process.stdin
            process.stdin.close()
            process.wait(20)
        finally:
            process.kill()


Connect = Callable[..., Client]


@pytest.fixture
def connect(stage: Stage, tmp_path: Path) -> Iterator[Connect]:
    with ExitStack() as stack:
        yield lambda mode, **settings: stack.enter_context(client(stage, tmp_path / "frames", mode, **settings))


def link_in(text: str) -> str:
    found = re.search(r"http://localhost:\d+/c/[\w-]+", text)
    assert found, text
    return found[0]


@pytest.mark.parametrize("mode", MODES)
def test_without_elicitation_link_and_digits_pass_as_text(mode: str, connect: Connect, stage: Stage) -> None:
    mcp = connect(mode)
    assert mcp.revision == MODES[mode]
    asked = mcp.calls("orders_list")
    assert "exactly as it is" in asked
    code = stage.consumer().gets_code(link_in(asked))
    assert "Ask them for the six digits" in mcp.calls("orders_list")
    assert "Tries left: 4" in mcp.fails("confirm_sign_in", digits=wrong(code))
    assert "confirmed" in mcp.calls("confirm_sign_in", digits=f"{code[:3]} {code[3:]}")
    assert BOOTS in mcp.calls("orders_list")


def test_the_page_has_a_transcript_that_happens(connect: Connect, stage: Stage) -> None:
    mcp = connect("auto")
    asked = mcp.calls("orders_list")
    link = link_in(asked)
    code = stage.consumer().gets_code(link)
    confirmed = mcp.calls("confirm_sign_in", digits=code)
    orders = mcp.calls("orders_list")
    steps = [("orders_list {}", asked), ('confirm_sign_in {"digits": "493027"}', confirmed), ("orders_list {}", orders)]
    transcript = "\n\n".join(f"--> tools/call {call}\n{text}" for call, text in steps)
    transcript = transcript.replace(link, "https://delegation.example/c/...")
    assert transcript in (ROOT / "docs" / "mcp.md").read_text()


def test_tools_are_the_declared_operations_and_take_neither_conversation_nor_token(connect: Connect) -> None:
    tools = {tool["name"]: tool for tool in connect("auto").says(list=True)["tools"]}
    assert {"orders_list", "confirm_sign_in"} <= set(tools)
    assert tools["orders_list"]["annotations"]["readOnlyHint"] is True
    members = {name for tool in tools.values() for name in tool["inputSchema"]["properties"]}
    assert members <= {"arguments", "body", "digits"}


def test_what_is_not_there_and_what_is_not_declared_is_refused(connect: Connect) -> None:
    mcp = connect("auto")
    assert mcp.says(call="orders_delete") == {"refused": "There is no tool of this name."}
    assert mcp.fails("orders_list", conversation_id="another") == "This tool takes no conversation_id."
    assert mcp.fails("orders_list", arguments={"conversation_id": "another"}) == "This tool takes no arguments."


def test_digits_that_nobody_waits_for_cost_nothing(connect: Connect, stage: Stage) -> None:
    mcp = connect("auto")
    assert "No sign-in waits" in mcp.fails("confirm_sign_in", digits="123456")
    link = link_in(mcp.calls("orders_list"))
    assert "No sign-in waits" in mcp.fails("confirm_sign_in", digits="654321")
    code = stage.consumer().gets_code(link)
    assert "Tries left: 4" in mcp.fails("confirm_sign_in", digits=wrong(code))
    mcp.calls("confirm_sign_in", digits=code)


def test_who_says_no_gets_a_new_link_at_the_next_call(connect: Connect, stage: Stage) -> None:
    mcp = connect("auto")
    link = link_in(mcp.calls("orders_list"))
    stage.consumer().signs_in(link, "ada+deny")
    assert link_in(mcp.calls("orders_list")) != link


@pytest.mark.parametrize("mode", MODES)
def test_no_frame_of_an_elicitation_has_the_token_or_the_key(mode: str, connect: Connect, stage: Stage) -> None:
    mcp = connect(mode, elicitation=True)
    code = stage.consumer().gets_code(mcp.is_asked("orders_list")["url"])
    mcp.says(action="accept")
    assert BOOTS in mcp.says(action="accept", content={"digits": code})["text"]
    token = stage.bot().token(mcp.conversation_id).body["access_token"]
    frames = mcp.frames.read_text()
    assert BOOTS in frames
    assert token not in frames
    assert stage.bot_key not in frames


@pytest.mark.parametrize("mode", MODES)
def test_no_frame_and_no_log_line_has_the_token_or_the_key(mode: str, connect: Connect, stage: Stage) -> None:
    mcp = connect(mode)
    mcp.calls("confirm_sign_in", digits=stage.consumer().gets_code(link_in(mcp.calls("orders_list"))))
    assert BOOTS in mcp.calls("orders_list")
    token = stage.bot().token(mcp.conversation_id).body["access_token"]
    frames = mcp.frames.read_text()
    assert "tools/call" in frames
    assert BOOTS in frames
    assert token not in frames
    assert stage.bot_key not in frames


def buttons_at(link: str, stage: Stage) -> list[str]:
    return [button.words for form in stage.consumer().browser.open(link).parsed.forms for button in form.buttons]


def test_the_conversation_of_a_process_ends_with_it(connect: Connect, stage: Stage, tmp_path: Path) -> None:
    """Its id is random and nobody else knows it: a token that nobody can use any more would stay."""
    with client(stage, tmp_path / "first", "auto", CONSUMER_DELEGATION_CONVERSATION_ID="") as mcp:
        link = link_in(mcp.calls("orders_list"))
        assert "This wasn't me" in buttons_at(link, stage)
    assert buttons_at(link, stage) == []


def types_in(form: dict[str, Any]) -> list[str]:
    return list(form["requestedSchema"]["properties"])


@pytest.mark.parametrize("mode", MODES)
def test_with_elicitation_neither_link_nor_digits_pass_the_model(mode: str, connect: Connect, stage: Stage) -> None:
    mcp = connect(mode, elicitation=True)
    assert [tool["name"] for tool in mcp.says(list=True)["tools"]] == ["orders_list"]
    link = mcp.is_asked("orders_list")
    assert (link["mode"], "http" in link["message"]) == ("url", False)
    code = stage.consumer().gets_code(link["url"])
    form = mcp.says(action="accept")["asked"]
    assert (form["mode"], types_in(form)) == ("form", ["digits"])
    again = mcp.says(action="accept", content={"digits": wrong(code)})["asked"]
    assert "Tries left: 4" in again["message"]
    answer = mcp.says(action="accept", content={"digits": code})
    assert BOOTS in answer["text"]
    assert BOOTS in mcp.calls("orders_list")
    assert ("notifications/elicitation/complete" in mcp.frames.read_text()) == (mode == "legacy")


@pytest.mark.parametrize("mode", MODES)
def test_an_accepted_link_is_waited_for(mode: str, connect: Connect, stage: Stage) -> None:
    """`accept` means only that the person will open it."""
    mcp = connect(mode, elicitation=True)
    link = mcp.is_asked("orders_list")["url"]
    with ThreadPoolExecutor() as beside:
        asked = beside.submit(mcp.says, action="accept")
        code = stage.consumer().gets_code(link)
        assert asked.result()["asked"]["mode"] == "form"
    assert BOOTS in mcp.says(action="accept", content={"digits": code})["text"]


@pytest.mark.parametrize("mode", MODES)
def test_a_link_that_is_declined_is_withdrawn(mode: str, connect: Connect, stage: Stage) -> None:
    mcp = connect(mode, elicitation=True)
    link = mcp.is_asked("orders_list")["url"]
    assert "did not want to sign in" in mcp.says(action="decline")["text"]
    assert buttons_at(link, stage) == []
    assert mcp.is_asked("orders_list")["url"] != link
    mcp.says(action="cancel")


@pytest.mark.parametrize("mode", MODES)
def test_a_dialogue_that_is_closed_leaves_the_link(mode: str, connect: Connect) -> None:
    mcp = connect(mode, elicitation=True)
    link = mcp.is_asked("orders_list")["url"]
    assert "did not want to sign in" in mcp.says(action="cancel")["text"]
    assert mcp.is_asked("orders_list")["url"] == link
    mcp.says(action="cancel")


@pytest.mark.parametrize("mode", MODES)
def test_who_says_no_at_the_brand_is_not_asked_again_by_itself(mode: str, connect: Connect, stage: Stage) -> None:
    mcp = connect(mode, elicitation=True)
    stage.consumer().signs_in(mcp.is_asked("orders_list")["url"], "ada+deny")
    assert "has ended (denied)" in mcp.says(action="accept")["text"]


@pytest.mark.parametrize("mode", MODES)
def test_digits_that_were_not_typed_are_asked_for_by_the_next_call(mode: str, connect: Connect, stage: Stage) -> None:
    mcp = connect(mode, elicitation=True)
    code = stage.consumer().gets_code(mcp.is_asked("orders_list")["url"])
    assert mcp.says(action="accept")["asked"]["mode"] == "form"
    assert "did not type the digits" in mcp.says(action="cancel")["text"]
    assert mcp.is_asked("orders_list")["mode"] == "form"
    assert BOOTS in mcp.says(action="accept", content={"digits": code})["text"]


@pytest.mark.parametrize("mode", MODES)
def test_after_five_wrong_codes_the_next_call_brings_a_new_link(mode: str, connect: Connect, stage: Stage) -> None:
    mcp = connect(mode, elicitation=True)
    link = mcp.is_asked("orders_list")["url"]
    code = stage.consumer().gets_code(link)
    mcp.says(action="accept")
    answers = [mcp.says(action="accept", content={"digits": wrong(code)}) for _ in range(5)]
    assert "no try is left" in answers[-1]["text"]
    assert mcp.is_asked("orders_list")["url"] != link
    mcp.says(action="cancel")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", MODES)
def test_a_sign_in_that_takes_long_ends_the_call_in_words(mode: str, connect: Connect) -> None:
    """Ten empty rounds end the call at the client, with an error."""
    mcp = connect(mode, elicitation=True)
    mcp.is_asked("orders_list")
    assert "has not finished signing in" in mcp.says(action="accept")["text"]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "CONSUMER_DELEGATION_URL is missing"),
        ({"CONSUMER_DELEGATION_URL": "https://acme.example/api/v1"}, "CONSUMER_DELEGATION_BOT_KEY_FILE"),
        ({"CONSUMER_DELEGATION_URL": "acme", "CONSUMER_DELEGATION_BOT_KEY": "secret"}, "ends in /api/v1"),
        (
            {"CONSUMER_DELEGATION_URL": "https://acme.example/api/v1", "CONSUMER_DELEGATION_BOT_KEY_FILE": "/none"},
            "cannot be read",
        ),
    ],
)
def test_a_wrong_setting_is_one_sentence_without_its_value(settings: dict[str, str], sentence: str) -> None:
    if not PYTHON.exists():
        missing("the MCP server is not installed (make mcp)")
    done = subprocess.run(
        [PYTHON, "-m", "consumer_delegation_mcp"], env=settings, capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "secret" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.timeout(600)  # mypy reads the SDK, too
def test_the_server_has_the_types_of_its_sdk() -> None:
    if not PYTHON.exists():
        missing("the MCP server is not installed (make mcp): its types were not checked")
    options = ["--strict", "--config-file=", "--cache-dir=/dev/null", f"--python-executable={PYTHON}"]
    package = ROOT / "clients" / "mcp" / "consumer_delegation_mcp"
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, package, FOLDER / "play_client.py"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
