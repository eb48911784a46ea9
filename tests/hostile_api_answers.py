"""Answers of a hostile API, each a row of the table in docs/security.md."""

import gzip
import zlib
from dataclasses import dataclass
from typing import Any, Final

from tests.brand_api import ORDERS, REFUSED
from tests.hostile_token_endpoint import http_answer

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
        return line_of(self.row, self.attack, self.result, self.words)


def line_of(row: str, attack: str, result: str | int, words: str) -> str:
    """Return the line of the table."""
    what = CODE.format(result) if isinstance(result, str) else f"{result}, {PASSED_ON}"
    return f"| {row} | {attack} | {what}{'; ' if words else ''}{words} |"


def one_answer(body: bytes, status: int = 200, **headers: Any) -> tuple[bytes]:
    """Return the parts of an answer that is sent at once."""
    return (http_answer(body, status=status, **headers),)


def _padded(answer: bytes) -> bytes:
    """Make the first answer as long as what is read at once, so that the rest waits in the TLS layer."""
    length = 8192 - len(HEAD) - len(b"Content-Length: 8000\r\n\r\n")
    return HEAD + b"Content-Length: %d\r\n\r\n" % length + b" " * length + answer


_UPGRADE: Final = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"
BOMB: Final = gzip.compress(b" " * 50_000_000)
LONG: Final = b'["%s"]' % b",".join(b"A-%d" % number for number in range(200))
ESCAPED: Final = b"{escaped}"
_DEMAND: Final = 'Bearer error="insufficient_user_authentication"'
ANSWERS: Final = [
    Answer(
        "P6",
        "redirect to a private address",
        one_answer(b"", 302, Location="http://169.254.169.254/latest"),
        302,
        "not followed",
    ),
    Answer(
        "P6",
        "redirect (307) to another host",
        one_answer(b"", 307, Location="https://rival.example/"),
        307,
        "not followed",
    ),
    Answer("P6", "a body of 50 MB", one_answer(b" " * 50_000_000), "api_response_too_large", "the rest is not read"),
    Answer("P6", "50 MB compressed to 50 KB", one_answer(BOMB, Content_Encoding="gzip"), "api_response_too_large"),
    Answer(
        "P6",
        "the same, compressed twice",
        one_answer(gzip.compress(BOMB), Content_Encoding="gzip, gzip"),
        "api_response_too_large",
    ),
    Answer("P6", "compression that cannot be read", one_answer(b"no gzip", Content_Encoding="gzip"), "api_unreachable"),
    *(
        Answer(
            "P6", f"compression that ends early: {name}", one_answer(body, Content_Encoding=coding), "api_unreachable"
        )
        for name, coding, body in (
            ("gzip", "gzip", gzip.compress(LONG)[:-9]),
            ("deflate", "deflate", zlib.compress(LONG)[:-5]),
            ("deflate without zlib's header", "deflate", zlib.compress(LONG)[2:-5]),
            ("gzip inside gzip", "gzip, gzip", gzip.compress(gzip.compress(LONG)[:-9])),
        )
    ),
    Answer(
        "P6",
        "compression that goes on",
        one_answer(zlib.compress(LONG) * 2, Content_Encoding="deflate"),
        "api_unreachable",
    ),
    Answer("P6", "compression that is none", one_answer(b"\xff" * 40, Content_Encoding="deflate"), "api_unreachable"),
    Answer("P6", "compression that we cannot undo", one_answer(LONG, Content_Encoding="br"), "api_unreachable"),
    Answer("P6", "silence", (5.0,), "api_timeout"),
    Answer("P6", "a cookie", one_answer(b"{}", Set_Cookie="id=planted"), 200, "not passed on, not kept"),
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
    Answer("P10", "our own problem document", one_answer(b'{"code": "conversation_closed"}', 410), 410),
    Answer("P5", "the token in the body", one_answer(b'{"seen": "%s"}' % TOKEN), "token_in_answer"),
    Answer(
        "P5",
        "the token in an error page",
        one_answer(b"<p>%s is wrong</p>" % TOKEN, 500, Content_Type="text/html"),
        "token_in_answer",
    ),
    Answer(
        "P5", "the token in a header", (HEAD + b"X-Seen: %s\r\nContent-Length: 2\r\n\r\n{}" % TOKEN,), "token_in_answer"
    ),
    Answer("P5", "the token in JSON's escapes", one_answer(b'{"seen": "%s"}' % ESCAPED), "token_in_answer"),
    Answer(
        "P9",
        "401 with `invalid_token`, again and again",
        (REFUSED,),
        "rechallenge_required",
        "one request; the token ends as `rejected`",
    ),
    Answer("P9", "401 without a reason", one_answer(b"", 401), 401, "the token lives"),
    Answer(
        "P9",
        "401 with another scheme's `invalid_token`",
        one_answer(b"", 401, WWW_Authenticate='DPoP error="invalid_token"'),
        401,
        "the token lives",
    ),
    Answer(
        "P9",
        "401 whose `invalid_token` follows another scheme's credentials",
        one_answer(b"", 401, WWW_Authenticate='Negotiate Bearer==, error="invalid_token"'),
        401,
        "the token lives",
    ),
    Answer(
        "P9",
        "401 with `invalid_token` inside quotes",
        one_answer(b"", 401, WWW_Authenticate='Bearer realm="error=invalid_token"'),
        401,
        "the token lives",
    ),
    Answer(
        "P31",
        "a demand for another sign-in (RFC 9470) that has not its form",
        one_answer(b"", 401, WWW_Authenticate=f'{_DEMAND}, acr_values="{"x" * 600}"'),
        "step_up_unavailable",
        "the token lives",
    ),
    Answer(
        "P31",
        "a demand for another sign-in at a server without OpenID Connect",
        one_answer(b"", 401, WWW_Authenticate=f"{_DEMAND}, max_age=0"),
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
        one_answer(b"", 401, WWW_Authenticate=_DEMAND.replace("Bearer", "Basic")),
        401,
        "the token lives",
    ),
    Answer(
        "P9",
        "200 with `invalid_token`",
        one_answer(b"{}", WWW_Authenticate='Bearer error="invalid_token"'),
        200,
        "the token lives",
    ),
]
