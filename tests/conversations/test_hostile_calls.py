"""A hostile API, a hostile bot and a hostile admin: each row of the table in docs/security.md, played over TLS."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from django.utils import timezone

from brands.models import BrandAPI
from conversations.flow import call_counts
from conversations.models import AccessToken, ApiCallCount
from oauth_client import transport
from tests.brand_api import ORDERS, Caller
from tests.hostile_api_answers import ANSWERS, ESCAPED, HEAD, TOKEN, Answer, line_of, one_answer

pytestmark = pytest.mark.django_db

DOCUMENT: Final = Path(__file__).parent.parent.parent / "docs" / "security.md"


@dataclass(frozen=True)
class Ask:
    """A call of a bot, and the problem's code."""

    row: str
    attack: str
    operation: str
    body: Any
    result: str | int
    words: str = ""

    @property
    def line(self) -> str:
        return line_of(self.row, self.attack, self.result, self.words)


def _read(value: Any) -> Any:
    return {"arguments": {"order_id": value}}


ASKS: Final = [
    *(
        Ask("P3", f"a path value `{shown or value}`", "orders.read", _read(value), "arguments_invalid")
        for value, shown in (
            ("..", ""),
            ("../customers", ""),
            ("17/refunds", ""),
            ("17%2frefunds", ""),
            ("17%252frefunds", ""),
            ("..;x=1", ""),
            ("%2e%2e", ""),
            ("..\\customers", ""),
            ("", "(empty)"),
            ("1\r\nHost: x", "1 CR LF Host: x"),
        )
    ),
    Ask("P3", "a path value `@rival.example`", "orders.read", _read("@rival.example"), 200, "one encoded segment"),
    Ask("P3", "a path value `1;a=b?c#d`", "orders.read", _read("1;a=b?c#d"), 200, "one encoded segment"),
    Ask(
        "P4",
        "a header value with CR LF",
        "orders.list",
        {"arguments": {"X-Language": "de\r\nAuthorization: x"}},
        "arguments_invalid",
    ),
    Ask("P4", "an argument `Host`", "orders.list", {"arguments": {"Host": "rival.example"}}, "arguments_invalid"),
    Ask(
        "P4",
        "an argument `Authorization`",
        "orders.list",
        {"arguments": {"Authorization": "Bearer x"}},
        "arguments_invalid",
    ),
    Ask("P4", "an argument that is not declared", "orders.list", {"arguments": {"admin": "1"}}, "arguments_invalid"),
    Ask("P4", "an argument of another type", "orders.list", {"arguments": {"limit": "1 OR 1"}}, "arguments_invalid"),
    Ask("P4", "a body where none is declared", "orders.list", {"body": {}}, "arguments_invalid"),
    Ask("P4", "a body of 70 KB", "orders.note", {**_read("1"), "body": {"note": "x" * 70_000}}, "body_too_large"),
    Ask(
        "P4",
        "a body of 30,000 levels",
        "orders.note",
        b'{"body": ' + b"[" * 30_000 + b"]" * 30_000 + b"}",
        "malformed_json",
    ),
    Ask("P1", "an operation that is not declared", "orders.delete", {}, "operation_unknown"),
    Ask("P1", "an operation's name with a path in it", "orders.list%2F..%2Fadmin", {}, "operation_unknown"),
]
# Played by tests of their own.
OTHERS: Final = [
    line_of("P6", "one byte a second, without end", "api_timeout", "after 10 seconds"),
    line_of("P6", "a name that leads to a private address", "api_unreachable", "as if it refused the connection"),
    line_of("P2", "an admin changes the host while a token lives", "rechallenge_required", "nothing is sent"),
    # tests/conversations/test_named_hosts.py plays these.
    line_of(
        "P2",
        "an admin changes the suffix, or the member that names the host",
        "rechallenge_required",
        "nothing is sent",
    ),
    line_of("P2", "a token response names a host outside the suffix", "api_host_refused", "nothing is sent"),
    line_of("P2", "a callback or an argument names a host", "api_host_refused", "nothing is sent"),
]


@pytest.fixture(autouse=True)
def _short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the waits for what does not come. An answer that comes has taken half a second on a busy machine."""
    monkeypatch.setattr(transport, "TOTAL_TIMEOUT", 4.0)
    monkeypatch.setattr(transport, "READ_TIMEOUT", 1.5)


def _with_token(part: bytes | float, token: str) -> bytes | float:
    """Put the token in, and correct the length of the body."""
    if isinstance(part, float) or not (TOKEN in part or ESCAPED in part):
        return part
    escaped = "".join(f"\\u{ord(character):04x}" for character in token)
    head, _, body = part.replace(TOKEN, token.encode()).replace(ESCAPED, escaped.encode()).partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.startswith(b"Content-Length")]
    return b"\r\n".join([*lines, b"Content-Length: %d" % len(body), b"", body])


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: answer.attack)
def test_what_a_hostile_api_answers(answer: Answer, caller: Caller) -> None:
    """P5, P6, P9, P10: no answer holds the token, and the next call gets the answer to itself."""
    caller.api.play(*(_with_token(part, caller.token) for part in answer.parts))
    results = [caller.call() for _ in range(2)]
    for status, body in results:
        assert body.get("code", body.get("response", {}).get("status")) == answer.result
        assert status == (200 if isinstance(answer.result, int) else body["status"])
        assert caller.token not in str(body)
        assert "planted" not in str(body)
        assert "somebody else" not in str(body)
    ended = answer.result == "rechallenge_required"
    assert len(caller.api.requests) == (1 if ended else 2)
    assert [request for request in caller.api.requests if b"planted" in request] == []
    assert caller.bot.status() == (("rechallenge_required", "rejected") if ended else ("authorized", None))
    if not ended:
        caller.api.play(ORDERS)
        assert caller.call()[1]["response"]["body"] == {"orders": ["A-1001"]}


@pytest.mark.parametrize("ask", ASKS, ids=lambda ask: ask.attack)
def test_what_a_hostile_bot_asks(ask: Ask, caller: Caller) -> None:
    """P1, P3, P4: nothing reaches the API but declared operations with one segment for each path value."""
    _, body = caller.bot.in_chat("POST", f"/calls/{ask.operation}", ask.body)
    if isinstance(ask.result, str):
        assert body["code"] == ask.result
        assert caller.api.requests == []
        return
    assert body["response"]["status"] == ask.result
    line = caller.sent().split(b"\r\n")[0]
    assert line.startswith(b"GET /shop/v1/orders/")
    assert not set(line.removeprefix(b"GET /shop/v1/orders/").removesuffix(b" HTTP/1.1")) & set(b"/;@?#= ")


def test_a_dripping_api_is_left_at_the_deadline(caller: Caller) -> None:
    """P6, P8: the bot is told that the API may have done it."""
    caller.api.play_forever(HEAD + b"Content-Length: 60000\r\n\r\n", b" ", 0.1)
    status, problem = caller.call()
    assert (status, problem["code"], problem["was_sent"]) == (504, "api_timeout", True)


@pytest.mark.parametrize("address", ["10.0.0.1", "169.254.169.254", "::1", "127.0.0.1"])
def test_a_private_address_looks_like_one_that_refuses_the_connection(
    address: str, caller: Caller, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P6, N9: a brand's admin must not learn from us what is inside our network."""
    caller.api.close()
    refused = caller.call()
    settings.ALLOW_LOCAL_ENDPOINTS = False
    BrandAPI.objects.update(base_url="https://api.acme.example")
    monkeypatch.setattr("socket.getaddrinfo", lambda *_arguments, **_options: [(2, 1, 6, "", (address, 443))])
    assert caller.call() == refused
    assert (refused[0], refused[1]["code"], refused[1]["was_sent"]) == (502, "api_unreachable", False)


@pytest.mark.parametrize("status", [200, 401, 404])
def test_another_status_wants_no_scope(status: int, caller: Caller) -> None:
    """P9, P10."""
    challenge = 'Bearer error="insufficient_scope", scope="orders.write"'
    caller.api.play(*one_answer(b"", status, WWW_Authenticate=challenge))
    assert caller.call()[1]["response"]["status"] == status


def test_an_admin_who_moves_the_host_gets_no_token(caller: Caller) -> None:
    """P2."""
    BrandAPI.objects.update(host_since=timezone.now())
    assert caller.code() == "rechallenge_required"
    assert caller.api.requests == []


def test_every_failure_is_counted_by_its_name(caller: Caller) -> None:
    """P11."""
    caller.api.play(*one_answer(b" " * 300_000))
    caller.call()
    caller.api.play(3.0)
    caller.call()
    call_counts.flush()
    assert set(ApiCallCount.objects.values_list("outcome", flat=True)) == {"api_response_too_large", "api_timeout"}
    assert AccessToken.objects.get().ended_at is None


def _rows() -> Iterator[str]:
    played: list[Answer | Ask] = [*ANSWERS, *ASKS]
    yield from (row.line for row in played)
    yield from OTHERS


def test_the_table_names_each_attack_once() -> None:
    """P1 to P10: what stands there is what was played."""
    table = DOCUMENT.read_text(encoding="utf-8").partition("<!-- calls -->")[2].partition("<!-- end of calls -->")[0]
    assert [line for line in table.splitlines() if line.startswith("| P")] == list(_rows())
