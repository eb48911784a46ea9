"""Calls that leave us: where they may go, how long and how large they may become, and that they happen once."""

import contextlib
import gzip
import io
import logging
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import requests
from django.core.exceptions import ImproperlyConfigured
from pytest_django import Settings

from brands import transport
from tests.hostile_token_endpoint import HostileTokenEndpoint, http_answer, running, token_answer, token_body
from tests.tls import Authority

NOT_PUBLIC = [
    *("0.0.0.1", "10.1.2.3", "100.64.0.1", "127.0.0.1", "127.255.255.254", "169.254.169.254", "172.31.255.255"),
    *("192.0.0.8", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.51.100.1", "203.0.113.1"),
    *("224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"),
    *("::", "::1", "::127.0.0.1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:0:8.8.8.8"),
    *("64:ff9b::127.0.0.1", "64:ff9b::8.8.8.8", "64:ff9b:1::1", "100::1", "2001::1", "2001:2::1", "2001:10::1"),
    *("2001:20::1", "2001:db8::1", "2002:7f00:1::", "3fff::1", "5f00::1", "fc00::1", "fd12:3456::1", "fe80::1"),
    *("fe80::1%2", "fec0::1", "ff02::1"),
]
PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "100.63.255.255",
    "172.32.0.1",
    "192.169.0.1",
    "223.255.255.255",
    "2606:4700::1111",
    "2a00::1",
]


@pytest.fixture
def endpoint(tls_authority: Authority, settings: Settings) -> Iterator[HostileTokenEndpoint]:
    """Return a hostile endpoint whose certificate authority is trusted."""
    settings.OUTBOUND_CA_FILE = str(tls_authority.ca_file)
    settings.ALLOW_LOCAL_ENDPOINTS = True
    with running(tls_authority.issue()) as server:
        yield server


@pytest.fixture
def look_ups(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Return a function that decides what names resolve to, one answer after the other, and notes who asked."""

    def resolve_to(*answers: list[str]) -> list[str]:
        asked: list[str] = []
        left = list(answers)
        real = socket.getaddrinfo

        def resolve(host: str, port: int, *arguments: Any, **options: Any) -> Any:
            if host.replace(".", "").isdigit() or ":" in host:
                return real(host, port, *arguments, **options)
            asked.append(host)
            addresses = left.pop(0) if len(left) > 1 else left[0]
            return [real(address, port, *arguments, **options)[0] for address in addresses]

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        return asked

    return resolve_to


def post(url: str, **options: Any) -> requests.Response:
    """Post as the token exchange does."""
    with transport.GuardedSession() as session:
        return session.post(url, data={"code": "planted-code"}, **options)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_an_address_that_leads_inside_is_not_public(address: str) -> None:
    """N3: also those that Python 3.11.7 calls global, and those that requests-hardened lets through."""
    assert not transport.is_public(ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_an_address_of_the_internet_is_public(address: str) -> None:
    assert transport.is_public(ip_address(address))


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_a_name_that_resolves_inside_is_not_called(
    address: str, settings: Settings, look_ups: Callable[..., list[str]]
) -> None:
    """N2, N3: whatever the name, its address decides."""
    settings.ALLOW_LOCAL_ENDPOINTS = False
    look_ups([address])

    with pytest.raises(transport.EndpointBlocked):
        post("https://login.acme.example/token")


def test_one_private_address_among_public_ones_blocks_the_name(
    settings: Settings, look_ups: Callable[..., list[str]]
) -> None:
    """N2: all addresses count, not the first; the next look-up may put another one first."""
    settings.ALLOW_LOCAL_ENDPOINTS = False
    look_ups(["8.8.8.8", "10.0.0.1"])

    with pytest.raises(transport.EndpointBlocked):
        post("https://login.acme.example/token")


def test_a_name_is_resolved_once_and_the_checked_address_is_connected_to(
    settings: Settings, look_ups: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """N2: a second look-up would be answered with loopback (DNS rebinding)."""
    settings.ALLOW_LOCAL_ENDPOINTS = False
    asked = look_ups(["8.8.8.8"], ["127.0.0.1"])
    connected: list[Any] = []

    def refuse(_socket: socket.socket, address: Any) -> None:
        connected.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket.socket, "connect", refuse)
    with pytest.raises(transport.EndpointUnreachable):
        post("https://login.acme.example/token")

    assert (asked, connected) == (["login.acme.example"], [("8.8.8.8", 443)])


@pytest.mark.parametrize(
    "url",
    [
        *("http://login.acme.example/token", "https://8.8.8.8/token", "https://login.acme.example:8443/token"),
        *("https://user:password@login.acme.example/token", "http://127.0.0.1:8001/token", "https://localhost/token"),
        *(
            "file:///etc/passwd",
            "",
            "login.acme.example",
            "https://",
            "https://[::1/",
            "https://*.acme.example/",
            "https://a b/",
        ),
    ],
)
def test_an_address_is_validated_again_before_the_call(
    url: str, settings: Settings, look_ups: Callable[..., list[str]]
) -> None:
    """N1: a row written by SQL, or before the settings changed, opens nothing."""
    settings.ALLOW_LOCAL_ENDPOINTS = False
    asked = look_ups(["8.8.8.8"])

    with pytest.raises(transport.EndpointBlocked):
        post(url)

    assert asked == []


def test_an_https_endpoint_is_called_under_its_own_name(endpoint: HostileTokenEndpoint) -> None:
    response = post(endpoint.url)

    assert (response.status_code, response.content) == (200, token_body())
    assert f"Host: localhost:{endpoint.port}".encode() in endpoint.requests[0]
    assert endpoint.requests[0].endswith(b"\r\n\r\ncode=planted-code")


def test_a_document_can_be_fetched(endpoint: HostileTokenEndpoint) -> None:
    endpoint.play(http_answer(b'{"keys": []}'))

    assert transport.get(endpoint.url).json() == {"keys": []}
    assert endpoint.requests[0].startswith(b"GET /token HTTP/1.1\r\n")


def test_a_connection_is_kept_for_the_next_session(endpoint: HostileTokenEndpoint) -> None:
    post(endpoint.url)
    post(endpoint.url)

    assert (len(endpoint.requests), endpoint.connections) == (2, 1)


def test_a_certificate_of_nobody_we_know_is_refused(endpoint: HostileTokenEndpoint, settings: Settings) -> None:
    settings.OUTBOUND_CA_FILE = ""

    with pytest.raises(transport.EndpointUnreachable, match="certificate was not accepted"):
        post(endpoint.url)

    assert endpoint.requests == []


def test_a_session_cannot_switch_certificates_off(endpoint: HostileTokenEndpoint, settings: Settings) -> None:
    settings.OUTBOUND_CA_FILE = ""

    with pytest.raises(transport.EndpointUnreachable):
        post(endpoint.url, verify=False)


def test_a_certificate_for_another_name_is_refused(tls_authority: Authority, settings: Settings) -> None:
    settings.OUTBOUND_CA_FILE = str(tls_authority.ca_file)
    with running(tls_authority.issue("rival.example")) as server:
        with pytest.raises(transport.EndpointUnreachable, match="certificate was not accepted"):
            post(server.url)

        assert server.requests == []


def test_the_extra_certificates_come_on_top_of_the_usual_ones(tls_authority: Authority) -> None:
    extra = transport._tls_context(str(tls_authority.ca_file)).cert_store_stats()["x509_ca"]

    assert extra == transport._tls_context("").cert_store_stats()["x509_ca"] + 1
    assert extra > 100


def test_tls_begins_at_version_1_2() -> None:
    context = transport._tls_context("")

    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


def test_the_check_of_the_host_name_is_never_switched_off(endpoint: HostileTokenEndpoint, settings: Settings) -> None:
    """urllib3 clears `check_hostname` in a shared context when it is given `assert_hostname`."""
    post(endpoint.url)

    assert transport._tls_context(settings.OUTBOUND_CA_FILE).check_hostname


def test_one_context_and_one_adapter_serve_the_whole_process(endpoint: HostileTokenEndpoint) -> None:
    assert transport.adapter_for(endpoint.url) is transport.adapter_for("https://login.acme.example/token")
    assert transport.adapter_for(endpoint.url) is not transport.adapter_for("http://localhost/token")


def test_a_ca_file_that_cannot_be_read_is_a_mistake_of_ours(endpoint: HostileTokenEndpoint, settings: Settings) -> None:
    settings.OUTBOUND_CA_FILE = "/nowhere/ca.pem"

    with pytest.raises(ImproperlyConfigured, match="OUTBOUND_CA_FILE"):
        post(endpoint.url)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("location", ["/elsewhere", "https://rival.example/token", "//\udcff/", ""])
def test_no_redirect_is_followed(status: int, location: str, endpoint: HostileTokenEndpoint) -> None:
    """N4: 307 and 308 would post the code again, also to another host."""
    answer = http_answer(b"", status, Location="@").replace(b"@", location.encode("utf-8", "surrogateescape"))
    endpoint.play(answer)

    assert post(endpoint.url, allow_redirects=True).status_code == status
    assert len(endpoint.requests) == 1


def test_the_environment_changes_nothing(
    endpoint: HostileTokenEndpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """N5: proxies, CA bundles, .netrc and a file for session keys out of the environment."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine localhost login ada password planted-password")
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.setenv(name, os.devnull)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    transport._tls_context.cache_clear()
    transport._adapter.cache_clear()

    assert post(endpoint.url).status_code == 200
    assert b"Authorization" not in endpoint.requests[0]
    assert not (tmp_path / "keys").exists()


@pytest.fixture
def short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shrink the limits by ten; the proportions stay."""
    monkeypatch.setattr(transport, "TOTAL_TIMEOUT", 1.0)
    monkeypatch.setattr(transport, "CONNECT_TIMEOUT", 0.3)
    monkeypatch.setattr(transport, "READ_TIMEOUT", 0.5)


def seconds_until_timeout(url: str) -> float:
    started = time.monotonic()
    with pytest.raises(transport.EndpointTimeout):
        post(url)
    return time.monotonic() - started


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


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

    assert 0.9 < seconds_until_timeout(endpoint.url) < 1.4


@pytest.mark.usefixtures("short_limits")
@pytest.mark.parametrize(
    "part", [b"", HEAD, HEAD + b"Content-Length: 10\r\n\r\n{"], ids=["at once", "in headers", "in body"]
)
def test_a_hanging_server_is_left_at_the_read_timeout(part: bytes, endpoint: HostileTokenEndpoint) -> None:
    """N6."""
    endpoint.play(part, 5.0)

    assert 0.4 < seconds_until_timeout(endpoint.url) < 0.9


@pytest.mark.usefixtures("short_limits", "endpoint")
def test_a_server_that_never_shakes_hands_is_left_at_the_connect_timeout() -> None:
    """N6."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert 0.2 < seconds_until_timeout(f"https://localhost:{silent.getsockname()[1]}/token") < 0.7


@pytest.mark.usefixtures("short_limits", "endpoint")
def test_a_handshake_that_drips_is_left_at_the_connect_timeout() -> None:
    """N6: bytes of a handshake that never ends."""
    with socket.create_server(("127.0.0.1", 0)) as dripping:
        threading.Thread(target=_drip_handshake, args=(dripping,), daemon=True).start()

        assert 0.2 < seconds_until_timeout(f"https://localhost:{dripping.getsockname()[1]}/token") < 0.7


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

    assert seconds_until_timeout("https://localhost:9/token") < 1.4


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


@pytest.mark.parametrize(
    "part",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"SSH-2.0-OpenSSH_9.6\r\n\r\n", id="another protocol"),
        pytest.param(HEAD + b"Content-Length: 500\r\n\r\n{}", id="cut short"),
        pytest.param(HEAD + b"X: " + b"a" * 70_000 + b"\r\n\r\n", id="endless header"),
        pytest.param(HEAD + b"".join(b"X-%d: 1\r\n" % number for number in range(200)) + b"\r\n", id="200 headers"),
        pytest.param(HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", id="no chunk"),
        pytest.param(http_answer(b"{}", Content_Encoding="gzip"), id="gzip that is none"),
    ],
)
def test_what_is_not_an_answer_is_a_failure_and_sent_no_second_time(
    part: bytes, endpoint: HostileTokenEndpoint
) -> None:
    """E20: the server may have seen the code."""

    def answer_and_hang_up() -> Iterator[bytes]:
        yield part
        raise ConnectionAbortedError

    endpoint.script = answer_and_hang_up
    with pytest.raises(transport.EndpointUnreachable):
        post(endpoint.url)

    assert len(endpoint.requests) == 1


def test_a_kept_connection_that_dies_while_we_send_is_not_replaced(endpoint: HostileTokenEndpoint) -> None:
    """E20: the request of the second call arrived; whether it was acted on, nobody can tell."""

    def once_then_hang_up() -> Iterator[bytes]:
        if len(endpoint.requests) > 1:
            raise ConnectionAbortedError
        yield token_answer()

    endpoint.script = once_then_hang_up
    post(endpoint.url)
    with pytest.raises(transport.EndpointUnreachable):
        post(endpoint.url)

    assert (len(endpoint.requests), endpoint.connections) == (2, 1)


@pytest.mark.usefixtures("endpoint")
def test_nobody_listening_is_a_failure() -> None:
    with pytest.raises(transport.EndpointUnreachable):
        post("https://localhost:9/token")


def test_a_name_that_does_not_resolve_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: Any, **_options: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(transport.EndpointUnreachable):
        post("https://login.acme.example/token")


def test_an_error_says_nothing_of_the_request(endpoint: HostileTokenEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """H2, H5: neither message, nor cause, nor log holds query, body or headers."""
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    endpoint.play(b"nonsense planted-answer\r\n\r\n")
    with pytest.raises(transport.EndpointUnreachable) as failure:
        post(endpoint.url + "?tenant=planted-query", headers={"Authorization": "Basic planted-secret"})

    assert failure.value.__cause__ is None
    assert failure.value.__suppress_context__
    assert "planted" not in f"{failure.value!r} {log.getvalue()}"
