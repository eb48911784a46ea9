"""What the MCP server makes of refusals. The product here is a script, and its answers are the contract's."""

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from subprocess import PIPE
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.contract import document
from tests.mcp.players import BOTH, PYTHON, RECORDED, Client, needs_server, playing
from tests.test_contract import problem_examples

pytestmark = pytest.mark.full

Connect = Callable[..., Client]
CHAT = "web:4711"
CALL = f"POST /api/v1/conversations/{CHAT}/calls/orders.list"
READ = f"GET /api/v1/conversations/{CHAT}"
CREATE = f"POST /api/v1/conversations/{CHAT}/challenges"
CHALLENGE = f"GET /api/v1/challenges/{document()['components']['examples']['issued']['value']['challenge_id']}"
WITHDRAW = CHALLENGE.replace("GET", "DELETE")
COMPLETE = f"POST /api/v1/conversations/{CHAT}/completion"


def example(name: str, **changed: Any) -> Any:
    return deepcopy(document()["components"]["examples"][name]["value"]) | changed


def problem(name: str) -> tuple[int, Any]:
    body = example(name)
    return body["status"], body


@dataclass
class Product:
    """Answers each call with what is next in its list, and with the last one again."""

    url: str = ""
    answers: dict[str, list[tuple[int, Any]]] = field(default_factory=dict)
    heard: list[tuple[str, Any]] = field(default_factory=list)

    def next(self, called: str, body: Any) -> tuple[int, Any]:
        self.heard.append((called, body))
        found = self.answers[called]
        return found.pop(0) if len(found) > 1 else found[0]

    def bodies(self, called: str) -> list[Any]:
        return [body for name, body in self.heard if name == called]


@contextmanager
def producing() -> Iterator[Product]:
    product = Product(answers={"GET /api/v1/operations": [(200, example("operations"))]})

    class Scripted(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            sent = self.rfile.read(int(self.headers["Content-Length"] or 0))
            called = f"{self.command} {urlsplit(self.path).path}".replace("%3A", ":")
            status, answer = product.next(called, json.loads(sent or b"null"))
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_DELETE = do_GET

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Scripted) as server:
        product.url = f"http://127.0.0.1:{server.server_port}/api/v1"
        Thread(target=server.serve_forever, daemon=True).start()
        yield product
        server.shutdown()


@pytest.fixture
def product() -> Iterator[Product]:
    needs_server()
    with producing() as running:
        yield running


@pytest.fixture
def environment(product: Product, tmp_path: Path) -> dict[str, str]:
    return {
        "PATH": "/usr/bin:/bin",
        "PYTHON": str(PYTHON),
        "FRAMES": str(tmp_path / "frames"),
        "CONSUMER_DELEGATION_URL": product.url,
        "CONSUMER_DELEGATION_BOT_KEY": "a-key",
        "CONSUMER_DELEGATION_CONVERSATION_ID": CHAT,
    }


@pytest.fixture
def connect(environment: dict[str, str], tmp_path: Path) -> Iterator[Connect]:
    with ExitStack() as stack:

        def connected(mode: str = "auto", *ways: str) -> Client:
            wanted = {"command": ["/bin/sh", "-c", RECORDED], "env": environment, "mode": mode, "elicitation": ways}
            return stack.enter_context(playing(wanted, tmp_path / "frames"))

        yield connected


def standing(server: str, **changed: Any) -> dict[str, Any]:
    empty = {"reason": None, "challenge": None, "access_token": None, "last_challenge": None}
    return {"authorization_server": server, "status": "unchallenged"} | empty | changed


def conversation(*standings: dict[str, Any]) -> tuple[int, Any]:
    return 200, {"conversation_id": CHAT, "session": 1, "closed_at": None, "authorization_servers": [*standings]}


def issued(**changed: Any) -> tuple[int, Any]:
    return 202, example("issued", **changed)


def test_a_call_that_was_not_sent_is_not_said_to_be_done_perhaps(product: Product, connect: Connect) -> None:
    """The bug: of `api_busy` the model was told to look whether it had been done."""
    product.answers[CALL] = [problem("api_busy")]
    told = connect().fails("orders_list")
    assert "busy" in told
    assert "Nothing was done" in told
    assert "may have been done" not in told


@pytest.mark.parametrize(
    "name", ["step_up_unavailable", "api_host_refused", "api_proof_refused", "missing_scope_for_good"]
)
def test_what_no_sign_in_can_bring_is_said_in_words(name: str, product: Product, connect: Connect) -> None:
    product.answers[CALL] = [problem(name)]
    told = connect().fails("orders_list")
    assert problem(name)[1]["code"] in told
    assert "admin" in told


# What a model cannot do: it has a person to talk with, and tools.
BEYOND_A_MODEL = (
    *("Create a challenge", "challenges", "completion", "set replace", "withdraw", "X-Purpose", "bot key", "min_ttl"),
    *("Read the", "Idempotency", "Name one", "name one", "Use a new", "Send ", "Retry-After", "Leave it", "address"),
)


@pytest.mark.timeout(300)
def test_of_each_problem_the_model_is_told_what_it_can_do(product: Product, connect: Connect) -> None:
    """The bug: of many it was told to do what only a bot's developer can, or to wait for what no time mends."""
    product.answers[READ] = [conversation(standing("orders"))]
    older = problem("challenge_differs")[1]["challenge_id"]
    product.answers[f"GET /api/v1/challenges/{older}"] = [(200, example("challenge_started"))]
    mcp, told = connect(), {}
    for name, body in problem_examples().items():
        product.answers[CALL] = product.answers[CREATE] = [(body["status"], body)]
        told[name] = mcp.fails("orders_list")
    said = {name: text.split(f" ({problem(name)[1]['code']})") for name, text in told.items()}
    assert [name for name, parts in said.items() if len(parts) < 2] == []
    assert {name: parts for name, parts in said.items() if any(word in parts[0] for word in BEYOND_A_MODEL)} == {}
    waits = {name for name, text in told.items() if "Try again later" in text or "away" in text or "in 60 sec" in text}
    assert waits == {"rate_limited", "unavailable", "api_busy"}


def test_after_too_many_calls_the_model_is_told_how_long_to_wait(product: Product, connect: Connect) -> None:
    product.answers[CALL] = [problem("rate_limited")]
    assert "in 60 seconds" in connect().fails("orders_list")


@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.parametrize("error", ["invalid_client", "claim_unusable", "assurance_not_met", "sign_in_refused"])
def test_a_sign_in_that_only_the_brand_can_mend_is_given_up(
    mode: str, error: str, product: Product, connect: Connect
) -> None:
    """The bug: "has not finished signing in", and the model was told to call again, for as long as the link lived."""
    failed = example("challenge_started", last_error=error)
    product.answers[CALL] = [issued()]
    product.answers[CHALLENGE] = [(200, failed)]
    product.answers[WITHDRAW] = [(200, example("challenge_withdrawn"))]
    mcp = connect(mode, *BOTH)
    mcp.is_asked("orders_list")
    told = mcp.says(action="accept")["text"]
    assert error in told
    assert "somebody at the brand has changed something" in told
    assert "has not finished" not in told
    assert WITHDRAW in dict(product.heard)


@pytest.mark.parametrize("ways", [(), BOTH])
@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_link_that_leads_to_nothing_is_not_handed_out_again(
    mode: str, ways: tuple[str, ...], product: Product, connect: Connect
) -> None:
    product.answers[CALL] = [issued(status="started", last_error="invalid_client"), issued()]
    product.answers[WITHDRAW] = [(200, example("challenge_withdrawn"))]
    assert "changed something" in connect(mode, *ways).calls("orders_list")


def test_a_try_that_failed_is_said_and_another_one_offered(product: Product, connect: Connect) -> None:
    """The bug: a fault of the brand's was "has not finished signing in"."""
    product.answers[CALL] = [issued()]
    product.answers[CHALLENGE] = [(200, example("challenge_started", last_error="server_error"))]
    mcp = connect("legacy", *BOTH)
    mcp.is_asked("orders_list")
    told = mcp.says(action="accept")["text"]
    assert "server_error" in told
    assert "The page offers another one" in told


@pytest.mark.parametrize("error", ["server_error", "invalid_client", "token_endpoint_timeout"])
def test_why_an_open_sign_in_failed_is_said_with_the_digits_that_nobody_waits_for(
    error: str, product: Product, connect: Connect
) -> None:
    open_one = example("challenge_started", last_error=error)
    product.answers[READ] = [conversation(standing("orders", challenge=open_one))]
    assert error in connect().fails("confirm_sign_in", digits="493027")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("subject_mismatch", "another account"),
        ("too_many_codes", "wrong too often"),
        ("other_conversation", "another chat"),
        ("assurance_not_met", "weaker or older"),
    ],
)
def test_each_reason_for_a_failed_challenge_is_said_in_words(
    error: str, words: str, product: Product, connect: Connect
) -> None:
    assert error in document()["components"]["schemas"]["ChallengeError"]["enum"]
    product.answers[CALL] = [issued()]
    product.answers[CHALLENGE] = [(200, example("challenge_denied", status="failed", error=error))]
    denied = example("challenge_denied")["challenge_id"]
    product.answers[f"GET /api/v1/challenges/{denied}"] = product.answers[CHALLENGE]
    mcp = connect("legacy", *BOTH)
    mcp.is_asked("orders_list")
    assert words in mcp.says(action="accept")["text"]


def test_the_server_says_its_version(product: Product, environment: dict[str, str]) -> None:
    """The bug: it was empty."""
    hello = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": HELLO})
    done = subprocess.run(
        [PYTHON, "-m", "consumer_delegation_mcp"],
        env=environment, input=f"{hello}\n", stdout=PIPE, text=True, check=False, timeout=60,
    )  # fmt: skip
    told = json.loads(done.stdout.splitlines()[0])["result"]["serverInfo"]
    assert (told["name"], told["version"]) == ("consumer-delegation", "1.0.0")


def test_of_several_servers_the_digits_go_to_the_one_that_waits(product: Product, connect: Connect) -> None:
    """The bug: the code named no server, and at a brand with two of them it was always refused."""
    waiting = example("challenge_confirmation_needed", authorization_server="payments")
    product.answers[READ] = [conversation(standing("orders"), standing("payments", challenge=waiting))]
    product.answers[COMPLETE] = [(200, {"session": 1} | standing("payments", status="authorized"))]
    assert "confirmed" in connect().calls("confirm_sign_in", digits="493027")
    assert product.bodies(COMPLETE)[0]["authorization_server"] == "payments"


def test_a_link_from_before_the_apis_demand_is_replaced(product: Product, connect: Connect) -> None:
    """The bug: the model was told to set `replace`, which it cannot, until the older link had expired."""
    product.answers[CALL] = [problem("challenge_differs"), issued(acr_values="urn:acme:loa:2")]
    older = problem("challenge_differs")[1]["challenge_id"]
    product.answers[f"GET /api/v1/challenges/{older}"] = [(200, example("challenge_started"))]
    product.answers[READ] = [conversation(standing("orders"))]
    told = connect().calls("orders_list")
    assert example("issued")["url"] in told
    assert "stronger or newer sign-in" in told
    assert [body["challenge"].get("replace") for body in product.bodies(CALL)] == [None, True]


def test_somebody_who_has_signed_in_at_the_older_link_finishes_that(product: Product, connect: Connect) -> None:
    product.answers[CALL] = [problem("challenge_differs")]
    older = problem("challenge_differs")[1]["challenge_id"]
    product.answers[f"GET /api/v1/challenges/{older}"] = [(200, example("challenge_confirmation_needed"))]
    assert "six digits" in connect().calls("orders_list")
    assert len(product.bodies(CALL)) == 1


def test_what_the_person_did_not_allow_is_asked_for_again(product: Product, connect: Connect) -> None:
    """The bug: the model was told to create a challenge, which it cannot."""
    refused = problem("missing_scope")
    product.answers[CALL] = [refused]
    facts = example("conversation_authorized")["authorization_servers"][0]["access_token"] | {
        "scope": refused[1]["scope"]
    }
    product.answers[READ] = [conversation(standing("orders"), standing("payments", access_token=facts))]
    product.answers[CREATE] = [(201, example("issued"))]
    assert example("issued")["url"] in connect().calls("orders_list")
    assert product.bodies(CREATE)[0]["authorization_server"] == "payments"


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_why_a_sign_in_failed_is_said(mode: str, product: Product, connect: Connect) -> None:
    """The bug: a second factor that was missing was "failed", and the same link came without end."""
    failed = example("challenge_denied", status="failed", error="assurance_not_met")
    product.answers[CALL] = [issued()]
    product.answers[f"GET /api/v1/challenges/{example('issued')['challenge_id']}"] = [(200, failed)]
    product.answers[f"GET /api/v1/challenges/{failed['challenge_id']}"] = [(200, failed)]
    mcp = connect(mode, *BOTH)
    mcp.is_asked("orders_list")
    assert "assurance_not_met" in mcp.says(action="accept")["text"]


def test_why_a_sign_in_failed_is_said_without_elicitation(product: Product, connect: Connect) -> None:
    last = {"challenge_id": example("issued")["challenge_id"], "status": "failed", "last_error": None, "ended_at": None}
    last["error"] = "assurance_not_met"
    product.answers[READ] = [conversation(standing("orders", last_challenge=last))]
    assert "assurance_not_met" in connect().fails("confirm_sign_in", digits="493027")
    assert COMPLETE not in dict(product.heard)


HELLO = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}}


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
def test_a_number_that_is_no_json_is_refused_in_words(
    number: str, product: Product, environment: dict[str, str]
) -> None:
    """Models write these, and the SDK reads them as numbers. The bug: the server had a fault, which said nothing."""
    called = {"name": "orders_list", "arguments": {"arguments": {"limit": "HERE"}}}
    frames: list[dict[str, Any]] = [
        {"id": 1, "method": "initialize", "params": HELLO},
        {"method": "notifications/initialized"},
        {"id": 2, "method": "tools/call", "params": called},
    ]
    lines = [json.dumps({"jsonrpc": "2.0"} | frame).replace('"HERE"', number) for frame in frames]
    with subprocess.Popen(
        [PYTHON, "-m", "consumer_delegation_mcp"], env=environment, stdin=PIPE, stdout=PIPE, text=True
    ) as server:
        assert server.stdin
        assert server.stdout
        print(*lines, sep="\n", file=server.stdin, flush=True)
        answer = json.loads([server.stdout.readline() for _ in range(2)][-1])
        server.stdin.close()
        server.wait(60)
    assert answer["result"]["isError"] is True
    assert "no JSON" in answer["result"]["content"][0]["text"]
    assert product.bodies(CALL) == []
