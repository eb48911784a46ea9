"""The access token at a hostile API, over real TLS: what is sent, what is read, and what is never done twice."""

import gzip
import json
import socket
from collections.abc import Iterator
from typing import Any, Final

import pytest

from infrastructure.crypto import Secret
from oauth_client import transport
from oauth_client.resource_server import (
    MAX_ANSWER_BYTES,
    ResourceRequest,
    ResourceResponse,
    TokenInAnswer,
    call_resource,
    challenge_of,
)
from tests.brands.outbound import HEAD
from tests.hostile_token_endpoint import HostileTokenEndpoint, http_answer

TOKEN: Final = "planted-access-token.eyJhbGciOiJub25lIn0"


def call(url: str, *, safe: bool = False, **request: Any) -> ResourceResponse:
    method = request.pop("method", "GET")
    return call_resource(ResourceRequest(method, url, **request), Secret(TOKEN), is_safe_to_repeat=safe)


def test_the_token_is_sent_in_one_header_and_nowhere_else(endpoint: HostileTokenEndpoint) -> None:
    """P5."""
    call(endpoint.url, method="POST", headers={"X-Language": "de"}, body=b'{"a":1}')
    (request,) = endpoint.requests
    head, _, body = request.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /token HTTP/1.1"
    assert [line for line in lines if TOKEN.encode() in line] == [f"Authorization: Bearer {TOKEN}".encode()]
    assert body == b'{"a":1}'
    assert b"\r\nX-Language: de\r\n" in request
    assert b"\r\ncookie:" not in request.lower()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("location", ["https://localhost:{port}/elsewhere", "http://169.254.169.254/latest", "//x", ""])
def test_no_redirect_is_followed(status: int, location: str, endpoint: HostileTokenEndpoint) -> None:
    """P6, N4: the answer is passed on, and the token goes nowhere else."""
    endpoint.play(http_answer(b"", status=status, Location=location.format(port=endpoint.port)))
    assert call(endpoint.url).status == status
    assert len(endpoint.requests) == 1


def test_a_cookie_is_not_kept(endpoint: HostileTokenEndpoint) -> None:
    """P6: it would carry something of one consumer's call into another's."""
    endpoint.play(http_answer(b"{}", Set_Cookie="session=planted; Path=/"))
    for _ in range(2):
        call(endpoint.url)
    assert [request for request in endpoint.requests if b"planted;" in request or b"cookie" in request.lower()] == []


def test_the_largest_answer_is_read_and_a_larger_one_refused(endpoint: HostileTokenEndpoint) -> None:
    """P6."""
    endpoint.play(http_answer(b" " * MAX_ANSWER_BYTES))
    assert len(call(endpoint.url).body) == MAX_ANSWER_BYTES
    endpoint.play(http_answer(b" " * (MAX_ANSWER_BYTES + 1)))
    with pytest.raises(transport.ResponseTooLarge) as refusal:
        call(endpoint.url)
    assert refusal.value.was_sent


def test_a_token_response_is_still_bounded_as_before(endpoint: HostileTokenEndpoint) -> None:
    """N7: the larger bound belongs to one call."""
    endpoint.play(http_answer(b" " * 100_000))
    assert call(endpoint.url).status == 200
    with pytest.raises(transport.ResponseTooLarge):
        transport.post(endpoint.url, b"", {})


def _in_address(text: str) -> str:
    """As browsers and libraries write a `+`, `/` or `=` of a token; here, every character."""
    return "".join(f"%{ord(character):02x}" for character in text)


def echoes() -> dict[str, bytes]:
    escaped = "".join(f"\\u{ord(character):04x}" for character in TOKEN)
    return {
        "in JSON": json.dumps({"token": TOKEN}).encode(),
        "in a name": json.dumps({TOKEN: 1}).encode(),
        "in a text": f"Bearer {TOKEN} is wrong".encode(),
        "in escapes": f'{{"token": "{escaped}"}}'.encode(),
        "in an escaped name": f'[{{"{escaped}": 1}}]'.encode(),
        "in a member that is sent twice": f'{{"token": "{escaped}", "token": 1}}'.encode(),
        "in lines of JSON": f'{{"token": "{escaped}"}}\n{{}}'.encode(),
        "in nested JSON": b"[" * 5_000 + f'"{escaped}"'.encode() + b"]" * 5_000,
        "in an escaped text of JSON": json.dumps(f'{{"token": "{escaped}"}}').encode(),
        "in an address": f'{{"next": "https://api.acme.example/?t={_in_address(TOKEN)}"}}'.encode(),
        "beside bytes": b"\xff\xfe" + TOKEN.encode() + b"\x00",
    }


@pytest.mark.parametrize("name", echoes())
@pytest.mark.parametrize("content_type", ["application/json", "text/html", "application/octet-stream"])
@pytest.mark.parametrize("status", [200, 404, 500])
def test_a_body_with_the_token_is_refused(
    name: str, content_type: str, status: int, endpoint: HostileTokenEndpoint
) -> None:
    """P5."""
    endpoint.play(http_answer(echoes()[name], status=status, Content_Type=content_type))
    with pytest.raises(TokenInAnswer) as refusal:
        call(endpoint.url)
    assert TOKEN not in repr(refusal.value)


@pytest.mark.parametrize("name", ["Authorization", "X-Echo", "Location", "Set-Cookie", "WWW-Authenticate", TOKEN])
def test_a_header_with_the_token_is_refused(name: str, endpoint: HostileTokenEndpoint) -> None:
    """P5: also one that would not be passed on."""
    value = "1" if name == TOKEN else f"x {TOKEN}"
    endpoint.play(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n%s: %s\r\n\r\n{}" % (name.encode(), value.encode()))
    with pytest.raises(TokenInAnswer):
        call(endpoint.url)


@pytest.mark.parametrize("written", [_in_address(TOKEN), "".join(f"\\u{ord(one):04x}" for one in TOKEN)])
def test_a_header_with_the_token_in_escapes_is_refused(written: str, endpoint: HostileTokenEndpoint) -> None:
    """P5. The bug: of the headers only the plain text was searched, and bots get the address of a redirect."""
    endpoint.play(http_answer(b"", status=302, Location=f"https://login.acme.example/?token={written}"))
    with pytest.raises(TokenInAnswer):
        call(endpoint.url)


def test_a_compressed_body_with_the_token_is_refused(endpoint: HostileTokenEndpoint) -> None:
    """P5."""
    endpoint.play(http_answer(gzip.compress(TOKEN.encode()), Content_Encoding="gzip"))
    with pytest.raises(TokenInAnswer):
        call(endpoint.url)


def test_a_scope_with_the_token_is_refused_in_escapes_too(endpoint: HostileTokenEndpoint) -> None:
    """P5: we would undo the escapes, and name the scope in a problem document."""
    escaped = "".join(f"\\{character}" for character in TOKEN)
    header = f'Bearer error="insufficient_scope", scope="{escaped}"'
    endpoint.play(http_answer(b"", status=403, WWW_Authenticate=header))
    with pytest.raises(TokenInAnswer):
        call(endpoint.url)


@pytest.mark.parametrize(
    ("header", "error", "scope"),
    [
        ('Bearer error="invalid_token"', "invalid_token", ""),
        ('bearer realm="a", ERROR="invalid_token"', "invalid_token", ""),
        ("Bearer error=invalid_token", "invalid_token", ""),
        ('Bearer  error = "invalid_token"', "invalid_token", ""),
        ('Basic realm="x", Bearer realm="y", error="invalid_token"', "invalid_token", ""),
        ('Negotiate YWJj==, Bearer error="invalid_token"', "invalid_token", ""),
        (
            'Bearer error="insufficient_scope", scope="orders.write profile"',
            "insufficient_scope",
            "orders.write profile",
        ),
        ('Bearer error="insufficient_scope", scope="a\\"b"', "insufficient_scope", ""),
        ('Bearer error="insufficient_scope", scope=""', "insufficient_scope", ""),
        ('Bearer realm="a, b=\\"c", error="invalid_token"', "invalid_token", ""),
        ('DPoP error="invalid_token"', "", ""),
        ('Basic error="invalid_token", Bearer realm="x"', "", ""),
        ('Basic realm="Bearer error=\\"invalid_token\\""', "", ""),
        ('Basic realm="Bearer", error="invalid_token"', "", ""),
        ("Bearer", "", ""),
        ('Basic realm="a, Bearer error=invalid_token', "", ""),
        (f'Basic realm="{"x" * 4000} Bearer error=invalid_token {"x" * 4000}"', "", ""),
        (f'Bearer realm="x", error="invalid_token", scope="{"x" * 5000}"', "", ""),
        ('Bearer error="invalid_token', "", ""),
        ("Bearer error", "", ""),
        ('error="invalid_token"', "", ""),
        (', , Bearer ,error="invalid_token"', "invalid_token", ""),
        ('Negotiate Bearer==, error="invalid_token"', "", ""),
        ('Basic Bearer error="invalid_token"', "", ""),
        ('Basic realm="x" Bearer error="invalid_token"', "", ""),
        ('Bearer YWJj, error="invalid_token"', "invalid_token", ""),
        ('Bearer realm="x" error="invalid_token"', "invalid_token", ""),
        ('Bearer error="invalid_token", error="invalid_request"', "invalid_token", ""),
        (f'Bearer realm="{"x" * 5000}", error="invalid_token"', "", ""),
        ("", "", ""),
    ],
)
def test_only_the_bearer_challenge_says_what_is_wrong_with_the_token(
    header: str, error: str, scope: str, endpoint: HostileTokenEndpoint
) -> None:
    """P9: RFC 9110 section 11.6.1; another scheme's parameter, or a text in quotes, ends no token."""
    endpoint.play(http_answer(b"", status=401, WWW_Authenticate=header))
    response = call(endpoint.url)
    assert (response.error, response.scope) == (error, scope)
    assert response.refuses_token is (error == "invalid_token")


def test_a_challenge_in_a_second_header_counts(endpoint: HostileTokenEndpoint) -> None:
    """P9."""
    both = b'WWW-Authenticate: Basic realm="x"\r\nwww-authenticate: Bearer error="invalid_token"\r\n'
    endpoint.play(b"HTTP/1.1 401 No\r\n" + both + b"Content-Length: 0\r\n\r\n")
    assert call(endpoint.url).refuses_token


@pytest.mark.parametrize(("status", "error"), [(403, "invalid_token"), (400, "invalid_token"), (200, "invalid_token")])
def test_another_status_does_not_refuse_the_token(status: int, error: str, endpoint: HostileTokenEndpoint) -> None:
    """P9."""
    endpoint.play(http_answer(b"", status=status, WWW_Authenticate=f'Bearer error="{error}"'))
    assert not call(endpoint.url).refuses_token


@pytest.mark.parametrize("text", ['a="', '"\\', 'Bearer a="\\', "Bearer a=", "a ", ","])
def test_a_long_challenge_is_not_read(text: str) -> None:
    """P9: a hostile API gets no time of ours. Where a long text is cut, its quotes would have no end."""
    assert challenge_of("Bearer", text * 30_000) == {}


@pytest.fixture
def refused_first(endpoint: HostileTokenEndpoint, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Refuse the first connection to the API. Returns the ports that are tried."""
    tried: list[int] = []
    monkeypatch.setattr("socket.socket.connect", _refusing(tried, endpoint.port))
    return tried


def _refusing(tried: list[int], port: int) -> Any:
    real = socket.socket.connect

    def connect(peer: socket.socket, address: Any) -> None:
        tried.append(address[1])
        if address[1] == port and len(tried) == 1:
            raise ConnectionRefusedError
        real(peer, address)

    return connect


def test_what_is_safe_to_repeat_is_sent_again_if_nothing_was_sent(
    endpoint: HostileTokenEndpoint, refused_first: list[int]
) -> None:
    """P8."""
    assert call(endpoint.url, safe=True).status == 200
    assert (len(refused_first), len(endpoint.requests)) == (2, 1)


def test_what_is_not_safe_to_repeat_is_not(endpoint: HostileTokenEndpoint, refused_first: list[int]) -> None:
    """P8."""
    with pytest.raises(transport.EndpointUnreachable) as failure:
        call(endpoint.url, safe=False)
    assert not failure.value.was_sent
    assert (len(refused_first), len(endpoint.requests)) == (1, 0)


@pytest.mark.parametrize("part", [b"", b"HTTP/1.1", HEAD + b"Content-Length: 10\r\n\r\n{"])
def test_what_may_have_been_done_is_never_sent_again(part: bytes, endpoint: HostileTokenEndpoint) -> None:
    """P8: the API closes the connection when it has the request."""

    def hang_up() -> Iterator[bytes]:
        yield part
        raise ConnectionResetError

    endpoint.play()
    endpoint.script = hang_up
    with pytest.raises(transport.OutboundError) as failure:
        call(endpoint.url, safe=True)
    assert failure.value.was_sent
    assert len(endpoint.requests) == 1


def test_an_address_of_our_own_network_is_not_called_twice(look_ups: Any) -> None:
    """P6, N2: it stays blocked."""
    asked = look_ups(["10.0.0.1"])
    with pytest.raises(transport.EndpointBlocked) as failure:
        call("https://api.acme.example/orders", safe=True)
    assert not failure.value.was_sent
    assert len(asked) == 1


def test_what_is_left_on_a_connection_is_no_answer_to_the_next_call(endpoint: HostileTokenEndpoint) -> None:
    """P10: the bug was that the API's second answer, sent with the first, was read as that to another conversation.

    The first answer is as long as what http.client reads at once, so the second one waits in the TLS layer.
    """
    smuggled = http_answer(b'{"of": "somebody else"}')
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
    length = 8192 - len(head % 8000)
    endpoint.play(head % length + b" " * length + smuggled)
    call(endpoint.url)
    endpoint.script = lambda: [http_answer(b'{"of": "this call"}')]
    assert call(endpoint.url).body == b'{"of": "this call"}'


@pytest.mark.parametrize("status", [101, 102, 103])
def test_an_interim_answer_is_no_answer(status: int, endpoint: HostileTokenEndpoint) -> None:
    """P10: the final answer comes later, and would be read as that to the next call."""
    endpoint.play(b"HTTP/1.1 %d Early\r\n\r\n" % status, 0.1, http_answer(b'{"of": "the first"}'))
    with pytest.raises(transport.EndpointUnreachable):
        call(endpoint.url)
    endpoint.script = lambda: [http_answer(b'{"of": "this call"}')]
    assert call(endpoint.url).body == b'{"of": "this call"}'


def test_a_shorter_body_than_announced_is_no_answer(endpoint: HostileTokenEndpoint) -> None:
    """P10."""

    def cut() -> Iterator[bytes]:
        yield HEAD + b'Content-Length: 100\r\n\r\n{"orders": []}'
        raise ConnectionResetError

    endpoint.play()
    endpoint.script = cut
    with pytest.raises(transport.EndpointUnreachable):
        call(endpoint.url)
