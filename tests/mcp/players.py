"""A real client of MCP in a process of its own, and what it says and hears."""

import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from demo.bot_api import call
from tests.demo.stage import Stage, new_chat
from tests.machine import missing

FOLDER: Final = Path(__file__).parent
ROOT: Final = FOLDER.parent.parent
PYTHON: Final = ROOT / ".venv-mcp" / "bin" / "python"
# Every frame of both directions, and what the server logs, goes into a file.
RECORDED: Final = 'tee -a "$FRAMES" | "$PYTHON" -m consumer_delegation_mcp 2>>"$FRAMES" | tee -a "$FRAMES"'
# The client for Python on both revisions, and the one for TypeScript.
MODES: Final = {"legacy": "2025-11-25", "auto": "2026-07-28", "typescript": "2025-11-25"}
BOTH: Final = ("form", "url")
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


def player_of(mode: str) -> list[str | Path]:
    if mode != "typescript":
        return [PYTHON, FOLDER / "play_client.py"]
    if not (FOLDER / "node_modules" / "@modelcontextprotocol").is_dir():
        missing("the client of MCP for TypeScript is not installed (make mcp-clients)")
    return ["node", FOLDER / "play_client.mjs"]


def needs_server() -> None:
    if not PYTHON.exists():
        missing("the MCP server is not installed (make mcp)")


def settings_of(stage: Stage, key: str, conversation_id: str, frames: Path) -> dict[str, str]:
    return {
        "PATH": "/usr/bin:/bin",
        "PYTHON": str(PYTHON),
        "FRAMES": str(frames),
        "CONSUMER_DELEGATION_URL": f"{stage.addresses.product}/api/v1",
        "CONSUMER_DELEGATION_BOT_KEY": key,
        "CONSUMER_DELEGATION_CONVERSATION_ID": conversation_id,
        "CONSUMER_DELEGATION_PURPOSE": "to look up your order",
    }


@contextmanager
def client(
    stage: Stage, key: str, frames: Path, mode: str, *, elicitation: Sequence[str] = (), **settings: str
) -> Iterator[Client]:
    """Start a client and, as it does, a server that has this bot key. `elicitation` is what the client can ask."""
    needs_server()
    conversation_id = new_chat()
    environment = settings_of(stage, key, conversation_id, frames) | settings
    wanted = {"command": ["/bin/sh", "-c", RECORDED], "env": environment, "mode": mode, "elicitation": elicitation}
    with playing(wanted, frames, conversation_id) as started:
        yield started


@contextmanager
def playing(wanted: dict[str, Any], frames: Path, conversation_id: str = "") -> Iterator[Client]:
    with subprocess.Popen(
        [*player_of(wanted["mode"]), json.dumps(wanted)],
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
            process.wait(60)
        finally:
            process.kill()


def link_in(text: str) -> str:
    found = re.search(r"http://localhost:\d+/c/[\w-]+", text)
    assert found, text
    return found[0]


def says_no_secret(frames: Path, stage: Stage, mcp_key: str, conversation_id: str) -> None:
    """Look in all that was said for the token, which a key other than the server's reads, and for all keys."""
    assert call("GET", f"{stage.addresses.product}/api/v1/conversations/{conversation_id}/token", mcp_key).status == 403
    token = stage.bot().token(conversation_id).body["access_token"]
    assert stage.orders(token).status == 200, "no real token"
    said = frames.read_bytes()
    assert b'"tools/call"' in said
    assert BOOTS.encode() in said
    secrets = {
        "the token": token,
        "the server's key": mcp_key,
        "a key": stage.bot_key,
        "a secret": stage.demo.client_secret,
    }
    found = [name for name, secret in secrets.items() if secret.encode() in said]
    assert found == [], f"said: {found}"
