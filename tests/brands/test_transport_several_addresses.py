"""Outgoing requests: names with several addresses, some unreachable, and reused connections."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address

import pytest

from oauth_client import addresses, transport
from tests.brands.outbound import post
from tests.hostile_token_endpoint import HostileTokenEndpoint, token_answer
from tests.tls import Authority, ServerCertificate

LookUps = Callable[..., list[str]]
# Loopback addresses, each of which is another machine to a client.
HERE, ELSEWHERE, FURTHER = "127.0.0.1", "127.0.0.2", "127.0.0.3"


@contextlib.contextmanager
def listening(address: str, port: int, backlog: int = 5) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, port), family=family, backlog=backlog) as server:
        yield server


@contextlib.contextmanager
def black_hole(address: str, port: int) -> Iterator[None]:
    """A listener with a full queue, which drops further connection attempts silently."""
    with listening(address, port, backlog=0), contextlib.ExitStack() as waiting:
        for _ in range(3):
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex((address, port))
        yield


@contextlib.contextmanager
def answering(address: str, port: int, answer: Callable[[socket.socket], None]) -> Iterator[None]:
    def serve(server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = server.accept()
                with peer, contextlib.suppress(OSError):
                    answer(peer)

    with listening(address, port) as server:
        threading.Thread(target=serve, args=(server,), daemon=True).start()
        yield
        server.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def with_a_certificate(address: str, port: int, certificate: ServerCertificate) -> Iterator[None]:
    context = certificate.server_context()
    with answering(address, port, lambda peer: context.wrap_socket(peer, server_side=True).close()):
        yield


@pytest.fixture
def short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "TOTAL_TIMEOUT", 2.0)
    monkeypatch.setattr(transport, "CONNECT_TIMEOUT", 0.4)
    monkeypatch.setattr(transport, "READ_TIMEOUT", 1.0)


@pytest.fixture
def let_pass(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Return a function that advances the transport's clock by some seconds."""
    passed: list[float] = []
    monkeypatch.setattr(transport, "monotonic", lambda: time.monotonic() + sum(passed))
    return passed.append


@pytest.mark.parametrize("dead", [[ELSEWHERE], ["::1"], [ELSEWHERE, "::1", FURTHER]], ids=str)
def test_the_next_address_is_tried_where_nobody_listens(
    dead: list[str], endpoint: HostileTokenEndpoint, look_ups: LookUps
) -> None:
    """N2. The bug: the first address alone was tried, so one dead machine of several was a brand that is down."""
    asked = look_ups([*dead, HERE])

    assert post(endpoint.url).status_code == 200
    assert (asked, len(endpoint.requests)) == (["localhost"], 1)


@pytest.mark.usefixtures("short_limits")
@pytest.mark.parametrize("hole", [ELSEWHERE])
def test_the_next_address_is_tried_where_packets_vanish(
    hole: str, endpoint: HostileTokenEndpoint, look_ups: LookUps
) -> None:
    """N2, N6: an address family or a machine that leads nowhere, without a word."""
    look_ups([hole, HERE])

    with black_hole(hole, endpoint.port):
        assert post(endpoint.url).status_code == 200


@pytest.mark.usefixtures("short_limits")
@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(lambda _peer: None, id="hangs up"),
        pytest.param(lambda peer: peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"), id="speaks no TLS"),
        pytest.param(lambda _peer: time.sleep(1.5), id="never shakes hands"),
        pytest.param(lambda peer: peer.sendall(b"\x15\x03\x03\x00\x02\x02\x28"), id="refuses the handshake"),
    ],
)
def test_the_next_address_is_tried_where_no_tls_comes_about(
    answer: Callable[[socket.socket], None], endpoint: HostileTokenEndpoint, look_ups: LookUps
) -> None:
    """N2, E20: of the request, nothing was sent yet."""
    look_ups([ELSEWHERE, HERE])

    with answering(ELSEWHERE, endpoint.port, answer):
        assert post(endpoint.url).status_code == 200
    assert len(endpoint.requests) == 1


def test_the_next_address_is_tried_where_another_certificate_is_shown(
    endpoint: HostileTokenEndpoint, look_ups: LookUps, tls_authority: Authority
) -> None:
    """N2: as one that is not accepted it is never spoken to; the next one has to show a good one all the same."""
    look_ups([ELSEWHERE, HERE])

    with with_a_certificate(ELSEWHERE, endpoint.port, tls_authority.issue("rival.example")):
        assert post(endpoint.url).status_code == 200


def test_a_certificate_that_is_not_accepted_is_what_is_said_where_no_address_is_better(
    endpoint: HostileTokenEndpoint, look_ups: LookUps, tls_authority: Authority
) -> None:
    look_ups([ELSEWHERE, FURTHER])

    with (
        with_a_certificate(ELSEWHERE, endpoint.port, tls_authority.issue("rival.example")),
        pytest.raises(transport.EndpointUnreachable, match="certificate was not accepted"),
    ):
        post(endpoint.url)


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", b"SSH-2.0-OpenSSH_9.6\r\n\r\n"], ids=str
)
def test_a_request_that_was_sent_goes_to_no_other_address(
    answer: bytes, endpoint: HostileTokenEndpoint, look_ups: LookUps
) -> None:
    """E20: the server may have seen the code, whatever became of its answer."""
    look_ups([HERE, ELSEWHERE])
    others: list[bool] = []

    def answer_and_hang_up() -> Iterator[bytes]:
        yield answer
        raise ConnectionAbortedError

    endpoint.script = answer_and_hang_up
    with (
        answering(ELSEWHERE, endpoint.port, lambda _peer: others.append(True)),
        pytest.raises(transport.EndpointUnreachable),
    ):
        post(endpoint.url)

    assert (len(endpoint.requests), others) == (1, [])


@pytest.mark.usefixtures("short_limits")
def test_a_request_that_is_not_answered_goes_to_no_other_address(
    endpoint: HostileTokenEndpoint, look_ups: LookUps
) -> None:
    """E20, N6."""
    look_ups([HERE, ELSEWHERE])
    endpoint.play(3.0)
    others: list[bool] = []

    with (
        answering(ELSEWHERE, endpoint.port, lambda _peer: others.append(True)),
        pytest.raises(transport.EndpointTimeout),
    ):
        post(endpoint.url)

    assert (len(endpoint.requests), others) == (1, [])


@pytest.mark.usefixtures("short_limits")
def test_many_addresses_that_lead_nowhere_share_one_deadline(endpoint: HostileTokenEndpoint, look_ups: LookUps) -> None:
    """N6: however many there are, half of the time stays for the answer, and nothing is sent without it."""
    holes = [f"127.0.1.{number}" for number in range(1, 13)]
    look_ups([*holes, HERE])

    with contextlib.ExitStack() as opened:
        for hole in holes:
            opened.enter_context(black_hole(hole, endpoint.port))
        with pytest.raises(transport.EndpointTimeout):
            post(endpoint.url)

    assert endpoint.requests == []


def test_one_address_that_is_not_public_still_blocks_the_name(
    endpoint: HostileTokenEndpoint, look_ups: LookUps
) -> None:
    """N2: it is not tried last; nothing is tried."""
    look_ups([HERE, "10.0.0.1"])

    with pytest.raises(transport.EndpointBlocked):
        post(endpoint.url)

    assert endpoint.connections == 0


@pytest.mark.parametrize(
    ("answers", "order"),
    [
        (["2a00::1", "2a00::2", "8.8.8.8", "8.8.4.4"], ("2a00::1", "8.8.8.8", "2a00::2", "8.8.4.4")),
        (["8.8.8.8", "8.8.4.4", "2a00::1"], ("8.8.8.8", "2a00::1", "8.8.4.4")),
        (["8.8.8.8", "8.8.8.8"], ("8.8.8.8",)),
        (["2a00::1"], ("2a00::1",)),
    ],
)
def test_both_families_come_by_turns(answers: list[str], order: tuple[str, ...]) -> None:
    """RFC 8305 section 4: four addresses of an unreachable family would use up the time of the other."""
    assert addresses.alternating_families([ip_address(answer) for answer in answers]) == order


def test_plain_http_on_loopback_tries_the_next_address_too(endpoint: HostileTokenEndpoint, look_ups: LookUps) -> None:
    look_ups([FURTHER, ELSEWHERE])

    def answer(peer: socket.socket) -> None:
        received = b""
        while not received.endswith(b"planted-code"):
            received += peer.recv(65_536)
        peer.sendall(token_answer())

    with answering(ELSEWHERE, endpoint.port, answer):
        assert post(f"http://localhost:{endpoint.port}/token").status_code == 200


@pytest.mark.parametrize(("seconds", "connections"), [(0.0, 1), (45.0, 1), (60.0, 2), (3600.0, 2)])
def test_a_connection_that_was_idle_for_a_minute_is_not_used_again(
    seconds: float, connections: int, endpoint: HostileTokenEndpoint, let_pass: Callable[[float], None]
) -> None:
    """E20. The bug: what forgets connections after 60 s, and says nothing, cost a code and a time-out."""
    post(endpoint.url)
    let_pass(seconds)

    assert post(endpoint.url).status_code == 200
    assert (len(endpoint.requests), endpoint.connections) == (2, connections)


def test_a_connection_in_use_does_not_age(endpoint: HostileTokenEndpoint, let_pass: Callable[[float], None]) -> None:
    for _ in range(5):
        post(endpoint.url)
        let_pass(40.0)

    assert (len(endpoint.requests), endpoint.connections) == (5, 1)


def test_a_kept_connection_that_the_server_has_closed_is_noticed_before_anything_is_sent(
    endpoint: HostileTokenEndpoint,
) -> None:
    """E20: whenever that was, 5 seconds or 59."""

    def answer_once() -> Iterator[bytes]:
        yield token_answer()
        if len(endpoint.requests) == 1:
            raise ConnectionAbortedError

    endpoint.script = answer_once
    post(endpoint.url)
    deadline = time.monotonic() + 5
    while endpoint.open_connections and time.monotonic() < deadline:
        time.sleep(0.01)

    assert post(endpoint.url).status_code == 200
    assert (len(endpoint.requests), endpoint.connections) == (2, 2)


def test_a_connection_to_an_address_that_the_name_no_longer_has_is_not_used_again(
    endpoint: HostileTokenEndpoint, look_ups: LookUps
) -> None:
    """N2: each call goes to an address that was checked for it, a kept connection too."""
    look_ups([ELSEWHERE, HERE], [ELSEWHERE])
    post(endpoint.url)

    with pytest.raises(transport.EndpointUnreachable):
        post(endpoint.url)

    assert len(endpoint.requests) == 1
