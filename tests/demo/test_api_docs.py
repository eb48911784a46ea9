"""Every curl line of `/api/docs`, as it is printed, against everything that `make demo` leaves up."""

import html
import os
import re
import shutil
import subprocess
import uuid
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import pytest
import requests

from demo.browser import Browser
from demo.preparation import Demo
from demo.story import ALLOW, CONTINUE, CUSTOMER, SIGN_IN
from tests.machine import missing

pytestmark = [pytest.mark.xdist_group("demo_in_browser"), pytest.mark.timeout(180)]

COMMAND: Final = re.compile(
    r'<pre class="shell curl" data-(\w+)="(\w+)" data-expect="([0-9]{3})">(.*?)</pre>', re.DOTALL
)
SETTING: Final = re.compile(r'<pre class="shell setting">(.*?)</pre>', re.DOTALL)


@pytest.fixture(scope="module")
def page(demo: Demo) -> str:
    answer = requests.get(f"{demo.addresses.product}/api/docs", timeout=60)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    return answer.text


@dataclass
class Shell:
    """A developer's shell: the variables that the page tells to set, and the commands that it prints."""

    demo: Demo
    page: str
    variables: dict[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        (setting,) = SETTING.findall(self.page)
        lines = (line.partition("=") for line in html.unescape(setting).splitlines())
        self.variables = {name: value for name, _, value in lines}
        assert self.variables == {
            "BASE": f"{self.demo.addresses.product}/api/v1",
            "KEY": "${KEY:-your-bot-key}",
            "CHAT": "wa:4915112345678",
        }
        self.variables |= {"KEY": self.demo.bot_key_file.read_text().strip(), "CHAT": f"docs:{uuid.uuid4().hex}"}

    def commands(self, kind: str) -> dict[str, tuple[int, str]]:
        found = [row for row in COMMAND.findall(self.page) if row[0] == kind]
        return {name: (int(expected), html.unescape(command)) for _, name, expected, command in found}

    def run(self, kind: str, name: str) -> dict[str, Any]:
        """Run a command as it is printed; fail where it does not answer as the page promises. Return the answer."""
        expected, command = self.commands(kind)[name]
        done = subprocess.run(
            ["bash", "-euc", command],
            env={"PATH": os.environ["PATH"], **self.variables},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        head, _, body = done.stdout.partition("\n\n")
        assert head.split()[1] == str(expected), f"{name}: {done.stdout}"
        answer: dict[str, Any] = msgspec.json.decode(body)
        return answer

    def consumer_signs_in(self, url: str) -> None:
        """Let the consumer open the link, sign in and agree; set what she types into the chat."""
        browser = Browser(lambda *_: None)
        page = browser.press(browser.open(url), CONTINUE)
        page = browser.press(page, SIGN_IN, login=CUSTOMER, password=self.demo.customers[CUSTOMER])
        self.variables["CODE"] = browser.press(page, ALLOW).parsed.data["data-completion-code"]


@pytest.fixture
def shell(demo: Demo, page: str) -> Shell:
    if not shutil.which("curl") or not shutil.which("bash"):
        missing("curl or bash is not installed: the commands of /api/docs did not run")
    return Shell(demo, page)


def test_the_quick_start_leads_to_a_token_and_ends_it(shell: Shell) -> None:
    challenge = shell.run("step", "1")
    shell.variables["CHALLENGE_ID"] = challenge["challenge_id"]
    assert shell.run("step", "2")["status"] == "issued"
    shell.consumer_signs_in(challenge["url"])
    assert shell.run("step", "2")["status"] == "confirmation_needed"
    assert shell.run("step", "3")["status"] == "authorized"
    token = shell.run("step", "4")["access_token"]
    orders = requests.get(
        f"{shell.demo.addresses.brand}/api/orders", headers={"Authorization": f"Bearer {token}"}, timeout=60
    )
    assert (orders.status_code, orders.json()["customer"]) == (200, CUSTOMER)
    assert shell.run("step", "5")["reason"] == "rejected"
    assert list(shell.commands("step")) == ["1", "2", "3", "4", "5"]


def test_the_line_of_every_call_answers_as_it_promises(shell: Shell) -> None:
    shell.variables["CHALLENGE_ID"] = shell.run("operation", "createChallenge")["challenge_id"]
    assert shell.run("operation", "readChallenge")["status"] == "issued"
    assert shell.run("operation", "withdrawChallenge")["status"] == "withdrawn"
    shell.consumer_signs_in(shell.run("operation", "createChallenge")["url"])
    assert shell.run("operation", "complete")["status"] == "authorized"
    assert shell.run("operation", "authorize")["access_token"] == shell.run("operation", "readToken")["access_token"]
    assert shell.run("operation", "callOperation")["response"]["body"]["customer"] == CUSTOMER
    assert shell.run("operation", "listOperations")["operations"][0]["name"] == "orders.list"
    assert shell.run("operation", "endToken")["end_reason"] == "rejected"
    assert shell.run("operation", "readConversation")["conversation_id"] == shell.variables["CHAT"]
    assert shell.run("operation", "closeConversation")["status"] == "closed"
    assert set(shell.commands("operation")) == {
        "createChallenge", "readChallenge", "withdrawChallenge", "complete", "authorize", "readToken", "endToken",
        "readConversation", "closeConversation", "callOperation", "listOperations",
    }  # fmt: skip


def test_the_key_for_trying_it_is_the_persons_own(demo: Demo) -> None:
    assert demo.bot_key_file.stat().st_mode & 0o777 == 0o600


def test_the_page_holds_nothing_secret(demo: Demo, page: str) -> None:
    """It is cached by whoever likes to, and asked for without a key."""
    secrets = [demo.bot_key_file.read_text().strip(), demo.client_secret, demo.admin_password, *demo.customers.values()]
    assert [secret for secret in secrets if secret in page] == []
