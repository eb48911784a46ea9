"""Outgoing requests: certificates, redirects, environment variables, and no retries."""

import io
import logging
import os
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from django.core.exceptions import ImproperlyConfigured
from pytest_django import Settings

from oauth_client import transport
from tests.brands.outbound import HEAD, post
from tests.hostile_token_endpoint import HostileTokenEndpoint, http_answer, running, token_answer, token_body
from tests.tls import Authority


def test_an_https_endpoint_is_called_under_its_own_name(endpoint: HostileTokenEndpoint) -> None:
    response = post(endpoint.url)

    assert (response.status_code, response.content) == (200, token_body())
    assert f"Host: localhost:{endpoint.port}".encode() in endpoint.requests[0]
    assert endpoint.requests[0].endswith(b"\r\n\r\ncode=planted-code")


def test_a_document_can_be_fetched(endpoint: HostileTokenEndpoint) -> None:
    endpoint.play(http_answer(b'{"keys": []}'))

    assert transport.get(endpoint.url).json() == {"keys": []}
    assert endpoint.requests[0].startswith(b"GET /token HTTP/1.1\r\n")


@pytest.mark.parametrize(
    "end",
    [
        *("", "/a b", "/?", "/a?", "/orders?limit=10&x=a%20b", "/a?b?c", "/a?%41=~"),
        *[
            "/",
            "/orders",
            "/orders/",
            "/a/./b",
            "/a/../b",
            "/..",
            "//a",
            "/a//b",
            "/%41",
            "/%7e/%2F",
            "/a%20b",
            "/a;b",
            "/:a",
            "/a@b",
            "/~a/a.b_c-d",
            "/.a",
        ],
    ],
)
@pytest.mark.parametrize("host", ["https://api.acme.example", "https://API.acme.example", "https://a.example:443"])
def test_an_address_is_sent_as_requests_would_write_it(host: str, end: str) -> None:
    """A plain one is not prepared again, so it has to be one that stays as it is."""
    expected = requests.PreparedRequest()
    expected.prepare(method="GET", url=host + end)
    assert transport._prepared("GET", host + end, None, {}).url == expected.url


@pytest.mark.parametrize("path", ["//a", "///a//b", "//a?x=1", "//"])
def test_slashes_at_the_beginning_of_a_path_are_sent(endpoint: HostileTokenEndpoint, path: str) -> None:
    """They became one: another address than the declared one, and than the `htu` of a proof (RFC 9449)."""
    endpoint.play(http_answer())
    transport.get(f"https://localhost:{endpoint.port}{path}")
    assert endpoint.requests[0].startswith(f"GET {path} HTTP/1.1\r\n".encode())


@pytest.mark.parametrize("name", ["Host", "host", "HOST"])
def test_there_is_one_host_header_and_it_is_that_of_the_address(endpoint: HostileTokenEndpoint, name: str) -> None:
    """Two of them can mean another host to a proxy than to the server behind it (RFC 9112 section 3.2)."""
    endpoint.play(http_answer())
    transport.send("GET", endpoint.url, None, {name: "rival.example"})
    lines = endpoint.requests[0].lower().split(b"\r\n")
    assert [line for line in lines if line.startswith(b"host:")] == [f"host: localhost:{endpoint.port}".encode()]


def test_a_method_is_sent_in_upper_case(endpoint: HostileTokenEndpoint) -> None:
    """For a plain address it was not: `get` is another method (RFC 9110 section 9.1), and rows can hold it."""
    endpoint.play(http_answer())
    transport.send("get", f"https://localhost:{endpoint.port}/a", None, {})
    assert endpoint.requests[0].startswith(b"GET /a HTTP/1.1\r\n")


@pytest.mark.parametrize("host", [".localhost", "-", "."])
def test_a_host_that_begins_with_a_dot_is_no_plain_address(host: str, settings: Settings) -> None:
    settings.ALLOW_LOCAL_ENDPOINTS = True
    with pytest.raises(transport.EndpointBlocked):
        transport.get(f"https://{host}:9/a")


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


def test_headers_that_cannot_be_read_are_not_logged(
    endpoint: HostileTokenEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """H2: urllib3 warns of them, with their text and a traceback."""
    log = io.StringIO()
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.StreamHandler(log)])
    endpoint.play(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nplanted-header\r\n\r\n{}")
    post(endpoint.url + "?tenant=planted-query")

    assert log.getvalue() == ""
