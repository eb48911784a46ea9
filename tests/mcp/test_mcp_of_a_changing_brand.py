"""What a brand, its admin and time change while a chat goes on. The ids of its conversations are reused."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from demo.bot_api import call
from demo.preparation import CALLING_SCOPES, Demo, create_bot_key, start_product
from demo.processes import Servers, run_command
from tests.demo.machines import running_servers
from tests.demo.stage import Stage
from tests.mcp.conftest import Connect
from tests.mcp.players import BOOTS, BOTH, Client, client, link_in, says_no_secret

pytestmark = pytest.mark.full

NOTES = """
[[apis]]
key = "notes-api"
authorization_server = "orders"
base_url = "{url}"

[[apis.operations]]
name = "notes.add"
method = "POST"
path = "/notes"
scope = "orders.read"
is_body_required = true
body_schema = {{type = "object", required = ["note"], properties = {{note = {{type = "string"}}}}}}

[[apis.operations]]
name = "notes.add_one"
method = "POST"
path = "/notes"

[[apis.operations]]
name = "notes_add.one"
method = "GET"
path = "/notes"

[[apis.operations]]
name = "{long}"
method = "GET"
path = "/notes"
"""
LONG = "notes." + "x" * 90


@dataclass
class NotesApi:
    """An API of Acme's that takes notes, and what it was sent."""

    url: str = ""
    notes: list[Any] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)


@contextmanager
def taking_notes() -> Iterator[NotesApi]:
    api = NotesApi()

    class Notes(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            api.tokens.append(self.headers["Authorization"].removeprefix("Bearer "))
            api.notes.append(json.loads(self.rfile.read(int(self.headers["Content-Length"] or 0)) or b"null"))
            self.send_response(201)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Notes) as server:
        api.url = f"http://127.0.0.1:{server.server_port}"
        Thread(target=server.serve_forever, daemon=True).start()
        yield api
        server.shutdown()


@dataclass
class Scene:
    """A product that a test may change."""

    stage: Stage
    servers: Servers
    notes: NotesApi
    key: str

    def manage(self, program: str) -> str:
        """Do what an admin or the clock does."""
        return run_command(["manage.py", "shell", "-c", program], self.stage.demo.product_environment())

    def switch(self, operation: str, *, on: bool) -> None:
        self.manage(
            f"from brands.models import Operation as O; O.objects.filter(name={operation!r}).update(is_active={on})"
        )

    def closes(self, conversation_id: str) -> None:
        """Close the first session, as the sample chat does when somebody leaves."""
        url = f"{self.stage.addresses.product}/api/v1/conversations/{conversation_id}?session=1"
        assert call("DELETE", url, self.stage.bot_key).status == 200

    def expire(self, model: str) -> None:
        name = f"from conversations.models import {model} as M; from django.utils import timezone as t;"
        self.manage(f"{name} M.objects.filter(ended_at=None).update(expires_at=t.now())")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("changing") / "folder"
    with taking_notes() as notes, running_servers(folder) as (demo, servers, bot_key):
        declare(demo, notes)
        key = create_bot_key(demo.product_environment(), "MCP", CALLING_SCOPES)
        yield Scene(Stage(demo, bot_key), servers, notes, key)


def declare(demo: Demo, notes: NotesApi) -> None:
    file = demo.folder / "acme.toml"
    text = file.read_text().replace("[brand]\n", '[brand]\nconversation_ids = "reused"\nclose_idle_after = 3600\n', 1)
    file.write_text(text + NOTES.format(url=notes.url, long=LONG))
    environment = demo.product_environment() | {"ACME_CLIENT_SECRET": demo.client_secret}
    run_command(["manage.py", "apply_config", str(file)], environment)


@pytest.fixture
def connect(scene: Scene, tmp_path: Path) -> Iterator[Connect]:
    with ExitStack() as stack:
        yield lambda mode, **settings: stack.enter_context(
            client(scene.stage, scene.key, tmp_path / "frames", mode, **settings)
        )


KINDS = ("legacy", "auto", "typescript")


def signs_in(mcp: Client, scene: Scene) -> None:
    mcp.calls("confirm_sign_in", digits=scene.stage.consumer().gets_code(link_in(mcp.calls("orders_list"))))


@pytest.mark.parametrize("mode", KINDS)
def test_what_changes_something_is_done_in_the_open_session(mode: str, connect: Connect, scene: Scene) -> None:
    """P12: the call names the session; after it was closed, the next person signs in, and theirs is the next one."""
    mcp = connect(mode)
    note = {"note": f"Ring twice, {mode}"}
    code = scene.stage.consumer().gets_code(link_in(mcp.calls("notes_add", body=note)))
    mcp.calls("confirm_sign_in", digits=code)
    assert "answered 201" in mcp.calls("notes_add", body=note)
    assert scene.notes.notes[-1] == note
    scene.closes(mcp.conversation_id)
    rita = scene.stage.consumer().gets_code(link_in(mcp.calls("notes_add", body=note)), "rita")
    assert scene.notes.notes.count(note) == 1
    mcp.calls("confirm_sign_in", digits=rita)
    assert "answered 201" in mcp.calls("notes_add", body=note)
    assert scene.notes.notes.count(note) == 2
    assert len(set(scene.notes.tokens[-2:])) == 2
    said = mcp.frames.read_text()
    assert [token for token in scene.notes.tokens if token in said] == []


@pytest.mark.parametrize("mode", KINDS)
def test_what_changes_something_is_done_once_after_an_elicitation(mode: str, connect: Connect, scene: Scene) -> None:
    mcp = connect(mode, elicitation=BOTH)
    note = {"note": f"Once, {mode}"}
    code = scene.stage.consumer().gets_code(mcp.is_asked("notes_add", body=note)["url"])
    mcp.says(action="accept")
    assert "answered 201" in mcp.says(action="accept", content={"digits": code})["text"]
    assert scene.notes.notes.count(note) == 1


def test_a_body_that_does_not_fit_is_refused_before_anybody_is_asked(connect: Connect) -> None:
    mcp = connect("auto")
    assert "arguments_invalid" in mcp.fails("notes_add", body={"note": 7})
    assert "arguments_invalid" in mcp.fails("notes_add")


def tools_of(mcp: Client) -> set[str]:
    return {tool["name"] for tool in mcp.says(list=True)["tools"]}


def test_no_two_operations_have_one_name(connect: Connect, scene: Scene) -> None:
    """The bug: after one of them was switched off, the name of its tool led to the other one."""
    mcp = connect("auto")
    (reads, adds) = sorted(name for name in tools_of(mcp) if name.startswith("notes_add_one_"))
    scene.switch("notes.add_one", on=False)
    try:
        assert "notes_add_one" in tools_of(mcp)
        assert mcp.says(call=reads)["refused"] == mcp.says(call=adds)["refused"] == "There is no tool of this name."
    finally:
        scene.switch("notes.add_one", on=True)
    assert {reads, adds} <= tools_of(mcp)


def test_a_name_is_no_longer_than_models_take(connect: Connect) -> None:
    assert max(len(name) for name in tools_of(connect("auto"))) == 64


def test_an_operation_that_was_switched_off_is_no_tool_any_more(connect: Connect, scene: Scene) -> None:
    mcp = connect("auto", elicitation=BOTH)
    assert "notes_add" in tools_of(mcp)
    code = scene.stage.consumer().gets_code(mcp.is_asked("notes_add", body={"note": "Too late"})["url"])
    mcp.says(action="accept")
    scene.switch("notes.add", on=False)
    try:
        assert mcp.says(action="accept", content={"digits": code}) == {"refused": "There is no tool of this name."}
        assert "notes_add" not in tools_of(mcp)
    finally:
        scene.switch("notes.add", on=True)
    assert {"note": "Too late"} not in scene.notes.notes


@pytest.mark.parametrize("mode", KINDS)
def test_a_link_that_has_expired_is_said_to_have(mode: str, connect: Connect, scene: Scene) -> None:
    mcp = connect(mode, elicitation=BOTH)
    link = mcp.is_asked("orders_list")["url"]
    scene.expire("Challenge")
    assert "has ended (expired)" in mcp.says(action="accept")["text"]
    assert mcp.is_asked("orders_list")["url"] != link
    mcp.says(action="cancel")


def test_a_link_that_has_expired_is_replaced_in_the_text(connect: Connect, scene: Scene) -> None:
    mcp = connect("auto")
    link = link_in(mcp.calls("orders_list"))
    scene.expire("Challenge")
    assert "No sign-in waits" in mcp.fails("confirm_sign_in", digits="123456")
    assert link_in(mcp.calls("orders_list")) != link


def test_after_the_token_has_expired_the_person_signs_in_again(connect: Connect, scene: Scene) -> None:
    mcp = connect("auto")
    signs_in(mcp, scene)
    assert BOOTS in mcp.calls("orders_list")
    scene.expire("AccessToken")
    signs_in(mcp, scene)
    assert BOOTS in mcp.calls("orders_list")
    says_no_secret(mcp.frames, scene.stage, scene.key, mcp.conversation_id)


def test_what_a_revoked_key_gets_is_said_without_the_key(connect: Connect, scene: Scene) -> None:
    own = create_bot_key(scene.stage.demo.product_environment(), "Revoked", CALLING_SCOPES)
    mcp = connect("auto", CONSUMER_DELEGATION_BOT_KEY=own)
    link_in(mcp.calls("orders_list"))
    scene.manage(
        "from brands.models import BotKey as K; from django.utils import timezone as t;"
        "K.objects.filter(label='Revoked').update(revoked_at=t.now())"
    )
    refused = mcp.says(call="orders_list")["refused"]
    assert "operator has to look" in refused
    assert "invalid_bot_key" in mcp.fails("confirm_sign_in", digits="123456")
    assert own not in mcp.frames.read_text()


@pytest.mark.timeout(300)
def test_while_the_product_is_away_the_model_is_told(connect: Connect, scene: Scene) -> None:
    mcp = connect("auto")
    signs_in(mcp, scene)
    (product,) = [server for server in scene.servers.running if server.name == "product"]
    scene.servers.stop(product)
    try:
        assert "cannot be reached" in mcp.says(call="orders_list")["refused"]
        assert "cannot be reached" in mcp.fails("confirm_sign_in", digits="123456")
    finally:
        start_product(scene.stage.demo, scene.servers)
    assert BOOTS in mcp.calls("orders_list")
