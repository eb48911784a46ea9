"""The MCP server, a real client of MCP, the real product, and somebody who signs in."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from playwright.sync_api import sync_playwright

from tests.demo.stage import Stage, wrong
from tests.mcp.conftest import Connect
from tests.mcp.players import BOOTS, BOTH, FOLDER, MODES, PYTHON, ROOT, client, link_in, needs_server, says_no_secret

pytestmark = pytest.mark.full

# What others can reach, or may be able to.
PUBLIC = ("[::]", "acme.example", "0", "*", "192.0.2.1", "[::ffff:0.0.0.0]", "127.0.0.1.acme.example")
HTTP = {"CONSUMER_DELEGATION_URL": "https://acme.example/api/v1", "CONSUMER_DELEGATION_BOT_KEY": "secret"}


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


@pytest.mark.parametrize("elicitation", [(), BOTH], ids=["as text", "elicitation"])
@pytest.mark.parametrize("mode", MODES)
def test_no_frame_and_no_log_line_has_the_token_or_a_key(
    mode: str, elicitation: tuple[str, ...], connect: Connect, stage: Stage, mcp_key: str
) -> None:
    """The server's key cannot read the token. Another one reads it, so that it can be looked for."""
    mcp = connect(mode, elicitation=elicitation)
    if elicitation:
        code = stage.consumer().gets_code(mcp.is_asked("orders_list")["url"])
        mcp.says(action="accept")
        assert BOOTS in mcp.says(action="accept", content={"digits": code})["text"]
    else:
        mcp.calls("confirm_sign_in", digits=stage.consumer().gets_code(link_in(mcp.calls("orders_list"))))
        assert BOOTS in mcp.calls("orders_list")
    says_no_secret(mcp.frames, stage, mcp_key, mcp.conversation_id)


def buttons_at(link: str, stage: Stage) -> list[str]:
    return [button.words for form in stage.consumer().browser.open(link).parsed.forms for button in form.buttons]


def test_the_conversation_of_a_process_ends_with_it(stage: Stage, mcp_key: str, tmp_path: Path) -> None:
    """Its id is random and nobody else knows it: a token that nobody can use any more would stay."""
    with client(stage, mcp_key, tmp_path / "first", "auto", CONSUMER_DELEGATION_CONVERSATION_ID="") as mcp:
        link = link_in(mcp.calls("orders_list"))
        assert "This wasn't me" in buttons_at(link, stage)
    assert buttons_at(link, stage) == []


def types_in(form: dict[str, Any]) -> list[str]:
    return list(form["requestedSchema"]["properties"])


@pytest.mark.parametrize("mode", MODES)
def test_with_elicitation_neither_link_nor_digits_pass_the_model(mode: str, connect: Connect, stage: Stage) -> None:
    mcp = connect(mode, elicitation=BOTH)
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
    assert ("notifications/elicitation/complete" in mcp.frames.read_text()) == (MODES[mode] == "2025-11-25")


@pytest.mark.parametrize("mode", MODES)
def test_an_accepted_link_is_waited_for(mode: str, connect: Connect, stage: Stage) -> None:
    """`accept` means only that the person will open it."""
    mcp = connect(mode, elicitation=BOTH)
    link = mcp.is_asked("orders_list")["url"]
    with ThreadPoolExecutor() as beside:
        asked = beside.submit(mcp.says, action="accept")
        code = stage.consumer().gets_code(link)
        assert asked.result()["asked"]["mode"] == "form"
    assert BOOTS in mcp.says(action="accept", content={"digits": code})["text"]


@pytest.mark.parametrize("mode", MODES)
def test_a_link_that_is_declined_is_withdrawn(mode: str, connect: Connect, stage: Stage) -> None:
    mcp = connect(mode, elicitation=BOTH)
    link = mcp.is_asked("orders_list")["url"]
    assert "did not want to sign in" in mcp.says(action="decline")["text"]
    assert buttons_at(link, stage) == []
    assert mcp.is_asked("orders_list")["url"] != link
    mcp.says(action="cancel")


@pytest.mark.parametrize("mode", MODES)
def test_a_dialogue_that_is_closed_leaves_the_link(mode: str, connect: Connect) -> None:
    mcp = connect(mode, elicitation=BOTH)
    link = mcp.is_asked("orders_list")["url"]
    assert "did not want to sign in" in mcp.says(action="cancel")["text"]
    assert mcp.is_asked("orders_list")["url"] == link
    mcp.says(action="cancel")


@pytest.mark.parametrize("mode", MODES)
def test_who_says_no_at_the_brand_is_not_asked_again_by_itself(mode: str, connect: Connect, stage: Stage) -> None:
    mcp = connect(mode, elicitation=BOTH)
    stage.consumer().signs_in(mcp.is_asked("orders_list")["url"], "ada+deny")
    assert "has ended (denied)" in mcp.says(action="accept")["text"]


@pytest.mark.parametrize("mode", MODES)
def test_digits_that_were_not_typed_are_asked_for_by_the_next_call(mode: str, connect: Connect, stage: Stage) -> None:
    mcp = connect(mode, elicitation=BOTH)
    code = stage.consumer().gets_code(mcp.is_asked("orders_list")["url"])
    assert mcp.says(action="accept")["asked"]["mode"] == "form"
    assert "did not type the digits" in mcp.says(action="cancel")["text"]
    assert mcp.is_asked("orders_list")["mode"] == "form"
    assert BOOTS in mcp.says(action="accept", content={"digits": code})["text"]


@pytest.mark.parametrize("mode", MODES)
def test_after_five_wrong_codes_the_next_call_brings_a_new_link(mode: str, connect: Connect, stage: Stage) -> None:
    mcp = connect(mode, elicitation=BOTH)
    link = mcp.is_asked("orders_list")["url"]
    code = stage.consumer().gets_code(link)
    mcp.says(action="accept")
    answers = [mcp.says(action="accept", content={"digits": wrong(code)}) for _ in range(5)]
    assert "no try is left" in answers[-1]["text"]
    assert mcp.is_asked("orders_list")["url"] != link
    mcp.says(action="cancel")


@pytest.mark.parametrize("mode", MODES)
def test_somebody_signs_in_in_a_real_browser(
    mode: str, connect: Connect, stage: Stage, requires_chromium: Path
) -> None:
    """The link that the client opens, the brand's pages and our six digits, in Chromium."""
    mcp = connect(mode, elicitation=BOTH)
    link = mcp.is_asked("orders_list")["url"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(requires_chromium), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 360, "height": 740})
        page.goto(link)
        page.locator("main form button").first.click()
        page.get_by_label("Username").fill("ada")
        page.get_by_label("Password").fill(stage.demo.customers["ada"])
        page.get_by_role("button", name="Sign in").click()
        page.get_by_role("button", name="Allow", exact=True).click()
        digits = page.locator("[data-completion-code]").get_attribute("data-completion-code")
        assert page.get_by_role("heading", level=1).inner_text()
        browser.close()
    assert mcp.says(action="accept")["asked"]["mode"] == "form"
    assert BOOTS in mcp.says(action="accept", content={"digits": digits})["text"]


@pytest.mark.parametrize("mode", MODES)
def test_five_wrong_codes_without_elicitation(mode: str, connect: Connect, stage: Stage) -> None:
    mcp = connect(mode)
    link = link_in(mcp.calls("orders_list"))
    code = stage.consumer().gets_code(link)
    answers = [mcp.fails("confirm_sign_in", digits=wrong(code)) for _ in range(5)]
    assert "Tries left: 1" in answers[3]
    assert "no try is left" in answers[4]
    assert "No sign-in waits" in mcp.fails("confirm_sign_in", digits=code)
    assert link_in(mcp.calls("orders_list")) != link


@pytest.mark.parametrize("way", ["url", "form"])
@pytest.mark.parametrize("mode", MODES)
def test_a_client_that_can_ask_in_one_way_alone(mode: str, way: str, connect: Connect, stage: Stage) -> None:
    mcp = connect(mode, elicitation=(way,))
    has_confirm = "confirm_sign_in" in {tool["name"] for tool in mcp.says(list=True)["tools"]}
    assert has_confirm == (way == "url")
    if way == "url":
        code = stage.consumer().gets_code(mcp.is_asked("orders_list")["url"])
        assert "Ask them for the six digits" in mcp.says(action="accept")["text"]
        mcp.calls("confirm_sign_in", digits=code)
        assert BOOTS in mcp.calls("orders_list")
        return
    code = stage.consumer().gets_code(link_in(mcp.calls("orders_list")))
    assert mcp.is_asked("orders_list")["mode"] == "form"
    assert BOOTS in mcp.says(action="accept", content={"digits": code})["text"]


@contextmanager
def answering(status: int, body: str, location: str) -> Iterator[str]:
    """Serve something that is no product, or not for the moment. Gives its address."""

    class Same(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"] or 0))
            self.send_response(status)
            headers = {"Content-Type": "application/json", "Location": location, "Retry-After": "60"}
            for name, value in (headers | {"Content-Length": str(len(body))}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body.encode())

        do_POST = do_GET

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Same) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


AWAY = '{"type": "x", "title": "x", "status": 503, "code": "unavailable", "detail": "x", "next": null}'
ANSWERS = {
    "503": (503, AWAY, "away for the moment."),
    "a page of a proxy": (502, "<html>planted</html>", "The service has a fault."),
    "no object": (200, "[]", "No answer came that can be read."),
    "a redirect": (302, "", "The service has a fault."),
}


@pytest.mark.parametrize(("status", "body", "sentence"), ANSWERS.values(), ids=ANSWERS)
def test_what_the_model_is_told_if_the_product_has_a_fault(
    status: int, body: str, sentence: str, connect: Connect
) -> None:
    """The bug: an answer that nobody could read was said to be one of a call that was not done."""
    with answering(status, body, "https://attacker.example/") as address:
        mcp = connect("auto", CONSUMER_DELEGATION_URL=f"{address}/api/v1")
        assert f"{sentence} Nothing was done" in mcp.says(call="orders_list")["refused"]
        assert f"{sentence} It may have been done" in mcp.fails("confirm_sign_in", digits="123456")
        frames = mcp.frames.read_text()
    assert [word for word in ("planted", "attacker.example") if word in frames] == []


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", MODES)
def test_a_sign_in_that_takes_long_ends_the_call_in_words(mode: str, connect: Connect) -> None:
    """Ten empty rounds end the call at the client, with an error."""
    mcp = connect(mode, elicitation=BOTH)
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
        (HTTP | {"CONSUMER_DELEGATION_LISTEN": "0.0.0.0:8040"}, "Without authorization"),
        *((HTTP | {"CONSUMER_DELEGATION_LISTEN": f"{host}:8040"}, "Without authorization") for host in PUBLIC),
        (
            HTTP
            | {"CONSUMER_DELEGATION_LISTEN": "127.0.0.1:8040", "CONSUMER_DELEGATION_ISSUER": "https://acme.example"},
            "CONSUMER_DELEGATION_JWKS_URL",
        ),
        (HTTP | {"CONSUMER_DELEGATION_LISTEN": "8040"}, "such as 127.0.0.1:8040"),
        (
            HTTP
            | {"CONSUMER_DELEGATION_LISTEN": "0.0.0.0:8040", "CONSUMER_DELEGATION_ISSUER": "https://acme.example"}
            | {"CONSUMER_DELEGATION_RESOURCE": "https://mcp.acme.example/mcp"}
            | {"CONSUMER_DELEGATION_JWKS_URL": "file:///etc/passwd"},
            "begin with https://",
        ),
    ],
)
def test_a_wrong_setting_is_one_sentence_without_its_value(settings: dict[str, str], sentence: str) -> None:
    needs_server()
    done = subprocess.run(
        [PYTHON, "-m", "consumer_delegation_mcp"], env=settings, capture_output=True, text=True, check=False, timeout=90
    )
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "secret" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.timeout(600)  # mypy reads the SDK, too
def test_the_server_has_the_types_of_its_sdk() -> None:
    needs_server()
    options = ["--strict", "--config-file=", "--cache-dir=/dev/null", f"--python-executable={PYTHON}"]
    package = ROOT / "clients" / "mcp" / "consumer_delegation_mcp"
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, package, FOLDER / "play_client.py"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
