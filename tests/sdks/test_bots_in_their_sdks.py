"""The examples inside the SDKs whose names they bear, against the real servers.

Each player (`play_*.py`) runs in an environment of its own, with the platform's wire around the example. No model and
no platform is called: scripted ones answer on loopback.
"""

import json
import os
import re
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from demo.processes import run_command
from tests.contract import document
from tests.demo.machines import free_ports
from tests.demo.stage import Stage, wrong
from tests.machine import missing

pytestmark = pytest.mark.full

FOLDER: Final = Path(__file__).parent
ROOT: Final = FOLDER.parent.parent
PATIENCE: Final = 30
BOOTS: Final = "Walking boots, size 39: On its way, arrives tomorrow"
ENVIRONMENTS: Final = {"rasa": ".venv-rasa"}
BOTS: Final = ("agents_sdk", "slack", "telegram", "rasa", "openai", "adk", "langgraph", "node")
EXAMPLES: Final = {
    ".venv-sdks": ("agents_sdk_bot", "slack_bot", "telegram_bot", "openai_agent", "adk_agent", "langgraph_agent"),
    ".venv-rasa": ("rasa_actions",),
}
IN_ROOMS: Final = ("agents_sdk", "slack", "telegram", "node")


@dataclass
class Chat:
    """A bot in its SDK, and what it says."""

    process: "subprocess.Popen[str]"
    chat: str = field(default_factory=lambda: secrets.token_hex(4))  # each has people of its own

    def says(self, text: str | None, person: str = "ada", *, in_room: bool = False) -> list[dict[str, Any]]:
        """Let somebody say something. Return what the bot sent."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(
            json.dumps({"person": f"{person}.{self.chat}", "text": text, "in_room": in_room}) + "\n"
        )
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, "the bot has ended"
        said: list[dict[str, Any]] = json.loads(answer)["said"]
        return said

    def text(self, text: str | None, person: str = "ada") -> str:
        """Return what the bot answers in private."""
        (said,) = self.says(text, person)
        assert said["where"] == "private"
        return str(said["text"])

    def link(self, text: str = "Where is my order?", person: str = "ada") -> str:
        (said,) = self.says(text, person)
        return link_in(said)


def link_in(said: dict[str, Any]) -> str:
    found = re.search(r"http://localhost:\d+/c/[\w-]+", said.get("link") or said["text"])
    assert found, said
    return found[0]


@contextmanager
def bot(name: str, stage: Stage, node_bots: Path) -> Iterator[Chat]:
    paths = [str(ROOT / "docs" / "bots"), str(ROOT / "clients" / "python"), str(FOLDER)]
    env = {
        "PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(paths), "BASE": f"{stage.addresses.product}/api/v1",
        "KEY": stage.calling_key, "HOME": "/nonexistent",
    }  # fmt: skip
    command = ["node", "play_node.mjs"] if name == "node" else [python_of(name), FOLDER / f"play_{name}.py"]
    with subprocess.Popen(
        command, cwd=node_bots, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout
            assert json.loads(process.stdout.readline() or "{}") == {"ready": True}
            yield Chat(process)
        finally:
            process.kill()


def python_of(name: str) -> Path:
    python = ROOT / ENVIRONMENTS.get(name, ".venv-sdks") / "bin" / "python"
    return python if python.exists() else missing(f"the SDKs are not installed (make sdks): {name} did not run")


@pytest.fixture(scope="session")
def node_bots(built_typescript: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example for Node, its player, and the packages that they import."""
    if not (FOLDER / "node_modules" / "grammy").is_dir():
        missing("grammY is not installed (make sdks): the example for Node did not run")
    folder = tmp_path_factory.mktemp("node")
    for file in (ROOT / "docs" / "bots" / "telegram_bot.mjs", FOLDER / "play_node.mjs"):
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "node_modules").mkdir()
    for package in (FOLDER / "node_modules").iterdir():
        (folder / "node_modules" / package.name).symlink_to(package)
    (folder / "node_modules" / "consumer-delegation").symlink_to(built_typescript)
    return folder


@pytest.fixture(params=BOTS)
def chat(request: pytest.FixtureRequest, stage: Stage, node_bots: Path) -> Iterator[Chat]:
    with bot(request.param, stage, node_bots) as chat:
        yield chat


def test_a_person_signs_in_and_reads_their_orders(chat: Chat, stage: Stage) -> None:
    """The bugs: a dict is no activity, a message without text, a mention before the code, slots of any type."""
    ada = stage.consumer()
    chat.says(None)  # a picture: no text at all
    link = chat.link()
    code = ada.gets_code(link)
    assert chat.text(wrong(code)) == "That is not the code. Tries left: 4"
    assert BOOTS in chat.text(f"{code[:3]} {code[3:]}")
    assert BOOTS in chat.text("Where is my order?")
    ada.takes_back()
    assert chat.link() != link


def test_a_code_that_nobody_waits_for_costs_nothing(chat: Chat, stage: Stage) -> None:
    """The bug: a strict schema makes models invent digits, which were posted first: no link was ever sent."""
    chat.says("123456")
    link = chat.link("Where is my order, please?")
    chat.says("654321")
    code = stage.consumer().gets_code(link)
    assert chat.text(wrong(code)) == "That is not the code. Tries left: 4"
    assert BOOTS in chat.text(code)


def test_who_says_no_gets_a_new_link(chat: Chat, stage: Stage) -> None:
    link = chat.link()
    stage.consumer().signs_in(link, "ada+deny")
    assert chat.link() != link


def test_a_link_that_has_expired_is_replaced(chat: Chat, stage: Stage) -> None:
    link = chat.link()
    program = (
        "from conversations.models import Challenge; from django.utils.timezone import now;"
        "Challenge.objects.filter(status='issued').update(expires_at=now())"
    )
    run_command(["manage.py", "shell", "-v0", "-c", program], stage.demo.product_environment())
    assert chat.link() != link


def test_five_wrong_codes_end_the_sign_in(chat: Chat, stage: Stage) -> None:
    link = chat.link()
    code = stage.consumer().gets_code(link)
    told = [chat.text(wrong(code)) for _ in range(5)]
    assert [text[-1] for text in told] == list("43210")
    assert chat.link() != link


def test_two_people_have_nothing_in_common(chat: Chat, stage: Stage) -> None:
    """S11."""
    code = stage.consumer().gets_code(chat.link())
    link = chat.link(person="rita")
    assert BOOTS not in str(chat.says(code, "rita"))
    assert BOOTS in chat.text(code)
    assert BOOTS not in str(chat.says("Where is my order?", "rita"))
    assert link


@pytest.mark.parametrize("name", IN_ROOMS)
def test_in_a_room_everything_is_said_to_the_person_alone(name: str, stage: Stage, node_bots: Path) -> None:
    """S11: link, code and orders; whoever reads the room sees that something was written."""
    with bot(name, stage, node_bots) as chat:
        asked = chat.says("Where is my order?", in_room=True)
        (private,) = [said for said in asked if said["where"] == "private"]
        code = stage.consumer().gets_code(link_in(private))
        told = [*asked, *chat.says(f"{code[:3]} {code[3:]}", in_room=True)]
        assert BOOTS in told[-2]["text"] + told[-1]["text"]
        told += chat.says("Where is my order?", in_room=True)
        assert {said["text"] for said in told if said["where"] == "room"} == {"I have written to you in private."}
        assert BOOTS in chat.text("Where is my order?")


def test_rasa_asks_for_a_private_chat_in_a_room(stage: Stage, node_bots: Path) -> None:
    """S11: an action cannot write to another chat than that of the question."""
    with bot("rasa", stage, node_bots) as chat:
        for text in ("Where is my order?", "123456"):
            (said,) = chat.says(text, in_room=True)
            assert said["text"] == "Please ask me in our private chat, where nobody else reads it."


@pytest.mark.parametrize(("name", "path"), [("agents_sdk_bot", "/api/messages"), ("slack_bot", "/slack/events")])
def test_a_program_refuses_what_its_platform_did_not_send(name: str, path: str) -> None:
    (port,) = free_ports(1)
    connection = "CONNECTIONS__SERVICE_CONNECTION__SETTINGS__"
    settings = {f"{connection}CLIENTID": "acme", f"{connection}CLIENTSECRET": "secret", f"{connection}TENANTID": "acme"}
    slack = {"SLACK_BOT_TOKEN": "xoxb-token", "SLACK_SIGNING_SECRET": "secret"}
    ours = {"BASE": "http://localhost/api/v1", "KEY": "key", "PORT": str(port)}
    with program_of(name, {**settings, **slack, **ours}):
        with requests.Session() as session:
            session.mount("http://", HTTPAdapter(max_retries=Retry(connect=40, backoff_factor=0.1, backoff_max=1)))
            answer = session.post(f"http://127.0.0.1:{port}{path}", json={"type": "message"}, timeout=PATIENCE)
        assert answer.status_code == 401


@contextmanager
def program_of(name: str, settings: dict[str, str]) -> Iterator[None]:
    paths = [str(ROOT / "docs" / "bots"), str(ROOT / "clients" / "python")]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(paths), **settings}
    with subprocess.Popen(
        [python_of(name), ROOT / "docs" / "bots" / f"{name}.py"], env=env, stdout=subprocess.DEVNULL
    ) as process:
        try:
            yield
        finally:
            process.kill()


@pytest.mark.timeout(600)  # mypy reads the SDKs, too
def test_the_examples_have_the_types_of_their_sdks() -> None:
    for environment, names in EXAMPLES.items():
        mypy = ROOT / environment / "bin" / "mypy"
        if not mypy.exists():
            missing("the SDKs are not installed (make sdks): the types of the examples were not checked")
        files = [str(ROOT / "docs" / "bots" / f"{name}.py") for name in names]
        options = ["--strict", "--config-file=", "--cache-dir=/dev/null", "--follow-untyped-imports"]
        env = {"PATH": os.environ["PATH"], "MYPYPATH": f"{ROOT}/docs/bots:{ROOT}/clients/python"}
        done = subprocess.run([mypy, *options, *files], env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def node_says(node_bots: Path, text: str, answers: dict[str, Any]) -> list[Any]:
    """Let the example for Node answer a message, on a wire of these answers. Return its reply and what it sent."""
    program = (
        "import { Delegation } from 'consumer-delegation'; import { Orders } from './telegram_bot.mjs';"
        "const [text, answers] = JSON.parse(process.env.GIVEN); const sent = {};"
        "const fetch = async (url, { body }) => { const last = new URL(url).pathname.split('/').pop();"
        " sent[last] = body ? JSON.parse(body) : null;"
        " const { status } = answers[last]; const init = { status: Number.isInteger(status) ? status : 200 };"
        " return new Response(JSON.stringify(answers[last]), init); };"
        "const delegation = new Delegation({ baseUrl: 'https://a.example/api/v1', botKey: 'k', patience: 0, fetch });"
        "console.log(JSON.stringify([await new Orders(delegation).reply('chat', text), sent]));"
    )
    env = {"PATH": os.environ["PATH"], "GIVEN": json.dumps([text, answers])}
    command = ["node", "--input-type=module", "-e", program]
    done = subprocess.run(command, cwd=node_bots, env=env, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    said: list[Any] = json.loads(done.stdout)
    return said


def example(name: str) -> dict[str, Any]:
    found: dict[str, Any] = document()["components"]["examples"][name]["value"]
    return found


def standings(**servers: dict[str, Any]) -> dict[str, Any]:
    empty = {"challenge": None, "access_token": None}
    found = [{"authorization_server": name} | empty | known for name, known in servers.items()]
    return {"session": 3, "authorization_servers": found}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("step_up_unavailable", "another try does not help"),
        ("missing_scope_for_good", "another try does not help"),
        ("api_host_refused", "another try does not help"),
        ("api_timeout", "Acme is not answering"),
        ("rate_limited", "in a minute"),
        ("conversation_closed", "This chat is over"),
    ],
)
def test_the_bot_in_node_says_what_helps(name: str, said: str, node_bots: Path) -> None:
    assert said in node_says(node_bots, "Where is my order?", {"orders.list": example(name)})[0]["text"]


def test_the_bot_in_node_names_the_server_with_the_code(node_bots: Path) -> None:
    """The bug: at a brand with two servers every code was 422 `authorization_server_required`."""
    waiting = example("challenge_confirmation_needed")
    earlier, later = (
        {"challenge": waiting | {"authorization_server": name, "confirmation_needed_at": f"2026-07-13T14:{at}:00Z"}}
        for name, at in (("payments", 10), ("orders", 15))
    )
    two = standings(payments=earlier, orders=later)
    reply, sent = node_says(node_bots, "123456", {"chat": two, "completion": example("completion_code_incorrect")})
    assert reply["text"] == "That is not the code. Tries left: 4"
    assert sent["completion"] == {"code": "123456", "session": 3, "authorization_server": "orders"}


def test_the_bot_in_node_asks_again_for_what_was_left_out(node_bots: Path) -> None:
    refused, issued = example("missing_scope"), {**example("issued")}
    token = {"access_token": {"scope": refused["scope"]}}
    answers = {"orders.list": refused, "chat": standings(orders={}, payments=token), "challenges": issued}
    reply, sent = node_says(node_bots, "Where is my order?", answers)
    assert reply["link"] == issued["url"]
    assert (sent["challenges"]["session"], sent["challenges"]["authorization_server"]) == (3, "payments")
