"""Outgoing requests: limits of time and size."""

import contextlib
import gzip
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any, Final

import pytest

from oauth_client import transport
from tests.brands.outbound import HEAD, post
from tests.hostile_token_endpoint import HostileTokenEndpoint, http_answer


@pytest.fixture
def short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Divide the limits by ten."""
    monkeypatch.setattr(transport, "TOTAL_TIMEOUT", 1.0)
    monkeypatch.setattr(transport, "CONNECT_TIMEOUT", 0.3)
    monkeypatch.setattr(transport, "READ_TIMEOUT", 0.5)


# As a busy machine may need it. A call without limits would take longer: servers here hang for 30 seconds or for ever.
SOON: Final = 15


def seconds_until_timeout(url: str) -> float:
    started = time.monotonic()
    with pytest.raises(transport.EndpointTimeout):
        post(url)
    return time.monotonic() - started


@pytest.mark.usefixtures("short_limits")
@pytest.mark.parametrize(
    ("head", "drop"),
    [
        pytest.param(b"", b"H", id="status line"),
        pytest.param(HEAD, b"X-Drop: 1\r\n", id="headers"),
        pytest.param(HEAD + b"X-Drop: ", b"a", id="one header"),
        pytest.param(HEAD + b"Content-Length: 60000\r\n\r\n", b" ", id="body"),
        pytest.param(HEAD + b"\r\n", b" ", id="body without a length"),
        pytest.param(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n", id="chunks"),
        pytest.param(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"0", id="a chunk's size"),
        pytest.param(HEAD + b"Content-Encoding: gzip\r\n\r\n", gzip.compress(b" ")[:1], id="gzip"),
    ],
)
def test_a_dripping_server_is_left_at_the_deadline(head: bytes, drop: bytes, endpoint: HostileTokenEndpoint) -> None:
    """N6: each byte starts the read time-out anew; the deadline does not move. Headers drip as well as bodies."""
    endpoint.play_forever(head, drop, 0.1)

    assert 0.9 < seconds_until_timeout(endpoint.url) < SOON


@pytest.mark.usefixtures("short_limits")
@pytest.mark.parametrize(
    "part", [b"", HEAD, HEAD + b"Content-Length: 10\r\n\r\n{"], ids=["at once", "in headers", "in body"]
)
def test_a_hanging_server_is_left_at_the_read_timeout(part: bytes, endpoint: HostileTokenEndpoint) -> None:
    """N6."""
    endpoint.play(part, 30.0)

    assert 0.4 < seconds_until_timeout(endpoint.url) < SOON


@pytest.mark.usefixtures("short_limits", "endpoint")
def test_a_server_that_never_shakes_hands_is_left_at_the_connect_timeout() -> None:
    """N6."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert 0.2 < seconds_until_timeout(f"https://localhost:{silent.getsockname()[1]}/token") < SOON


@pytest.mark.usefixtures("short_limits", "endpoint")
def test_a_handshake_that_drips_is_left_at_the_connect_timeout() -> None:
    """N6: bytes of a handshake that never ends."""
    with socket.create_server(("127.0.0.1", 0)) as dripping:
        threading.Thread(target=_drip_handshake, args=(dripping,), daemon=True).start()

        assert 0.2 < seconds_until_timeout(f"https://localhost:{dripping.getsockname()[1]}/token") < SOON


def _drip_handshake(server: socket.socket) -> None:
    with contextlib.suppress(OSError):
        peer, _ = server.accept()
        with peer:
            peer.sendall(b"\x16\x03\x03\x40\x00")
            while True:
                time.sleep(0.05)
                peer.sendall(b"\x02")


@pytest.mark.usefixtures("short_limits", "endpoint")
def test_a_slow_look_up_leaves_no_time_to_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    """N6: what the resolver took is not given again."""
    real = socket.getaddrinfo

    def slow(*arguments: Any, **options: Any) -> Any:
        time.sleep(1.05)
        return real(*arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", slow)

    assert seconds_until_timeout("https://localhost:9/token") < SOON


def test_a_machine_that_slept_between_two_reads_gives_the_call_up(
    endpoint: HostileTokenEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """N6: the deadline passed while nobody was reading."""
    asleep: list[float] = []

    def answer() -> Iterator[bytes | float]:
        asleep.append(60.0)
        yield http_answer(b" " * 60_000)  # more than one read takes

    endpoint.script = answer
    monkeypatch.setattr(transport, "monotonic", lambda: time.monotonic() + sum(asleep))
    with pytest.raises(transport.EndpointTimeout):
        post(endpoint.url)


@pytest.mark.usefixtures("short_limits")
def test_a_kept_connection_has_the_deadline_of_the_call_that_uses_it(endpoint: HostileTokenEndpoint) -> None:
    post(endpoint.url)
    time.sleep(1.1)

    assert post(endpoint.url).status_code == 200
    assert endpoint.connections == 1


def answers_that_are_too_large() -> dict[str, bytes]:
    bomb = gzip.compress(b" " * 50_000_000)
    return {
        "N7 one byte": http_answer(b" " * 65_537),
        "N7 without a length": HEAD + b"\r\n" + b" " * 70_000,
        "N7 gzip bomb": http_answer(bomb, Content_Encoding="gzip"),
        "N7 gzip bomb in gzip": http_answer(gzip.compress(bomb), Content_Encoding="gzip, gzip"),
        "N7 deflate": http_answer(bomb, Content_Encoding="x-gzip"),
    }


@pytest.mark.parametrize("name", answers_that_are_too_large())
def test_an_answer_that_is_too_large_is_refused(name: str, endpoint: HostileTokenEndpoint) -> None:
    """N7: 65,536 bytes, counted after decompression."""
    endpoint.play(answers_that_are_too_large()[name])

    with pytest.raises(transport.ResponseTooLarge):
        post(endpoint.url)


def test_an_answer_of_50_megabytes_is_left_after_the_first_kilobytes(endpoint: HostileTokenEndpoint) -> None:
    """N7: 59 MB were read into memory before."""
    sent: list[int] = []

    def flood() -> Iterator[bytes]:
        yield HEAD + b"Content-Length: 50000000\r\n\r\n"
        for _ in range(500):
            sent.append(100_000)
            yield b" " * 100_000

    endpoint.script = flood
    with pytest.raises(transport.ResponseTooLarge):
        post(endpoint.url)

    assert sum(sent) < 10_000_000


def test_the_largest_allowed_answer_is_read(endpoint: HostileTokenEndpoint) -> None:
    endpoint.play(http_answer(b" " * 65_536))

    assert post(endpoint.url).content == b" " * 65_536


def test_calls_of_one_block_share_what_is_left() -> None:
    """N6, A8: a revocation by the request that exchanged has what the exchange left over."""
    with transport.within(60):
        wide = transport._block_deadline.get()
        with transport.within(1):
            assert transport._block_deadline.get() < wide
        with transport.within(120):
            assert transport._block_deadline.get() == wide
    assert transport._block_deadline.get() == float("inf")


@pytest.mark.parametrize("extension", [b";a=" + b"x" * 60_000, b";" + b" " * 60_000])
def test_what_is_around_the_bytes_of_an_answer_is_bounded_too(extension: bytes, endpoint: HostileTokenEndpoint) -> None:
    """N7: an answer of 100 bytes, in chunks whose frames are 6 MB. Only what they hold was counted."""
    chunks = b"".join(b"1" + extension + b"\r\n \r\n" for _ in range(100))
    endpoint.play(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
    with pytest.raises(transport.ResponseTooLarge):
        post(endpoint.url)


def test_small_chunks_are_no_fault(endpoint: HostileTokenEndpoint) -> None:
    """N7: some servers write a chunk for each few bytes. The bound is that of one answer, and not of a connection."""
    chunks = b"".join(b"1\r\n \r\n" for _ in range(60_000))
    endpoint.play(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
    for _ in range(3):
        assert len(post(endpoint.url).content) == 60_000
    assert endpoint.connections == 1
