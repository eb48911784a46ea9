"""A hostile API, a hostile bot and a hostile admin: each row of the table in docs/security.md, played over TLS."""

import gzip
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
from tests.brand_api import ORDERS, REFUSED, Caller
from tests.hostile_token_endpoint import http_answer

pytestmark = pytest.mark.django_db

DOCUMENT: Final = Path(__file__).parent.parent.parent / "docs" / "security.md"
HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
PASSED_ON, CODE = "passed on as the API's own", "`{}`"
TOKEN: Final = b"{token}"


@dataclass(frozen=True)
class Answer:
    """An answer of the API. `parts` are sent as they are, with the token in place of `TOKEN`."""

    row: str
    attack: str
    parts: tuple[bytes | float, ...]
    # A problem's code; or the status that the bot reads as the API's.
    result: str | int
    # All that happened, in words.
    words: str = ""

    @property
    def line(self) -> str:
        return _line(self.row, self.attack, self.result, self.words)


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
        return _line(self.row, self.attack, self.result, self.words)


def _line(row: str, attack: str, result: str | int, words: str) -> str:
    what = CODE.format(result) if isinstance(result, str) else f"{result}, {PASSED_ON}"
    return f"| {row} | {attack} | {what}{'; ' if words else ''}{words} |"


def _answer(body: bytes, status: int = 200, **headers: Any) -> tuple[bytes]:
    return (http_answer(body, status=status, **headers),)


def _padded(answer: bytes) -> bytes:
    """Make the first answer as long as what is read at once, so that the rest waits in the TLS layer."""
    length = 8192 - len(HEAD) - len(b"Content-Length: 8000\r\n\r\n")
    return HEAD + b"Content-Length: %d\r\n\r\n" % length + b" " * length + answer


_UPGRADE: Final = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"
BOMB: Final = gzip.compress(b" " * 50_000_000)
ESCAPED: Final = b"{escaped}"
_DEMAND: Final = 'Bearer error="insufficient_user_authentication"'
ANSWERS: Final = [
    Answer(
        "P6",
        "redirect to a private address",
        _answer(b"", 302, Location="http://169.254.169.254/latest"),
        302,
        "not followed",
    ),
    Answer(
        "P6",
        "redirect (307) to another host",
        _answer(b"", 307, Location="https://rival.example/"),
        307,
        "not followed",
    ),
    Answer("P6", "a body of 50 MB", _answer(b" " * 50_000_000), "api_response_too_large", "the rest is not read"),
    Answer("P6", "50 MB compressed to 50 KB", _answer(BOMB, Content_Encoding="gzip"), "api_response_too_large"),
    Answer(
        "P6",
        "the same, compressed twice",
        _answer(gzip.compress(BOMB), Content_Encoding="gzip, gzip"),
        "api_response_too_large",
    ),
    Answer("P6", "compression that cannot be read", _answer(b"no gzip", Content_Encoding="gzip"), "api_unreachable"),
    Answer("P6", "silence", (5.0,), "api_timeout"),
    Answer("P6", "a cookie", _answer(b"{}", Set_Cookie="id=planted"), 200, "not passed on, not kept"),
    Answer("P6", "another protocol", (b"SSH-2.0-OpenSSH_9.2\r\n", 0.1, b"\r\n\r\n"), "api_unreachable"),
    Answer("P10", "a shorter body than announced", (HEAD + b"Content-Length: 100\r\n\r\n{}",), "api_timeout"),
    Answer(
        "P10",
        "a second answer after the first",
        (_padded(http_answer(b'{"of": "somebody else"}')),),
        200,
        "the next call gets its own answer",
    ),
    Answer(
        "P10",
        "an interim answer (103)",
        (b"HTTP/1.1 103 Early\r\n\r\n", 0.1, ORDERS),
        "api_unreachable",
        "the next call gets its own answer",
    ),
    Answer(
        "P10",
        "204 with a second answer as its body",
        (b"HTTP/1.1 204 No Content\r\n\r\n" + http_answer(b'{"of": "somebody else"}'),),
        204,
        "the next call gets its own answer",
    ),
    Answer(
        "P10",
        "304 with a second answer as its body",
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 60\r\n\r\n" + http_answer(b'{"of": "somebody else"}'),),
        304,
        "the next call gets its own answer",
    ),
    Answer(
        "P10",
        "a length beside a transfer coding that is not `chunked`",
        (HEAD + b"Content-Length: 1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n1\r\n1\r\n0\r\n\r\n",),
        "api_unreachable",
    ),
    Answer(
        "P10",
        "a transfer coding twice",
        (HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",),
        "api_unreachable",
    ),
    Answer("P10", "two lengths", (HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",), "api_unreachable"),
    Answer("P10", "a length that is no number", (HEAD + b"Content-Length: two\r\n\r\n{}",), "api_unreachable"),
    Answer("P10", "one length twice", (HEAD + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",), 200),
    Answer(
        "P10",
        "a trailer with a cookie",
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nSet-Cookie: id=planted\r\n\r\n",),
        200,
        "not passed on, not kept",
    ),
    Answer("P10", "another protocol after an upgrade (101)", (_UPGRADE + ORDERS,), "api_unreachable"),
    Answer("P6", "two hundred headers", (HEAD + b"X-A: b\r\n" * 200 + b"\r\n",), "api_unreachable"),
    Answer(
        "P10",
        "a header with a line break in it",
        (HEAD + b"X-Request-Id: a\r\n Set-Cookie: id\r\nContent-Length: 2\r\n\r\n{}",),
        200,
        "one value on one line",
    ),
    Answer(
        "P10",
        "a header with other bytes",
        (HEAD + b"X-Request-Id: \xe2\x80\xae\r\nContent-Length: 2\r\n\r\n{}",),
        200,
        "without the header",
    ),
    Answer("P10", "our own problem document", _answer(b'{"code": "conversation_closed"}', 410), 410),
    Answer("P5", "the token in the body", _answer(b'{"seen": "%s"}' % TOKEN), "token_in_answer"),
    Answer(
        "P5",
        "the token in an error page",
        _answer(b"<p>%s is wrong</p>" % TOKEN, 500, Content_Type="text/html"),
        "token_in_answer",
    ),
    Answer(
        "P5", "the token in a header", (HEAD + b"X-Seen: %s\r\nContent-Length: 2\r\n\r\n{}" % TOKEN,), "token_in_answer"
    ),
    Answer("P5", "the token in JSON's escapes", _answer(b'{"seen": "%s"}' % ESCAPED), "token_in_answer"),
    Answer(
        "P9",
        "401 with `invalid_token`, again and again",
        (REFUSED,),
        "rechallenge_required",
        "one request; the token ends as `rejected`",
    ),
    Answer("P9", "401 without a reason", _answer(b"", 401), 401, "the token lives"),
    Answer(
        "P9",
        "401 with another scheme's `invalid_token`",
        _answer(b"", 401, WWW_Authenticate='DPoP error="invalid_token"'),
        401,
        "the token lives",
    ),
    Answer(
        "P9",
        "401 whose `invalid_token` follows another scheme's credentials",
        _answer(b"", 401, WWW_Authenticate='Negotiate Bearer==, error="invalid_token"'),
        401,
        "the token lives",
    ),
    Answer(
        "P9",
        "401 with `invalid_token` inside quotes",
        _answer(b"", 401, WWW_Authenticate='Bearer realm="error=invalid_token"'),
        401,
        "the token lives",
    ),
    Answer(
        "P31",
        "a demand for another sign-in (RFC 9470) that has not its form",
        _answer(b"", 401, WWW_Authenticate=f'{_DEMAND}, acr_values="{"x" * 600}"'),
        "step_up_unavailable",
        "the token lives",
    ),
    Answer(
        "P31",
        "a demand for another sign-in at a server without OpenID Connect",
        _answer(b"", 401, WWW_Authenticate=f"{_DEMAND}, max_age=0"),
        "step_up_unavailable",
        "the token lives",
    ),
    Answer(
        "P31",
        "a demand that repeats the token",
        (b'HTTP/1.1 401 No\r\nWWW-Authenticate: %s, acr_values="%s"\r\n\r\n' % (_DEMAND.encode(), TOKEN),),
        "token_in_answer",
    ),
    Answer(
        "P30",
        "a demand of another scheme",
        _answer(b"", 401, WWW_Authenticate=_DEMAND.replace("Bearer", "Basic")),
        401,
        "the token lives",
    ),
    Answer(
        "P9",
        "200 with `invalid_token`",
        _answer(b"{}", WWW_Authenticate='Bearer error="invalid_token"'),
        200,
        "the token lives",
    ),
]


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
    _line("P6", "one byte a second, without end", "api_timeout", "after 10 seconds"),
    _line("P6", "a name that leads to a private address", "api_unreachable", "as if it refused the connection"),
    _line("P2", "an admin changes the host while a token lives", "rechallenge_required", "nothing is sent"),
    # tests/conversations/test_named_hosts.py plays these.
    _line(
        "P2",
        "an admin changes the suffix, or the member that names the host",
        "rechallenge_required",
        "nothing is sent",
    ),
    _line("P2", "a token response names a host outside the suffix", "api_host_refused", "nothing is sent"),
    _line("P2", "a callback or an argument names a host", "api_host_refused", "nothing is sent"),
]


@pytest.fixture(autouse=True)
def _short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Divide the limits by ten."""
    monkeypatch.setattr(transport, "TOTAL_TIMEOUT", 1.0)
    monkeypatch.setattr(transport, "CONNECT_TIMEOUT", 0.3)
    monkeypatch.setattr(transport, "READ_TIMEOUT", 0.5)


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


def test_an_admin_who_moves_the_host_gets_no_token(caller: Caller) -> None:
    """P2."""
    BrandAPI.objects.update(host_since=timezone.now())
    assert caller.code() == "rechallenge_required"
    assert caller.api.requests == []


def test_every_failure_is_counted_by_its_name(caller: Caller) -> None:
    """P11."""
    caller.api.play(*_answer(b" " * 300_000))
    caller.call()
    caller.api.play(0.7)
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
