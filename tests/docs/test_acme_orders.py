"""What the examples share: how they find six digits in what somebody typed, and what they say if something is wrong."""

import asyncio

import httpx
import pytest

from acme_orders import Orders, code_in
from consumer_delegation import AsyncDelegation
from tests.contract import document

TROUBLE = "Something is wrong on our side. Please try again in a minute."
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
    return httpx.Response(200, json=body | {"response": body["response"] | {"status": status}})


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (problem("conversation_closed"), "This chat is over. Please start a new one."),
        (
            problem("rate_limited", **{"Retry-After": "60"}),
            TROUBLE,
        ),
        (problem("invalid_bot_key"), TROUBLE),
        (problem("api_unreachable"), AWAY),
        (problem("api_timeout"), AWAY),
        (answered(503), AWAY),
        (answered(409), AWAY),
        (
            httpx.Response(502, text="<h1>Bad gateway</h1>"),
            TROUBLE,
        ),
        (httpx.ConnectError("refused"), TROUBLE),
    ],
)
def test_whatever_happens_the_bot_says_one_sentence(answer: httpx.Response | Exception, said: str) -> None:
    def wire(_request: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def ask() -> str:
        http = httpx.AsyncClient(transport=httpx.MockTransport(wire))
        async with AsyncDelegation(BASE, "key", patience=0, http=http) as delegation:
            return (await Orders(delegation).reply("chat", "Where is my order?")).text

    assert asyncio.run(ask()) == said
