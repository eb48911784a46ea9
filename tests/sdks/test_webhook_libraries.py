"""docs/webhooks.md: its lines for each library take what is signed, and refuse the rest without another error."""

import base64
import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any, Final

import pytest

from tests.clients.test_webhooks_of_clients import signed
from tests.machine import missing

pytestmark = pytest.mark.full

ROOT: Final = Path(__file__).parent.parent.parent
GUIDE: Final = ROOT / "docs" / "webhooks.md"
SECRET: Final = "whsec_" + base64.b64encode(b"planted webhook secret of Acme").decode()
BODY: Final = '{"type": "webhook.test", "timestamp": "2026-11-22T15:04:05Z", "data": {}}'


def block_with(language: str, words: str) -> str:
    """Return the guide's only block of a language that has these words in it."""
    blocks = re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    (found,) = [block for block in blocks if words in block]
    return str(found)


def messages() -> list[dict[str, Any]]:
    """Return one right message, and damaged ones."""
    right = {name.lower(): value for name, value in signed(BODY.encode(), SECRET).items()}
    damaged = [
        {"webhook-signature": "abc"}, {"webhook-signature": "v1,a,b"}, {"webhook-signature": ""},
        {"webhook-signature": "v1,AAAA"}, {"webhook-timestamp": str(int(time.time()) - 600)},
        {"webhook-timestamp": "soon"},
    ]  # fmt: skip
    return [right, *(right | change for change in damaged)]


@pytest.mark.parametrize(
    ("words", "call"),
    [
        ("svix.webhooks", "(receive_with_svix(headers, body, SECRET) or {}).get('type', '')"),
        ("from standardwebhooks", "'webhook.test' if receive(headers, body, SECRET, set()) == 204 else ''"),
        ("consumer_delegation", "event_of(headers, body, SECRET)"),
    ],
)
def test_a_library_of_python(words: str, call: str) -> None:
    python = ROOT / ".venv-sdks" / "bin" / "python"
    if not python.exists():
        missing("the SDKs are not installed (make sdks): libraries for webhooks were not tried")
    ending = (
        f"\nimport json, sys\nSECRET, given, body = json.load(sys.stdin)\nbody = body.encode()\n"
        f"print(json.dumps([{call} for headers in given]))"
    )
    assert answers([python, "-c", block_with("python", words) + ending]) == ["webhook.test", *[""] * 6]


@pytest.mark.parametrize("library", ["standardwebhooks", "svix"])
def test_a_library_of_npm(library: str, tmp_path: Path, requires_node: Path) -> None:
    """A `Headers` object has to become a plain one; of svix the event is parsed after `verify`."""
    modules = ROOT / "tests" / "sdks" / "node_modules"
    if not (modules / library).is_dir():
        missing("packages of tests/sdks are not installed (make sdks): libraries for webhooks were not tried")
    (tmp_path / "node_modules").symlink_to(modules)
    program = block_with("js", "standardwebhooks").replace('"standardwebhooks"', f'"{library}"') + (
        'import { readFileSync } from "node:fs";'
        'const [secret, given, body] = JSON.parse(readFileSync(0, "utf8"));'
        'const sent = (headers) => new Request("http://bot.example", { method: "POST", headers, body });'
        "const types = given.map(async (headers) => (await receive(sent(headers), secret))?.type ?? '');"
        "const seen = await Promise.all(types);"
        "console.log(JSON.stringify(seen));"
    )
    (tmp_path / "receiver.mjs").write_text(program, encoding="utf-8")
    assert answers([requires_node, tmp_path / "receiver.mjs"])[0] == ("webhook.test" if library != "svix" else "")


def answers(command: list[Any]) -> list[str]:
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "clients" / "python")}
    given = json.dumps([SECRET, messages(), BODY])
    done = subprocess.run(command, input=given, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout)
    assert found[1:] == [""] * 6
    return found
