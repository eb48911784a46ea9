"""The set-up doctor proves what can be proven without a consumer, and says so of the rest."""

from typing import Any

import pytest

from brands.doctor import Verdict, examine
from brands.models import Brand
from infrastructure.crypto import Secret
from tests.brands.doctor_login import (
    GOOD,
    HTML,
    JSON,
    always,
    codes,
    configured,
    login,
    refusal,
    sent,
    to,
    without_browser,
)
from tests.fake_authorization_server import Answer, TokenRequest
from tests.modern_authorization_server import ModernAuthorizationServer

# The fixture, by its name.
__all__ = ["login"]

pytestmark = pytest.mark.django_db


# A server that is well set up.


def test_each_thing_that_can_be_proven_is_proven(acme: Brand, login: ModernAuthorizationServer) -> None:
    assert codes(configured(acme, login)) == GOOD
    assert sent(login) == 6


def test_pushed_requests_are_proven_too(acme: Brand, login: ModernAuthorizationServer) -> None:
    login.pushed_only = True
    login.metadata_changes = {}
    assert codes(configured(acme, login)) == GOOD
    assert (len(login.pushes), sent(login)) == (2, 8)


def test_a_push_with_another_redirect_uri_that_is_refused_proves_ours(
    acme: Brand, login: ModernAuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    login.pushed_only, login.metadata_changes = True, {}
    server = configured(acme, login)
    take = login._answer_push

    def take_what_is_registered(seen: TokenRequest) -> Answer:
        answer = take(seen)
        return answer if seen.parameters["redirect_uri"] == server.redirect_uri else refusal("invalid_request")

    monkeypatch.setattr(login, "_answer_push", take_what_is_registered)
    assert codes(server) == GOOD


def test_without_openid_and_issuer_the_two_endpoints_are_tested_alone(
    acme: Brand, login: ModernAuthorizationServer
) -> None:
    login.openid = False
    server = configured(acme, login, issuer="", jwks_uri="", scope="orders.read")
    assert codes(server) == ["issuer_not_set", *GOOD[2:]]
    assert (login.metadata_requests, login.jwks_requests) == ([], 0)


def test_keys_are_fetched_anew_each_time(acme: Brand, login: ModernAuthorizationServer) -> None:
    """The bug: a copy of five minutes ago hid a key set that is gone."""
    server = configured(acme, login)
    assert codes(server) == GOOD
    server.jwks_uri = f"{login.issuer}/gone"
    assert "keys_unreadable" in codes(server)


# What only a sign-in can tell. The bug: each of these was said to be right.


def test_a_server_that_looks_at_the_code_before_the_client_proves_nothing_of_the_secret(
    acme: Brand, login: ModernAuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As better-auth does."""
    server = configured(acme, login)
    server.set_client_secret(Secret("mistyped"))
    always(login, monkeypatch, refusal("invalid_grant"))
    assert codes(server) == [*GOOD[:2], "client_not_proven", GOOD[3]]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param((200, HTML, b"<h1>Sign in</h1>"), id="the sign-in page"),
        pytest.param(to("/login?next=/authorize%3Fredirect_uri%3Dhttps%3A//..."), id="redirect to it"),
        pytest.param(to("https://sso.acme.example/login?error=false#/start"), id="redirect to another host"),
        pytest.param((401, HTML, b"<h1>Sign in</h1>"), id="the sign-in page with 401"),
        pytest.param((401, JSON, b'{"error": "unauthorized"}'), id="a framework's JSON"),
        pytest.param((200, {}, b""), id="nothing"),
        pytest.param(to("https://["), id="no address"),
    ],
)
def test_a_server_that_looks_at_the_redirect_uri_after_the_sign_in_proves_nothing_of_it(
    acme: Brand, login: ModernAuthorizationServer, monkeypatch: pytest.MonkeyPatch, answer: Answer
) -> None:
    """As JupyterHub, pretix, django-oauth-toolkit and Authlib do."""
    server = configured(acme, login)
    without_browser(login, monkeypatch, answer)
    assert codes(server) == [*GOOD[:3], "redirect_uri_not_proven"]


def test_ids_of_an_interaction_are_no_difference(
    acme: Brand, login: ModernAuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = configured(acme, login)
    without_browser(login, monkeypatch, to("/interaction/8fk2Jd9sLqPz"), to("/interaction/Zk31Qm7tRw0a"))
    assert "redirect_uri_not_proven" in codes(server)


# What proves.


@pytest.mark.parametrize(
    ("ours", "control"),
    [
        (to("/login?x=1"), (400, HTML, b"<h1>Unknown redirect URI</h1>")),
        (to("/login"), to("/error?error=redirect_uri_mismatch")),
        (to("https://a.example/signin/identifier"), to("https://a.example/signin/oauth/error?authError=Cg")),
        ((200, HTML, b"Sign in"), refusal("invalid_request")),
        ((401, HTML, b"Sign in"), (400, HTML, b"")),
        (to("/interaction/8fk2Jd9sLqPz"), (400, HTML, b"")),
    ],
)
def test_another_answer_for_another_redirect_uri_proves_ours(
    acme: Brand, login: ModernAuthorizationServer, monkeypatch: pytest.MonkeyPatch, ours: Answer, control: Answer
) -> None:
    server = configured(acme, login)
    without_browser(login, monkeypatch, ours, control)
    assert codes(server) == GOOD


@pytest.mark.parametrize("control", [(429, HTML, b""), (503, HTML, b""), refusal("temporarily_unavailable")])
def test_a_server_that_got_busy_meanwhile_proves_nothing(
    acme: Brand, login: ModernAuthorizationServer, monkeypatch: pytest.MonkeyPatch, control: Answer
) -> None:
    server = configured(acme, login)
    without_browser(login, monkeypatch, (200, HTML, b"Sign in"), control)
    always(login, monkeypatch, refusal("invalid_grant"), control)
    assert codes(server) == [*GOOD[:2], "client_not_proven", "redirect_uri_not_proven"]


@pytest.mark.parametrize(
    "control",
    [(403, HTML, b"<h1>Blocked</h1>"), (403, {}, b""), (404, HTML, b""), (302, {"Location": "/blocked"}, b"")],
)
def test_a_firewall_that_stops_the_second_token_request_proves_nothing(
    acme: Brand, login: ModernAuthorizationServer, monkeypatch: pytest.MonkeyPatch, control: Answer
) -> None:
    """The bug: a server that looks at the code first, with a firewall in front, was said to have checked the secret."""
    server = configured(acme, login)
    server.set_client_secret(Secret("mistyped"))
    always(login, monkeypatch, refusal("invalid_grant"), control)
    assert codes(server) == [*GOOD[:2], "client_not_proven", GOOD[3]]


def test_a_sign_in_page_whose_address_is_another_each_time_proves_nothing(
    acme: Brand, login: ModernAuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bug: an id that does not look random in the path was taken for another answer, and so for a proof."""
    ids = iter(["kx", "Ab3", "quiet-fox", "p_q", "n7"])
    server = configured(acme, login)
    monkeypatch.setattr(login, "_answer_without_browser", lambda _url: to(f"/login/{next(ids)}/start"))
    assert codes(server) == [*GOOD[:3], "redirect_uri_not_proven"]


@pytest.mark.parametrize(
    "answer",
    [
        refusal("invalid_request"),
        refusal("some_code_of_its_own"),
        refusal("invalid_grant", content_type="text/plain"),
        refusal("bad_verification_code", 200),
        (400, JSON, b'{"message": "no such code"}'),
        (404, JSON, b'{"message": "no such code"}'),
        (200, JSON, b'{"errcode": 40029}'),
        (400, {"Content-Type": "text/plain"}, b"no such code"),
    ],
)
def test_any_answer_to_a_made_up_code_will_do_if_a_wrong_secret_gets_another(
    acme: Brand, login: ModernAuthorizationServer, monkeypatch: pytest.MonkeyPatch, answer: Answer
) -> None:
    """The bug: `invalid_request`, plain text and a code of its own were said to be problems."""
    server = configured(acme, login)
    always(login, monkeypatch, answer, refusal("invalid_client", 401))
    found = {finding.code: finding.verdict for finding in examine(server)}
    assert "client_accepted" in found
    assert Verdict.PROBLEM not in found.values()


@pytest.mark.parametrize(
    "answer",
    [
        refusal("invalid_request"),
        (401, JSON, b'{"error": {"message": "Invalid code", "code": 190}}'),
        (401, JSON, b'{"statusCode": 401, "message": "Invalid code", "error": "Unauthorized"}'),
        (401, JSON, b'{"message": "Invalid code"}'),
    ],
)
def test_the_same_answer_to_a_wrong_secret_is_no_problem_and_no_proof(
    acme: Brand, login: ModernAuthorizationServer, monkeypatch: pytest.MonkeyPatch, answer: Answer
) -> None:
    server = configured(acme, login)
    always(login, monkeypatch, answer)
    assert codes(server) == [*GOOD[:2], "client_not_proven", GOOD[3]]


@pytest.mark.parametrize(
    "answer",
    [
        (500, HTML, b"<h1>Oops</h1>"),
        (502, {}, b""),
        (429, JSON, b"{}"),
        (429, HTML, b"Slow down"),
        refusal("temporarily_unavailable", 503),
        refusal("server_error", 500),
    ],
)
def test_a_server_that_is_busy_has_no_problem(
    acme: Brand, login: ModernAuthorizationServer, monkeypatch: pytest.MonkeyPatch, answer: Answer
) -> None:
    """The bug: 429 and 500 were said to be a wrong address. One request is enough then."""
    server = configured(acme, login)
    always(login, monkeypatch, answer)
    without_browser(login, monkeypatch, answer)
    assert codes(server) == [*GOOD[:2], "token_endpoint_busy", "authorization_endpoint_busy"]


def test_a_server_that_needs_no_sign_in_has_no_problem(
    acme: Brand, login: ModernAuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bug: a code at once was said to be an error."""
    server = configured(acme, login)
    without_browser(login, monkeypatch, to(f"{server.redirect_uri}?code=abc&state=1"), (400, HTML, b""))
    assert codes(server) == [*GOOD[:3], "code_without_sign_in", "redirect_uri_registered"]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_key_set_that_is_busy_is_no_problem(acme: Brand, login: ModernAuthorizationServer, status: int) -> None:
    server = configured(acme, login)
    send = login.send

    def busy(request: Any, *arguments: Any, **options: Any) -> Any:
        answer = send(request, *arguments, **options)
        answer.status_code = status if request.url.endswith("/jwks") else answer.status_code
        return answer

    login.send = busy  # type: ignore[method-assign]
    assert codes(server) == [GOOD[0], "keys_busy", *GOOD[2:]]
