"""The examples that are programs of their own, as a reader runs them, against the real servers."""

import hashlib
import hmac
import json
import os
import queue
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any, Final

import pytest
import requests
from whatsapp_webhook_bot import messages_in

from consumer_delegation import conversation_id_of
from demo.processes import run_command
from tests.contract import document
from tests.demo.machines import answers, free_ports
from tests.demo.stage import Stage, new_chat, wrong
from tests.machine import missing

BOTS: Final = Path(__file__).parent.parent.parent / "docs" / "bots"
LINK: Final = re.compile(r"http://localhost:\d+/c/[\w-]+")
NUMBER: Final = "4915112345678"
BOOTS: Final = "Walking boots, size 39: On its way, arrives tomorrow"
PATIENCE: Final = 60


def link_in(text: str) -> str:
    found = LINK.search(text)
    assert found, text
    return found[0]


def environment(stage: Stage, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG"}}
    ours = {"BASE": f"{stage.addresses.product}/api/v1", "KEY": stage.calling_key}
    # A reader installs the client.
    return kept | ours | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": str(BOTS.parent.parent / "clients" / "python")} | more


@dataclass
class Terminal:
    """A program at a terminal: what is typed into it, and the lines that it prints."""

    process: "subprocess.Popen[str]"
    lines: "queue.Queue[str]" = field(default_factory=queue.Queue)

    def __post_init__(self) -> None:
        self._listener = threading.Thread(target=self._listen, args=[self.process.stdout], daemon=True)
        self._listener.start()

    def end(self) -> None:
        """End the program, and read what it still says: its output must not be closed under the reader."""
        self.process.terminate()
        self._listener.join(PATIENCE)

    def _listen(self, stdout: IO[str]) -> None:
        for line in stdout:
            self.lines.put(line.rstrip("\n"))

    def type(self, text: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(f"{text}\n")
        self.process.stdin.flush()

    def reads(self) -> str:
        return self.lines.get(timeout=PATIENCE)

    def reads_until(self, last: str) -> list[str]:
        lines = [self.reads()]
        while lines[-1] != last:
            lines.append(self.reads())
        return lines[:-1]


@contextmanager
def program(*command: str, env: dict[str, str]) -> Iterator[Terminal]:
    process = subprocess.Popen(
        command, cwd=BOTS, env=env, text=True, bufsize=1,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    with process:
        terminal = Terminal(process)
        try:
            yield terminal
        finally:
            terminal.end()


def test_python_bot(stage: Stage) -> None:
    ada = stage.consumer()
    with program(sys.executable, "python_bot.py", env=environment(stage)) as terminal:
        terminal.type("Hello")
        assert terminal.reads() == "bot: Ask me: where is my order?"
        terminal.type("123456")
        assert terminal.reads() == "bot: I am not waiting for a code. Ask me where your order is."
        terminal.type("Where is my order?")
        code = ada.gets_code(link_in(terminal.reads()))
        assert terminal.reads() == "bot: Now type the six digits of that page here."
        terminal.type(wrong(code))
        assert terminal.reads() == "bot: That is not the code. Tries left: 4"
        terminal.type(f"{code[:3]} {code[3:]}")
        assert (terminal.reads(), terminal.reads())[0] == f"bot: {BOOTS}"
        ada.takes_back()
        terminal.type("Where is my order?")
        stage.consumer().signs_in(link_in(terminal.reads()), "ada+deny")
        assert terminal.reads() == "bot: The sign-in did not happen (denied). Ask again whenever you like."
        terminal.type("Bye")
        assert terminal.reads() == "bot: Goodbye. I have forgotten everything about this chat."
        terminal.type("Where is my order?")
        assert terminal.reads() == "bot: This chat is over."


@pytest.fixture
def odd_service() -> Iterator[str]:
    """Return the address of a service whose brand is away at first, and then refuses a token without a reason."""
    away, answered = (document()["components"]["examples"][name]["value"] for name in ("api_unreachable", "called"))
    refused = answered | {"response": answered["response"] | {"status": 401, "body_encoding": "none", "body": None}}
    answers = iter([(502, away), (200, refused)])

    class Odd(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            status, body = next(answers)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Odd) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_python_bot_says_once_that_the_brand_is_away_or_refuses(stage: Stage, odd_service: str) -> None:
    """The bug: it asked for the same token again and again, until Python stopped it."""
    with program(sys.executable, "python_bot.py", env=environment(stage, BASE=f"{odd_service}/api/v1")) as terminal:
        terminal.type("Where is my order?")
        assert terminal.reads() == "bot: Acme is not answering right now. Please try again later."
        terminal.type("Where is my order?")
        assert (
            terminal.reads()
            == "bot: This does not work at the moment, and another try does not help. Please tell Acme."
        )
        terminal.type("Hello")
        assert terminal.reads() == "bot: Ask me: where is my order?"


def blocks_of(page: Path) -> list[str]:
    return re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL)


def typed(block: str, code: str) -> str:
    """Return a block as a reader pastes it who has typed the code over the one in it."""
    assert 'CODE="123 456"\n' in block
    return block.replace("123 456", code)


def test_curl(stage: Stage) -> None:
    if not shutil.which("curl"):
        missing("curl is not installed: the page docs/bots/curl.md was not tried")
    ada, blocks = stage.consumer(), blocks_of(BOTS / "curl.md")

    # The way to the token needs a key that may read it.
    with program("bash", env=environment(stage, KEY=stage.bot_key, ORDERS=stage.orders_url)) as shell:

        def paste(block: str) -> list[str]:
            shell.type(f"{block}\necho; echo '--- done'")
            return [line for line in shell.reads_until("--- done") if line]

        assert paste(blocks[0]) == []
        code = ada.gets_code(link_in(paste(blocks[1])[0]))
        assert json.loads(paste(typed(blocks[2], wrong(code)))[0])["attempts_left"] == 4
        assert json.loads(paste(typed(blocks[2], f"{code[:3]} {code[3:]}"))[0])["status"] == "authorized"
        (called,) = paste(blocks[3])
        assert json.loads(called)["response"]["body"]["customer"] == "ada"
        orders, status = paste(blocks[4])
        assert (json.loads(orders)["customer"], status) == ("ada", "200")
        ada.takes_back()
        assert paste(blocks[4])[-1] == "401"
        assert paste(blocks[5])[-1] == "issued"
        assert json.loads(paste(blocks[3])[0])["status"] == "issued"
        assert paste(blocks[6])[-1] == "conversation_closed"


@dataclass
class WhatsApp:
    """Plays the platform: sends signed notifications to the bot, and takes what the bot sends to its consumer."""

    bot: str
    send_url: str
    received: "queue.Queue[dict[str, Any]]" = field(default_factory=queue.Queue)

    def notify(self, text: str, secret: str = "app-secret", sender: dict[str, str] | None = None) -> int:
        message = {"type": "text", "text": {"body": text}} | (sender or {"from": NUMBER})
        value = {"messages": [message]}
        body = json.dumps({"entry": [{"changes": [{"field": "messages", "value": value}]}]}).encode()
        signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        headers = {"X-Hub-Signature-256": f"sha256={signature}"}
        return requests.post(self.bot, data=body, headers=headers, timeout=PATIENCE).status_code

    def says(self, text: str, **sender: str) -> str:
        """Let the consumer say something; return the bot's answer."""
        assert self.notify(text, sender=sender) == 200
        sent = self.received.get(timeout=PATIENCE)
        # A number and nothing else is written to as `to`.
        number, user_id = sender.get("from", "" if sender else NUMBER), sender.get("from_user_id")
        assert (sent.get("to"), sent.get("recipient")) == ((number, None) if number else (None, user_id))
        return str(sent["text"]["body"])


@pytest.fixture
def whatsapp(stage: Stage) -> Iterator[WhatsApp]:
    received: queue.Queue[dict[str, Any]] = queue.Queue()

    class Graph(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200 if self.headers["Authorization"] == "Bearer send-token" else 401)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Graph) as graph:
        threading.Thread(target=graph.serve_forever, args=(0.02,), daemon=True).start()
        (port,) = free_ports(1)
        secrets = {"APP_SECRET": "app-secret", "VERIFY_TOKEN": "verify-token", "SEND_TOKEN": "send-token"}
        send_url = f"http://127.0.0.1:{graph.server_port}/messages"
        env = environment(stage, **secrets, PORT=str(port), SEND_URL=send_url)
        with program(sys.executable, "whatsapp_webhook_bot.py", env=env):
            until = time.monotonic() + PATIENCE
            while not answers(port) and time.monotonic() < until:
                time.sleep(0.05)
            yield WhatsApp(f"http://127.0.0.1:{port}/", send_url, received)
        graph.shutdown()


def test_whatsapp_webhook_bot(stage: Stage, whatsapp: WhatsApp) -> None:
    ada = stage.consumer()
    assert whatsapp.says("Hello") == "Ask me: where is my order?"
    link = link_in(whatsapp.says("Where is my order?"))
    code = ada.gets_code(link)
    assert whatsapp.says(wrong(code)) == "That is not the code. Tries left: 4"
    assert whatsapp.says(code).startswith(BOOTS)
    assert whatsapp.says(code) == "I am not waiting for a code. Ask me where your order is."
    ada.takes_back()
    assert link_in(whatsapp.says("Where is my order?")) != link
    stage.bot().close(conversation_id_of("whatsapp", NUMBER))
    assert whatsapp.says("Where is my order?") == "This chat is over. Please start a new one."


def test_whatsapp_of_somebody_whose_number_is_withheld(stage: Stage, whatsapp: WhatsApp) -> None:
    """The bug: `from` was taken for granted. The id stays, also if a person hides their number in between."""
    ada = {"from_user_id": f"DE.{new_chat()}"}
    code = stage.consumer().gets_code(link_in(whatsapp.says("Where is my order?", **ada, **{"from": NUMBER})))
    assert whatsapp.says(f"It is {code}", **ada).startswith(BOOTS)
    assert link_in(whatsapp.says("Where is my order?", from_user_id=f"DE.{new_chat()}"))


@pytest.mark.parametrize("message", [{"type": "image"}, {"type": "text", "text": {"body": "hi"}}, {"type": "reaction"}])
def test_whatsapp_ignores_what_is_no_text_of_a_person(message: dict[str, Any]) -> None:
    assert (
        list(messages_in({"entry": [{"changes": [{"value": {"messages": [message]}}, {"value": {"statuses": []}}]}]}))
        == []
    )


@pytest.fixture
def reused(stage: Stage) -> Iterator[None]:
    """Let Acme's ids come back, as WhatsApp needs it, by the file that the demo applies."""
    apply_conversation_ids(stage, "reused")
    yield
    apply_conversation_ids(stage, "unique")


def apply_conversation_ids(stage: Stage, ids: str) -> None:
    file = stage.demo.folder / "conversation-ids.toml"
    file.write_text(f'[brand]\nslug = "acme"\nname = "Acme"\nconversation_ids = "{ids}"\n')
    run_command(["manage.py", "apply_config", str(file)], stage.demo.product_environment())


@pytest.mark.usefixtures("reused")
def test_whatsapp_webhook_bot_where_ids_come_back(stage: Stage, whatsapp: WhatsApp) -> None:
    """S2: the number's next chat begins with a sign-in of its own, after whatever ended the last one."""
    links = []
    for _ in range(2):
        links.append(link_in(whatsapp.says("Where is my order?")))
        assert whatsapp.says(stage.consumer().gets_code(links[-1])).startswith(BOOTS)
        assert whatsapp.says("Bye").startswith("Goodbye")
        assert whatsapp.says("Bye").startswith("Goodbye")
    assert links[0] != links[1]


def test_whatsapp_notifications_of_strangers_are_refused(whatsapp: WhatsApp) -> None:
    assert whatsapp.notify("Where is my order?", secret="guessed") == 403
    assert whatsapp.received.empty()


@pytest.mark.parametrize(("token", "status", "text"), [("verify-token", 200, "42"), ("guessed", 403, "")])
def test_whatsapp_verifies_the_address_with_our_token(whatsapp: WhatsApp, token: str, status: int, text: str) -> None:
    asked = {"hub.mode": "subscribe", "hub.verify_token": token, "hub.challenge": "42"}
    answer = requests.get(whatsapp.bot, params=asked, timeout=PATIENCE)
    assert (answer.status_code, answer.text) == (status, text)
