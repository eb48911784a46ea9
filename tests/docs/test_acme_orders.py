"""What the examples share: how they find six digits in what somebody typed, and what they say if something is wrong."""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from python_bot import Bot

from acme_orders import Orders, code_in
from consumer_delegation import AsyncDelegation, Delegation
from tests.contract import document

TROUBLE = "Something is wrong on our side. Please try again in a minute."
IN_VAIN = "This does not work at the moment, and another try does not help. Please tell Acme."
AWAY = "Acme is not answering right now. Please try again later."
BASE = "https://delegation.test/api/v1"


@pytest.mark.parametrize(
    "text",
    [
        *("123456", " 123 456 ", "123-456", "123.456", "It is 123456.", "123456!", "<at>Acme</at> 123456"),
        *("<@U012345678> 123456", "@acme_987654_bot 123 456", "Acme 123456", "code:123456", "(123456)", "\n123456\n"),
        *("١٢٣٤٥٦", "\uff11\uff12\uff13 \uff14\uff15\uff16", "۱۲۳۴۵۶", "123\u00a0456", "*123456*", "`123456`"),
    ],
)
def test_six_digits_are_a_code(text: str) -> None:
    """The bug: a code behind a mention was no code."""
    assert code_in(text) == "123456"


@pytest.mark.parametrize(
    "text",
    [
        *(None, "", "12345", "1234567", "+49 151 234567", "+123456", "#123456", "A123456", "123456B", "<@U123456>"),
        *(
            "@123456",
            "123456789012",
            "123 456 789",
            "1 123 456",
            "12 34 56",
            "order 4711",
            "123456@acme.example",
            "²³⁴²³⁴",
        ),
    ],
)
def test_other_digits_are_none(text: str | None) -> None:
    """A telephone number or a name that is taken for a code uses up a try."""
    assert code_in(text) == ""


def problem(name: str, **headers: str) -> httpx.Response:
    body = document()["components"]["examples"][name]["value"]
    return httpx.Response(body["status"], json=body, headers=headers)


def answered(status: int) -> httpx.Response:
    """What a call answers when the brand's API answers so: ours is 200."""
    body = document()["components"]["examples"]["called"]["value"]
    given = {"status": status} | ({"body_encoding": "none", "body": None} if status == 204 else {})
    return httpx.Response(200, json=body | {"response": body["response"] | given})


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (problem("conversation_closed"), "This chat is over. Please start a new one."),
        (
            problem("rate_limited", **{"Retry-After": "60"}),
            TROUBLE,
        ),
        (problem("internal_error"), TROUBLE),
        (problem("unavailable"), TROUBLE),
        (problem("api_busy"), AWAY),
        *[
            (problem(name), IN_VAIN)
            for name in (
                "invalid_bot_key",
                "step_up_unavailable",
                "missing_scope_for_good",
                "challenged_after_a_failure",
                "api_host_refused",
                "api_proof_refused",
                "api_response_too_large",
                "token_in_answer",
                "operation_unknown",
                "arguments_invalid",
                "stored_value_unreadable",
                "authorization_server_required",
            )
        ],
        (problem("session_mismatch"), "Please ask me again."),
        (problem("confirmation_needed"), "Please type the six digits of the sign-in page into this chat."),
        (problem("challenge_differs"), "Please sign in with the link that I have sent. Then ask me again."),
        (problem("api_unreachable"), AWAY),
        (problem("api_timeout"), AWAY),
        (answered(503), AWAY),
        (answered(429), AWAY),
        *[(answered(status), IN_VAIN) for status in (204, 400, 401, 403, 404, 409)],
        (httpx.Response(404, text="<h1>Not found</h1>"), IN_VAIN),
        (httpx.Response(200, text="<h1>Sign in to the hotel's network</h1>"), IN_VAIN),
        (
            httpx.Response(502, text="<h1>Bad gateway</h1>"),
            TROUBLE,
        ),
        (httpx.ConnectError("refused"), TROUBLE),
    ],
)
def test_whatever_happens_the_bot_says_one_sentence(answer: httpx.Response | Exception, said: str) -> None:
    """The bug: it said "try again in a minute" of whatever it did not know, such as a scope that nobody can grant."""

    def wire(_request: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def ask() -> str:
        http = httpx.AsyncClient(transport=httpx.MockTransport(wire))
        async with AsyncDelegation(BASE, "key", patience=0, http=http) as delegation:
            return (await Orders(delegation).reply("chat", "Where is my order?")).text

    assert asyncio.run(ask()) == said


def example(name: str) -> dict[str, Any]:
    found: dict[str, Any] = document()["components"]["examples"][name]["value"]
    return found


def standing(server: str, **known: Any) -> dict[str, Any]:
    empty = {"reason": None, "challenge": None, "access_token": None, "last_challenge": None}
    return {"authorization_server": server, "status": "challenged"} | empty | known


def conversation(*standings: dict[str, Any]) -> httpx.Response:
    known = {"conversation_id": "chat", "session": 3, "closed_at": None}
    return httpx.Response(200, json=known | {"authorization_servers": standings})


def waiting_since(minute: int, server: str) -> dict[str, Any]:
    moment = f"2026-07-13T14:{minute}:00Z"
    known = {"authorization_server": server, "confirmation_needed_at": moment, "context": "Where is my order?"}
    return standing(server, challenge=example("challenge_confirmation_needed") | known)


@dataclass
class Wire:
    """Two authorization servers. Answers by the end of the path, and keeps what was sent."""

    answers: dict[str, httpx.Response]
    sent: dict[str, Any] = field(default_factory=dict)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        last = request.url.path.rsplit("/", 1)[1]
        self.sent[last] = json.loads(request.content or b"null")
        # A bot may watch its link beside.
        return self.answers.get(last) or httpx.Response(200, json=example("challenge_denied"))


def test_of_two_servers_the_code_goes_to_the_one_that_was_seen_last() -> None:
    """A wrong code uses up a try, so it must not go to the first server that waits."""
    two = conversation(waiting_since(10, "payments"), waiting_since(15, "orders"))
    wire = Wire({"chat": two, "completion": problem("completion_code_incorrect"), "orders.list": answered(200)})

    async def ask() -> str:
        async with AsyncDelegation(BASE, "key", http=httpx.AsyncClient(transport=httpx.MockTransport(wire))) as client:
            return (await Orders(client).reply("chat", "123456")).text

    assert asyncio.run(ask()) == "That is not the code. Tries left: 4"
    assert wire.sent["completion"] == {"code": "123456", "session": 3, "authorization_server": "orders"}


def talk_in_python(wire: Wire, text: str) -> list[str]:
    said: list[str] = []
    http = httpx.Client(transport=httpx.MockTransport(wire))
    Bot(Delegation(BASE, "key", patience=0, http=http), "chat", said.append).hear(text)
    return said


def test_the_bot_in_a_terminal_names_the_server_with_the_code() -> None:
    """The bug: at a brand with two servers every code was 422 `authorization_server_required`."""
    two = conversation(standing("payments"), waiting_since(15, "orders"))
    wire = Wire({"chat": two, "completion": problem("completion_code_incorrect")})
    assert talk_in_python(wire, "123 456") == ["That is not the code. Tries left: 4"]
    assert wire.sent["completion"] == {"code": "123 456", "session": 3, "authorization_server": "orders"}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("step_up_unavailable", IN_VAIN),
        ("missing_scope_for_good", IN_VAIN),
        ("invalid_bot_key", IN_VAIN),
        ("api_unreachable", AWAY),
        ("rate_limited", TROUBLE),
        ("session_mismatch", "Please ask me again."),
    ],
)
def test_the_bot_in_a_terminal_says_what_helps(name: str, said: str) -> None:
    assert talk_in_python(Wire({"orders.list": problem(name)}), "Where is my order?") == [said]


@pytest.mark.parametrize("status", [400, 404, 500])
def test_the_bot_in_a_terminal_tells_a_busy_brand_from_one_that_refuses(status: int) -> None:
    said = talk_in_python(Wire({"orders.list": answered(status)}), "Where is my order?")
    assert said == [AWAY if status == 500 else IN_VAIN]


def left_out() -> Wire:
    """The consumer has signed in at the second of two servers, and allowed less than the operation needs."""
    refused = example("missing_scope")
    facts = example("conversation_authorized")["authorization_servers"][0]["access_token"] | {"scope": refused["scope"]}
    two = conversation(standing("orders"), standing("payments", access_token=facts))
    issued = httpx.Response(201, json=example("issued"))
    return Wire({"orders.list": problem("missing_scope"), "chat": two, "challenges": issued})


def test_what_the_consumer_left_out_is_asked_for_again() -> None:
    """The bug: "try again in a minute", and the same a minute later: the token is live, so no call brings a link."""
    wire = left_out()

    async def ask() -> str:
        async with AsyncDelegation(BASE, "key", http=httpx.AsyncClient(transport=httpx.MockTransport(wire))) as client:
            return (await Orders(client).reply("chat", "Where is my order?")).link

    assert asyncio.run(ask()) == example("issued")["url"]
    asked = wire.sent["challenges"]
    assert (asked["session"], asked["authorization_server"], asked["context"]) == (3, "payments", "Where is my order?")


def test_the_bot_in_a_terminal_asks_again_for_what_was_left_out() -> None:
    wire = left_out()
    assert talk_in_python(wire, "Where is my order?")[0] == example("issued")["message"]
    assert wire.sent["challenges"]["authorization_server"] == "payments"
