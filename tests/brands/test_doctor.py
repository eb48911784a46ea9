"""The set-up doctor finds each mistake, says how to correct it, and reports no problem at a correct server."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import time_machine
from django.core.management import CommandError, call_command

from brands.doctor import Finding, Verdict, examine
from brands.models import AuthorizationServer, Brand
from infrastructure.crypto import Secret
from oauth_client import transport
from tests.cast import ACME_SECRET, make_server
from tests.fake_authorization_server import Answer, FakeAuthorizationServer, TokenRequest, mounted
from tests.modern_authorization_server import ModernAuthorizationServer

pytestmark = pytest.mark.django_db

GOOD = {"issuer", "jwks_uri", "token_endpoint", "authorization_endpoint"}
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def login() -> Iterator[ModernAuthorizationServer]:
    """Acme's server, with metadata and OpenID Connect, where our client is registered."""
    server = ModernAuthorizationServer("login.acme.example", "acme-client", ACME_SECRET, openid=True, pushed_only=False)
    with mounted(server):
        yield server


def configured(acme: Brand, login: FakeAuthorizationServer, **changes: Any) -> AuthorizationServer:
    server = make_server(acme, **{"revocation_endpoint": f"{login.issuer}/revoke", **login.fields(), **changes})
    login.redirect_uri = server.redirect_uri
    return server


def problems(server: AuthorizationServer) -> dict[str, str]:
    return {finding.about: finding.words for finding in examine(server) if finding.verdict == Verdict.PROBLEM}


def test_a_server_that_is_well_set_up_has_no_problem(acme: Brand, login: ModernAuthorizationServer) -> None:
    login.metadata_changes = {"pushed_authorization_request_endpoint": ...}
    found = list(examine(configured(acme, login)))
    assert {finding.about for finding in found if finding.verdict == Verdict.GOOD} == GOOD
    assert len(found) == len(GOOD)


def test_pushed_requests_are_tried_out_too(acme: Brand, login: ModernAuthorizationServer) -> None:
    login.pushed_only = True
    found = list(examine(configured(acme, login)))
    assert {finding.about for finding in found if finding.verdict == Verdict.GOOD} == GOOD
    assert len(login.pushes) == 2


def test_without_openid_and_issuer_the_two_endpoints_are_tried_out_alone(
    acme: Brand, login: ModernAuthorizationServer
) -> None:
    login.openid = False
    server = configured(acme, login, issuer="", jwks_uri="", scope="orders.read")
    assert list(examine(server)) == [
        Finding(Verdict.NOTE, "issuer", "None is configured, so endpoints cannot be compared with published metadata."),
        Finding(Verdict.GOOD, "token_endpoint", "It knows us: a made-up code was refused, and our client was not."),
        Finding(
            Verdict.GOOD, "authorization_endpoint", "It takes our request and redirect URI, and goes on to sign in."
        ),
    ]
    assert (login.metadata_requests, login.jwks_requests) == ([], 0)


def test_an_issuer_without_metadata_is_noted_and_the_rest_is_tried_out(
    acme: Brand, login: ModernAuthorizationServer
) -> None:
    login.metadata_path = "/nowhere"
    found = list(examine(configured(acme, login)))
    assert found[0] == Finding(
        Verdict.NOTE, "issuer", "No metadata was found for this issuer. Enter the endpoints yourself. Endpoints were not compared."
    )
    assert {finding.verdict for finding in found[1:]} == {Verdict.GOOD}
    assert {finding.about for finding in found[1:]} == GOOD - {"issuer"}


@pytest.mark.parametrize(
    ("mistake", "about", "said"),
    [
        ({"client_id": "somebody-else"}, "client authentication", "client id or secret is wrong"),
        ({"token_endpoint_auth_method": "client_secret_post"}, "client authentication", "client_secret_basic"),
        ({"basic_encoding": "raw"}, "client authentication", "with the encoding form"),
        ({"token_endpoint": "https://login.acme.example/typo"}, "token_endpoint", "does not answer as a token"),
        ({"jwks_uri": "https://login.acme.example/typo"}, "jwks_uri", "the key set cannot be read"),
        ({"id_token_signing_alg_values": ["ES256"]}, "id_token_signing_alg_values", "no key for ES256"),
        ({"scope": "openid invoices.read"}, "authorization_endpoint", "invalid_scope"),
        (
            {"authorization_response_iss_parameter_supported": False},
            "authorization_response_iss_parameter_supported",
            "switch it on",
        ),
    ],
)
def test_each_mistake_is_named(
    acme: Brand, login: ModernAuthorizationServer, mistake: dict[str, Any], about: str, said: str
) -> None:
    assert said in problems(configured(acme, login, **mistake))[about]


@pytest.mark.parametrize("error", ["invalid_client", "unauthorized_client", "invalid_request"])
@pytest.mark.parametrize("encoding", ["form", "raw"])
def test_a_server_that_wants_client_id_beside_basic_is_told_apart(
    acme: Brand, login: ModernAuthorizationServer, error: str, encoding: str
) -> None:
    """E22: MCP's Python SDK says one of these three, by version."""
    login.wants_client_id_with_basic, login.basic_encoding = True, encoding
    login.client_refusal = error
    said = problems(configured(acme, login))["client authentication"]
    assert f"does with client_secret_basic with the encoding {encoding} and client_id beside it" in said


def test_a_server_that_refuses_client_id_beside_basic_is_told_apart(
    acme: Brand, login: ModernAuthorizationServer
) -> None:
    """E22: Cloudflare's provider."""
    server = configured(acme, login, send_client_id_with_basic=True)
    assert (
        "but does with client_secret_basic with the encoding form: choose" in problems(server)["client authentication"]
    )


def test_an_invalid_request_that_no_client_authentication_mends_is_said_as_before(
    acme: Brand, login: ModernAuthorizationServer
) -> None:
    login.client_refusal = "invalid_request"
    assert (
        "HTTP status 401, error invalid_request" in problems(configured(acme, login, client_id="x"))["token_endpoint"]
    )


def test_a_redirect_uri_that_was_not_registered_is_printed_for_copying(
    acme: Brand, login: ModernAuthorizationServer
) -> None:
    server = configured(acme, login)
    login.redirect_uri = "https://delegation.test/callback/an-older-one"
    assert problems(server)["redirect_uri"].endswith(f"register this redirect URI exactly: {server.redirect_uri}")


@pytest.mark.parametrize(
    ("code", "about"),
    [
        ("bad_verification_code", set()),
        ("incorrect_client_credentials", {"client authentication"}),
        ("redirect_uri_mismatch", {"redirect_uri"}),
        ("invalid_target", {"resource"}),
    ],
)
def test_what_servers_say_in_codes_of_their_own_is_understood(
    acme: Brand, login: ModernAuthorizationServer, code: str, about: set[str]
) -> None:
    """The bug: GitHub was said not to answer as a token endpoint does."""
    server = configured(acme, login)
    login.next_token_answer = (200, JSON, json.dumps({"error": code}).encode())
    assert set(problems(server)) == about


def test_a_server_that_redirects_to_any_address_is_named(
    acme: Brand, login: ModernAuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    login.metadata_changes = {"pushed_authorization_request_endpoint": ...}
    server = configured(acme, login)

    def redirect_anywhere(url: str) -> Answer:
        asked_for = parse_qs(urlsplit(url).query)["redirect_uri"][0]
        return (200, {}, b"") if asked_for == server.redirect_uri else (302, {"Location": f"{asked_for}?code=1"}, b"")

    monkeypatch.setattr(login, "_answer_without_browser", redirect_anywhere)
    assert problems(server) == {
        "redirect_uri": "The server redirects to an address that is not registered: have that mended."
    }


def test_a_server_that_refuses_an_unregistered_redirect_uri_when_it_is_pushed_is_well_set_up(
    acme: Brand, login: ModernAuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    login.pushed_only = True
    server = configured(acme, login)
    take = login._answer_push

    def take_what_is_registered(seen: TokenRequest) -> Answer:
        answer = take(seen)
        registered = seen.parameters["redirect_uri"] == server.redirect_uri
        return answer if registered else (400, JSON, b'{"error":"invalid_request"}')

    monkeypatch.setattr(login, "_answer_push", take_what_is_registered)
    assert problems(server) == {}
    assert len(login.pushes) == 2


def test_a_pushed_request_that_is_refused_is_named(acme: Brand, login: ModernAuthorizationServer) -> None:
    login.pushed_only = True
    server = configured(acme, login)
    login.next_push_answer = (400, JSON, b'{"error":"invalid_scope"}')
    assert problems(server) == {
        "pushed_authorization_request_endpoint": "It refused our request: HTTP status 400, error invalid_scope."
    }


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (
            transport.EndpointBlocked("it leads to a private address"),
            "Its address is not one that we call: private, without https, or of a name that leads there.",
        ),
        (
            transport.EndpointUnreachable("its certificate is not trusted"),
            "No answer: its certificate is not trusted. For a private CA, set OUTBOUND_CA_FILE.",
        ),
    ],
)
def test_a_token_endpoint_that_cannot_be_called_is_named(
    acme: Brand, login: ModernAuthorizationServer, fault: transport.OutboundError, said: str
) -> None:
    def fail(_: TokenRequest) -> None:
        raise fault

    server = configured(acme, login)
    login.on_token_request = fail
    assert problems(server) == {"token_endpoint": said}


def test_a_server_that_grants_a_token_for_any_code_is_named(acme: Brand, login: ModernAuthorizationServer) -> None:
    server = configured(acme, login)
    granted = b'{"access_token":"for-any-code","token_type":"Bearer","id_token":"for-anybody"}'
    login.next_token_answer = (200, JSON, granted)
    assert problems(server) == {"token_endpoint": "It granted a token for a made-up code. Do not use this server."}


def test_an_authorization_endpoint_that_is_broken_is_named(
    acme: Brand, login: ModernAuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = configured(acme, login)
    monkeypatch.setattr(login, "_answer_without_browser", lambda _: (503, {}, b""))
    assert problems(server) == {"authorization_endpoint": "It answered 503."}


def test_an_authorization_endpoint_that_does_not_answer_is_named(
    acme: Brand, login: ModernAuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: str) -> Answer:
        raise transport.EndpointTimeout("the server did not answer in time")

    server = configured(acme, login)
    monkeypatch.setattr(login, "_answer_without_browser", fail)
    assert problems(server) == {"authorization_endpoint": "No answer: the server did not answer in time."}


def test_a_server_that_hangs_is_named(acme: Brand, login: ModernAuthorizationServer) -> None:
    server = configured(acme, login)
    login.hangs = True
    assert problems(server)["token_endpoint"] == "It did not answer in time: a sign-in would end with the same."


def test_a_clock_that_is_wrong_is_named(acme: Brand, login: ModernAuthorizationServer) -> None:
    server = configured(acme, login)
    login.clock_ahead = 600
    with time_machine.travel(1_800_000_000, tick=False):
        assert problems(server)["clock"] == "Its clock and ours are 600 seconds apart: ID tokens will fail."


def test_a_secret_of_another_key_ring_is_named(acme: Brand, login: ModernAuthorizationServer) -> None:
    server = configured(acme, login)
    server.client_secret_ciphertext = b"moved from elsewhere"
    assert "It cannot be decrypted" in problems(server)["client secret"]


def test_nothing_that_it_says_holds_the_secret_or_the_servers_words(
    acme: Brand, login: ModernAuthorizationServer
) -> None:
    server = configured(acme, login)
    server.set_client_secret(Secret("another secret of Acme"))
    login.next_token_answer = (400, {"Content-Type": "text/html"}, b"<b>planted words</b>")
    said = " ".join(finding.words for finding in examine(server))
    assert "another secret" not in said
    assert "planted" not in said


def test_the_command_prints_each_finding_and_fails_where_one_is_a_problem(
    acme: Brand, login: ModernAuthorizationServer, capsys: pytest.CaptureFixture[str]
) -> None:
    login.metadata_changes = {"pushed_authorization_request_endpoint": ...}
    server = configured(acme, login)
    call_command("check_brand", "acme")
    assert capsys.readouterr().out.count("orders: ok ") == len(GOOD)
    AuthorizationServer.objects.filter(pk=server.pk).update(client_id="somebody-else")
    with pytest.raises(CommandError, match="to be mended"):
        call_command("check_brand", "acme", server="orders")
    assert "orders: problem client authentication" in capsys.readouterr().out


def test_a_brand_or_server_that_is_not_there_is_said_so(acme: Brand) -> None:
    with pytest.raises(CommandError, match="There is no brand nobody"):
        call_command("check_brand", "nobody")
    with pytest.raises(CommandError, match="no such active"):
        call_command("check_brand", "acme")
