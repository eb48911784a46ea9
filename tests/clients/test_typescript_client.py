"""The TypeScript client on a wire that gives one answer after the other: the rules of the Python client."""

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from consumer_delegation.problems import problem_of
from tests.clients.test_webhooks_of_clients import BODY, REFUSED, SECRET, signed
from tests.contract import document
from tests.test_contract import problem_examples

pytestmark = pytest.mark.full

Answer = tuple[int, str, dict[str, str]]


def example(name: str, status: int, **headers: str) -> Answer:
    return status, json.dumps(document()["components"]["examples"][name]["value"]), headers


ISSUED = example("issued", 202, ETag='W/"1"')
BUSY = example("rate_limited", 429, **{"Retry-After": "0"})
AWAY = example("unavailable", 503, **{"Retry-After": "0"})


@contextmanager
def wire(answers: list[Answer]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Serve these answers in their order; keep what was sent."""
    sent: list[dict[str, Any]] = []
    waiting = list(answers)

    class Wire(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            sent.append({"method": self.command, "path": self.path, "headers": dict(self.headers), "body": body})
            status, text, headers = waiting.pop(0)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(text.encode()))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text.encode())

        do_POST = do_DELETE = do_GET

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Wire) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/api/v1", sent
        server.shutdown()


def run(client: Path, calls: str, base: str = "http://127.0.0.1:9/api/v1", given: Any = None) -> Any:
    """Run lines of JavaScript and return what they tell. `told` catches what a call rejects with."""
    program = (
        f"import * as client from {json.dumps(str(client / 'dist' / 'index.js'))};"
        "import { readFileSync } from 'node:fs';"
        f"const delegation = new client.Delegation({{ baseUrl: {json.dumps(base)}, botKey: 'cd_planted.key' }});"
        "const told = (call) => call.then((answer) => ({ answer }), ({ name, message, code, next, attemptsLeft }) =>"
        " ({ name, message, code, next, attemptsLeft }));"
        "const given = JSON.parse(readFileSync(0, 'utf8'));"
        f"console.log(JSON.stringify(await (async () => {{ {calls} }})()));"
    )
    command = ["node", "--input-type=module", "-e", program]
    done = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "cd_planted" not in done.stdout
    return json.loads(done.stdout)


def test_all_pages_of_the_operations_are_read(built_typescript: Path) -> None:
    (_, text, _), ended = example("operations", 200), json.dumps({"operations": [], "next_after": "orders.list"})
    first = json.dumps(json.loads(text) | {"next_after": "orders.note"})
    with wire([(200, first, {}), (200, text, {}), (200, ended, {})]) as (base, sent):
        told = run(built_typescript, "return [await delegation.operations(), await delegation.operations()]", base)
    assert [each["name"] for each in told[0]] == ["orders.list", "orders.note", "orders.list", "orders.note"]
    assert [each["path"] for each in sent] == [
        "/api/v1/operations", "/api/v1/operations?after=orders.note", "/api/v1/operations",
    ]  # fmt: skip
    assert told[1] == [], "a page without operations is the last one"


def test_retry_after_is_honoured_and_the_idempotency_key_stays(built_typescript: Path) -> None:
    with wire([BUSY, AWAY, ISSUED]) as (base, sent):
        told = run(built_typescript, "return told(delegation.createChallenge('a|b', { replace: true }))", base)
    assert told["answer"]["status"] == "issued"
    assert len({request["headers"]["Idempotency-Key"] for request in sent}) == 1
    assert [request["path"] for request in sent] == ["/api/v1/conversations/a%7Cb/challenges"] * 3


@pytest.mark.parametrize(
    "call",
    [
        "complete('chat', '123456')",
        "endToken('chat', 'rejected')",
        "authorize('chat', { replace: true })",
        "call('chat', 'orders.list')",
    ],
)
def test_what_may_do_harm_twice_is_sent_once(built_typescript: Path, call: str) -> None:
    with wire([AWAY]) as (base, sent):
        told = run(built_typescript, f"return told(delegation.{call})", base)
    assert (told["name"], len(sent)) == ("Unavailable", 1)


@pytest.mark.parametrize(
    ("answer", "call", "name"),
    [
        (example("completion_code_incorrect", 422), "complete('chat', '1')", "CodeIncorrect"),
        (example("unchallenged", 409), "complete('chat', '1')", "NothingToConfirm"),
        (example("unchallenged", 409), "token('chat')", "NoToken"),
        (example("step_up_required", 409), "call('chat', 'orders.list')", "StepUpRequired"),
        (example("conversation_closed", 410), "authorize('chat')", "ConversationClosed"),
        (example("invalid_bot_key", 401), "close('chat')", "KeyRefused"),
        ((409, '{"code": "constructor"}', {}), "token('chat')", "NoToken"),
        ((302, "", {"Location": "http://127.0.0.1:9/"}), "token('chat')", "RequestRefused"),
        ((502, "<h1>Bad gateway</h1>", {}), "token('chat')", "ServiceFailed"),
        ((200, "<h1>Sign in to the hotel's network</h1>", {}), "token('chat')", "UnreadableAnswer"),
        ((200, "{}", {}), "authorize('chat')", "UnreadableAnswer"),
    ],
)
def test_each_kind_of_problem_is_a_class(built_typescript: Path, answer: Answer, call: str, name: str) -> None:
    with wire([answer]) as (base, _):
        assert run(built_typescript, f"return told(delegation.{call})", base)["name"] == name


def test_what_helps_is_what_the_python_client_says(built_typescript: Path) -> None:
    bodies = [*problem_examples().values(), *({"status": status, "code": "of_tomorrow"} for status in (409, 429, 500))]
    lines = (
        "const remedies = []; for (const body of given) {"
        " const fetch = async () => new Response(JSON.stringify(body), { status: body.status });"
        " const options = { baseUrl: 'https://a.example/api/v1', botKey: 'k', patience: 0, fetch };"
        " await new client.Delegation(options).complete('chat', '1').catch(({ remedy }) => remedies.push(remedy));"
        "} return remedies;"
    )
    told = run(built_typescript, lines, given=bodies)
    assert told == [problem_of(httpx.Response(body["status"], json=body)).remedy for body in bodies]


def test_waiting_sends_the_tag_and_goes_on_after_an_unchanged_answer(built_typescript: Path) -> None:
    answers = [ISSUED, (304, "", {"ETag": 'W/"1"'}), example("challenge_denied", 200)]
    with wire(answers) as (base, sent):
        lines = "const asked = await delegation.authorize('chat'); return told(delegation.wait(asked));"
        assert run(built_typescript, lines, base)["answer"]["status"] == "denied"
    assert [request["headers"].get("If-None-Match") for request in sent] == [None, 'W/"1"', 'W/"1"']


@pytest.mark.parametrize("conversation_id", ["", ".", "..", "spaces/AAAA", "a b", "é", "x" * 201, "a\n"])
def test_an_id_that_would_lead_elsewhere_is_never_sent(built_typescript: Path, conversation_id: str) -> None:
    told = run(built_typescript, "return told(delegation.close(given))", given=conversation_id)
    assert told["name"] == "RangeError"


def test_webhooks_are_verified(built_typescript: Path) -> None:
    right = signed()
    given = [SECRET, [right, *(changed(right) for changed in REFUSED.values())], BODY.decode()]
    lines = (
        "const [secret, all, body] = given;"
        "return all.map((headers) => { try { return client.verifyWebhook(secret, headers, body).type; }"
        " catch (error) { return error.name; } });"
    )
    assert run(built_typescript, lines, given=given) == ["webhook.test", *["WebhookRefused"] * len(REFUSED)]
