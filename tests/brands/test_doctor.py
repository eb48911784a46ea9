"""The set-up doctor names each seeded mistake with what mends it, and finds nothing at a server that is well set up."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import time_machine
from django.core.management import CommandError, call_command

from brands.doctor import Verdict, examine
from brands.models import AuthorizationServer, Brand
from delegation_site.crypto import Secret
from tests.cast import ACME_SECRET, make_server
from tests.fake_authorization_server import Answer, FakeAuthorizationServer, mounted
from tests.modern_authorization_server import ModernAuthorizationServer

pytestmark = pytest.mark.django_db

GOOD = {"issuer", "jwks_uri", "token_endpoint", "authorization_endpoint"}


@pytest.fixture
def login() -> Iterator[ModernAuthorizationServer]:
    """Return Acme's server, with metadata and OpenID Connect, and our client registered."""
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


def test_a_redirect_uri_that_was_not_registered_is_printed_for_copying(
    acme: Brand, login: ModernAuthorizationServer
) -> None:
    server = configured(acme, login)
    login.redirect_uri = "https://delegation.test/callback/an-older-one"
    assert problems(server)["redirect_uri"].endswith(f"register this redirect URI exactly: {server.redirect_uri}")


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
