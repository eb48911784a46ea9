"""The set-up doctor proves what can be proven without a consumer, names each mistake, and invents none."""

import json
import re
from base64 import b64decode
from collections.abc import Iterator
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import time_machine
from django.core.management import CommandError, call_command

from brands.doctor import Finding, Verdict, examine
from brands.doctor.findings import ROWS
from brands.models import AuthorizationServer, Brand
from infrastructure.crypto import Secret
from oauth_client import transport
from tests.cast import ACME_SECRET, make_server
from tests.fake_authorization_server import Answer, FakeAuthorizationServer, TokenRequest, mounted
from tests.modern_authorization_server import ModernAuthorizationServer

pytestmark = pytest.mark.django_db

GOOD = ["metadata_agrees", "keys_found", "client_accepted", "redirect_uri_registered"]
JSON = {"Content-Type": "application/json"}
HTML = {"Content-Type": "text/html"}
# At most what docs/operator.md says.
MOST_REQUESTS = 14


@pytest.fixture
def login() -> Iterator[ModernAuthorizationServer]:
    """Return Acme's server, with metadata and OpenID Connect, and our client registered."""
    server = ModernAuthorizationServer("login.acme.example", "acme-client", ACME_SECRET, openid=True, pushed_only=False)
    server.metadata_changes = {"pushed_authorization_request_endpoint": ...}
    with mounted(server):
        yield server


def configured(acme: Brand, login: FakeAuthorizationServer, **changes: Any) -> AuthorizationServer:
    server = make_server(acme, **{"revocation_endpoint": f"{login.issuer}/revoke", **login.fields(), **changes})
    login.redirect_uri = server.redirect_uri
    return server


def codes(server: AuthorizationServer) -> list[str]:
    return [finding.code for finding in examine(server)]


def problems(server: AuthorizationServer) -> dict[str, Finding]:
    return {finding.code: finding for finding in examine(server) if finding.verdict == Verdict.PROBLEM}


def sent(login: ModernAuthorizationServer) -> int:
    """Return how many requests the server saw."""
    return sum(
        [
            len(login.metadata_requests),
            login.jwks_requests,
            len(login.token_requests),
            len(login.authorization_requests),
            len(login.pushes),
        ]
    )


def always(login: FakeAuthorizationServer, monkeypatch: pytest.MonkeyPatch, *answers: Answer) -> None:
    """Have the token endpoint give these answers, the last one for ever."""
    left = list(answers)
    monkeypatch.setattr(login, "_answer_token_request", lambda _request: left.pop(0) if len(left) > 1 else left[0])


def without_browser(
    login: FakeAuthorizationServer, monkeypatch: pytest.MonkeyPatch, ours: Answer, control: Answer | None = None
) -> None:
    """Have the authorization endpoint answer so: to our redirect URI, and to another one."""

    def answer(url: str) -> Answer:
        asked_for = parse_qs(urlsplit(url).query)["redirect_uri"][0]
        return ours if asked_for == login.redirect_uri or control is None else control

    monkeypatch.setattr(login, "_answer_without_browser", answer)


def refusal(error: str, status: int = 400, content_type: str = "application/json") -> Answer:
    return status, {"Content-Type": content_type}, json.dumps({"error": error}).encode()


def to(location: str) -> Answer:
    return 302, {"Location": location}, b""


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
        pytest.param((403, HTML, b"<h1>Are you a robot?</h1>"), id="a firewall's page"),
        pytest.param((403, JSON, b'{"error": "forbidden"}'), id="a firewall's JSON"),
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
        refusal("some_code_of_its_own"),
        (200, JSON, b'{"errcode": 40029}'),
        (400, JSON, b'{"error": {"message": "Error validating client secret.", "code": 1}}'),
        (400, {"Content-Type": "text/plain"}, b"no such code"),
        (400, {}, b""),
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


# Each mistake.


@pytest.mark.parametrize(
    ("mistake", "code", "field"),
    [
        ({"client_id": "somebody-else"}, "client_refused", "client_secret"),
        ({"token_endpoint_auth_method": "client_secret_post"}, "client_method_differs", "token_endpoint_auth_method"),
        ({"basic_encoding": "raw"}, "client_method_differs", "token_endpoint_auth_method"),
        ({"token_endpoint": "https://login.acme.example/typo"}, "token_endpoint_not_found", "token_endpoint"),
        ({"authorization_endpoint": "https://login.acme.example/typo"}, "authorization_endpoint_not_found",
         "authorization_endpoint"),
        ({"jwks_uri": "https://login.acme.example/typo"}, "keys_unreadable", "jwks_uri"),
        ({"id_token_signing_alg_values": ["ES256"]}, "keys_missing", "id_token_signing_alg_values"),
        ({"scope": "openid invoices.read"}, "authorization_refused", "scope"),
        ({"authorization_response_iss_parameter_supported": False}, "iss_not_asked_for",
         "authorization_response_iss_parameter_supported"),
    ],
)  # fmt: skip
def test_each_mistake_is_named_with_its_field(
    acme: Brand, login: ModernAuthorizationServer, mistake: dict[str, Any], code: str, field: str
) -> None:
    found = problems(configured(acme, login, **mistake))
    assert found[code].field == field
    assert sent(login) <= MOST_REQUESTS


def test_no_run_sends_more_than_is_promised(
    acme: Brand, login: ModernAuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refused secret with characters that each encoding writes in another way, and pushed requests."""
    server = configured(acme, login, pushed_authorization_request_endpoint=f"{login.issuer}/par")
    login.metadata_path = "/.well-known/oauth-authorization-server"
    login.client_refusal = "invalid_client"
    login.client_secret = "another one"
    calls: list[str] = []
    send = login.send

    def counted(request: Any, *arguments: Any, **options: Any) -> Any:
        calls.append(str(request.url))
        return send(request, *arguments, **options)

    monkeypatch.setattr(login, "send", counted)
    assert "client_refused" in codes(server)
    assert len(calls) <= MOST_REQUESTS
    assert calls.count(server.token_endpoint) == 7


@pytest.mark.parametrize("error", ["invalid_client", "unauthorized_client", "invalid_request"])
@pytest.mark.parametrize("encoding", ["form", "raw"])
def test_a_server_that_wants_client_id_beside_basic_is_told_apart(
    acme: Brand, login: ModernAuthorizationServer, error: str, encoding: str
) -> None:
    """E22: MCP's Python SDK says one of these three, by version."""
    login.wants_client_id_with_basic, login.basic_encoding = True, encoding
    login.client_refusal = error
    said = problems(configured(acme, login))["client_method_differs"].meaning
    assert f"does with client_secret_basic with the encoding {encoding} and client_id beside it" in said


def test_a_server_that_refuses_client_id_beside_basic_is_told_apart(
    acme: Brand, login: ModernAuthorizationServer
) -> None:
    """E22: Cloudflare's provider."""
    found = problems(configured(acme, login, send_client_id_with_basic=True))["client_method_differs"]
    assert found.meaning.endswith("but does with client_secret_basic with the encoding form.")


@pytest.mark.parametrize(("method", "code"), [("private_key_jwt", "key_refused"), ("none", "public_client_refused")])
def test_a_client_without_a_secret_that_is_refused_is_told_what_it_has(
    acme: Brand, login: ModernAuthorizationServer, method: str, code: str
) -> None:
    login.token_endpoint_auth_method = method
    login.metadata_changes["token_endpoint_auth_methods_supported"] = [method]
    server = make_server(acme, secret="", **login.fields() | {"client_id": "somebody-else"})
    server.settle_signing_key()
    login.redirect_uri = server.redirect_uri
    assert code in problems(server)


@pytest.mark.parametrize("method", ["private_key_jwt", "none"])
def test_a_client_without_a_secret_is_proven_too(acme: Brand, login: ModernAuthorizationServer, method: str) -> None:
    login.token_endpoint_auth_method = method
    login.metadata_changes["token_endpoint_auth_methods_supported"] = [method]
    server = make_server(acme, secret="", **login.fields())
    server.settle_signing_key()
    login.redirect_uri, login.client_keys = server.redirect_uri, [server.signing_key_jwk or {}]
    assert codes(server) == GOOD


def test_a_key_that_was_never_made_is_no_crash(acme: Brand, login: ModernAuthorizationServer) -> None:
    server = configured(acme, login, token_endpoint_auth_method="private_key_jwt")
    assert "request_not_sent" in problems(server)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (refusal("unsupported_grant_type"), "grant_not_allowed"),
        (refusal("redirect_uri_mismatch", 200), "redirect_uri_refused"),
        (refusal("invalid_target"), "resource_refused"),
        (refusal("incorrect_client_credentials", 200), "client_refused"),
        ((200, JSON, b'{"access_token": "for-any-code"}'), "token_for_any_code"),
        ((301, {"Location": "https://www.acme.example/token"}, b""), "token_endpoint_redirects"),
        (to("/login"), "token_endpoint_redirects"),
        ((405, {}, b""), "token_endpoint_not_found"),
        ((200, HTML, b"<h1>Welcome</h1>"), "token_endpoint_page"),
    ],
)
def test_what_a_token_endpoint_proves_by_one_answer(
    acme: Brand, login: ModernAuthorizationServer, monkeypatch: pytest.MonkeyPatch, answer: Answer, code: str
) -> None:
    server = configured(acme, login)
    always(login, monkeypatch, answer)
    assert list(problems(server)) == [code]


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_page_with_an_error_may_be_a_firewalls(
    acme: Brand, login: ModernAuthorizationServer, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    server = configured(acme, login)
    always(login, monkeypatch, (status, HTML, b"<h1>No</h1>"))
    assert codes(server) == [*GOOD[:2], "token_endpoint_error_page", GOOD[3]]


def test_an_error_of_another_type_is_noted(
    acme: Brand, login: ModernAuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E4: a token of that type would be refused."""
    server = configured(acme, login)
    always(login, monkeypatch, refusal("invalid_grant", content_type="text/plain"), refusal("invalid_client", 401))
    assert codes(server) == [*GOOD[:3], "token_content_type", GOOD[3]]


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (to("{ours}?error=invalid_scope"), "authorization_refused"),
        (to("{ours}?error=access_denied&error_description=policy"), "authorization_refused"),
        (to("{ours}?error=a_code_of_its_own"), "authorization_refused"),
        (to("{ours}#error=unsupported_response_type"), "authorization_refused"),
        (to("/oops?error=login_required"), "authorization_refused"),
        (to("https://sso.acme.example/error?error=invalid_client"), "client_or_redirect_uri_refused"),
        (to("/error#error=INVALID_REQUEST"), "client_or_redirect_uri_refused"),
        (to("/error?error=a_code_of_its_own"), "client_or_redirect_uri_refused"),
        (refusal("invalid_scope"), "authorization_refused"),
        (refusal("invalid_client", 401), "client_or_redirect_uri_refused"),
        ((400, HTML, b"<h1>Unknown client</h1>"), "client_or_redirect_uri_refused"),
        ((422, JSON, b'{"detail": []}'), "client_or_redirect_uri_refused"),
        ((404, HTML, b""), "authorization_endpoint_not_found"),
    ],
)
def test_an_error_in_any_redirect_is_a_problem(
    acme: Brand, login: ModernAuthorizationServer, monkeypatch: pytest.MonkeyPatch, answer: Answer, code: str
) -> None:
    """The bug: an error that was not sent to our redirect URI was taken for the sign-in."""
    server = configured(acme, login)
    status, headers, body = answer
    headers = {name: value.replace("{ours}", server.redirect_uri) for name, value in headers.items()}
    without_browser(login, monkeypatch, (status, headers, body))
    assert list(problems(server)) == [code]


def test_a_redirect_uri_that_was_not_registered_is_printed_for_copying(
    acme: Brand, login: ModernAuthorizationServer
) -> None:
    server = configured(acme, login)
    login.redirect_uri = "https://delegation.test/callback/an-older-one"
    remedy = problems(server)["client_or_redirect_uri_refused"].remedy
    assert remedy.endswith(f"Register this redirect URI exactly: {server.redirect_uri}")


@pytest.mark.parametrize("sent_back", ["code=1", "error=access_denied", ""])
def test_a_server_that_redirects_to_any_address_is_named(
    acme: Brand, login: ModernAuthorizationServer, monkeypatch: pytest.MonkeyPatch, sent_back: str
) -> None:
    """RFC 9700 section 4.1."""
    server = configured(acme, login)
    stranger = f"{server.redirect_uri}/not-registered?{sent_back}"
    without_browser(login, monkeypatch, (200, HTML, b""), to(stranger))
    assert list(problems(server)) == ["redirects_to_any_address"]


def test_a_pushed_request_that_is_refused_is_named(acme: Brand, login: ModernAuthorizationServer) -> None:
    login.pushed_only, login.metadata_changes = True, {}
    server = configured(acme, login)
    login.next_push_answer = refusal("invalid_scope")
    found = problems(server)["push_refused"]
    assert found.meaning == "It refused our request: HTTP status 400, error invalid_scope."


def test_an_endpoint_for_pushed_requests_that_is_busy_has_no_problem(
    acme: Brand, login: ModernAuthorizationServer
) -> None:
    login.pushed_only, login.metadata_changes = True, {}
    server = configured(acme, login)
    login.next_push_answer = (503, HTML, b"")
    assert codes(server) == [*GOOD[:3], "push_busy"]


# Metadata.


def test_an_issuer_without_metadata_is_noted_and_the_rest_is_tested(
    acme: Brand, login: ModernAuthorizationServer
) -> None:
    login.metadata_path = "/nowhere"
    assert codes(configured(acme, login)) == ["metadata_not_found", *GOOD[1:]]


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ({}, Verdict.PROBLEM),
        ({"scope": "orders.read", "authorization_response_iss_parameter_supported": True}, Verdict.PROBLEM),
        ({"scope": "orders.read", "authorization_response_iss_parameter_supported": False}, Verdict.NOTE),
    ],
)
def test_of_two_issuers_both_are_shown(
    acme: Brand, login: ModernAuthorizationServer, values: dict[str, Any], verdict: Verdict
) -> None:
    """C6: and it is a problem only if something is compared with it."""
    server = configured(acme, login, issuer="https://login.acme.example/", **values)
    (found,) = [finding for finding in examine(server) if finding.code == "issuer_differs"]
    assert found.verdict == verdict
    assert "found https://login.acme.example, expected https://login.acme.example/." in found.meaning


def test_another_endpoint_than_the_published_one_is_a_note_with_both(
    acme: Brand, login: ModernAuthorizationServer
) -> None:
    """A server can have two addresses. The endpoint's own step says if this one does not work."""
    login.metadata_changes["revocation_endpoint"] = "https://login.acme.example/other"
    (found,) = [finding for finding in examine(configured(acme, login)) if finding.verdict != Verdict.GOOD]
    assert (found.code, found.field) == ("metadata_differs", "revocation_endpoint")
    assert "Here it is https://login.acme.example/revoke. " in found.meaning
    assert "https://login.acme.example/other" in found.meaning


@pytest.mark.parametrize(
    ("published", "code", "verdict"),
    [
        ({"code_challenge_methods_supported": ["plain"]}, "pkce_not_supported", Verdict.PROBLEM),
        ({"code_challenge_methods_supported": ...}, "pkce_not_announced", Verdict.NOTE),
        ({"id_token_signing_alg_values_supported": ["ES256"]}, "algorithm_not_announced", Verdict.PROBLEM),
        ({"token_endpoint_auth_methods_supported": ["private_key_jwt"]}, "metadata_differs", Verdict.NOTE),
    ],
)
def test_what_metadata_announces_is_compared(
    acme: Brand, login: ModernAuthorizationServer, published: dict[str, Any], code: str, verdict: Verdict
) -> None:
    login.metadata_changes |= published
    found = {finding.code: finding.verdict for finding in examine(configured(acme, login))}
    assert found[code] == verdict


# No answer. The operator reads why.


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (transport.EndpointBlocked("the address is not allowed"), "address_blocked"),
        (transport.EndpointTimeout("the server did not answer in time"), "timed_out"),
        (transport.EndpointUnreachable("the server could not be reached"), "unreachable"),
        (transport.ResponseTooLarge("the answer is too large"), "answer_too_large"),
        (transport.CertificateNotAccepted(transport.CertificateProblem.EXPIRED), "certificate_expired"),
        (transport.CertificateNotAccepted(transport.CertificateProblem.UNKNOWN_CA), "certificate_unknown_ca"),
        (transport.CertificateNotAccepted(transport.CertificateProblem.OTHER_NAME), "certificate_other_name"),
        (transport.CertificateNotAccepted(transport.CertificateProblem.OTHER), "certificate_invalid"),
    ],
)
def test_each_reason_for_no_answer_is_told_to_the_operator_at_each_step(
    acme: Brand,
    login: ModernAuthorizationServer,
    monkeypatch: pytest.MonkeyPatch,
    fault: transport.OutboundError,
    code: str,
) -> None:
    def fail(*_arguments: Any, **_options: Any) -> None:
        raise fault

    server = configured(acme, login)
    monkeypatch.setattr(login, "send", fail)
    found = [(finding.code, finding.verdict, finding.field) for finding in examine(server)]
    assert found == [
        (code, Verdict.NOTE, "issuer"),
        (code, Verdict.PROBLEM, "jwks_uri"),
        (code, Verdict.PROBLEM, "token_endpoint"),
        (code, Verdict.PROBLEM, "authorization_endpoint"),
    ]


def test_a_push_without_an_answer_is_told_at_its_field(acme: Brand, login: ModernAuthorizationServer) -> None:
    login.pushed_only, login.push_hangs, login.metadata_changes = True, True, {}
    found = problems(configured(acme, login))["timed_out"]
    assert found.field == "pushed_authorization_request_endpoint"


# Clock, secret, words.


@pytest.mark.parametrize(
    ("ahead", "openid", "method", "verdict"),
    [
        (600, True, "client_secret_basic", Verdict.PROBLEM),
        (-600, True, "client_secret_basic", Verdict.NOTE),
        (600, False, "client_secret_basic", Verdict.NOTE),
        (-600, False, "private_key_jwt", Verdict.PROBLEM),
        (50, True, "client_secret_basic", None),
    ],
)
def test_a_clock_that_is_wrong_is_a_problem_where_it_refuses_sign_ins(
    acme: Brand,
    login: ModernAuthorizationServer,
    monkeypatch: pytest.MonkeyPatch,
    ahead: int,
    openid: bool,
    method: str,
    verdict: Verdict | None,
) -> None:
    login.openid = openid
    server = configured(acme, login, token_endpoint_auth_method=method)
    server.settle_signing_key()
    headers = JSON | {"Date": formatdate(1_800_000_000 + ahead, usegmt=True)}
    always(login, monkeypatch, (400, headers, b'{"error":"invalid_grant"}'))
    with time_machine.travel(1_800_000_000, tick=False):
        found = {finding.code: finding for finding in examine(server)}
    assert (found["clock_differs"].verdict if "clock_differs" in found else None) == verdict
    assert verdict is None or f"{abs(ahead)} seconds apart" in found["clock_differs"].meaning


@pytest.mark.parametrize("date", ["", "yesterday", "Thu, 01 Jan 99999 00:00:00 GMT", "Thu, 01 Jan 2026 00:00:00 +9999"])
def test_a_date_that_is_none_is_no_crash(
    acme: Brand, login: ModernAuthorizationServer, monkeypatch: pytest.MonkeyPatch, date: str
) -> None:
    server = configured(acme, login)
    always(login, monkeypatch, (400, JSON | {"Date": date}, b'{"error":"invalid_grant"}'))
    assert "clock_differs" not in codes(server)


def test_a_secret_of_another_key_ring_is_named(acme: Brand, login: ModernAuthorizationServer) -> None:
    server = configured(acme, login)
    server.client_secret_ciphertext = b"moved from elsewhere"
    assert codes(server) == ["secret_unreadable"]


def test_nothing_that_it_says_holds_the_secret_or_the_servers_words(
    acme: Brand, login: ModernAuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """H5, H8: status and codes alone."""
    server = configured(acme, login)
    server.set_client_secret(Secret("another secret of Acme"))
    planted = "planted-words-7Hq2Zt"
    page = (400, {"Content-Type": "text/html", "X-Planted": planted}, f"<b>{planted}</b>".encode())
    always(login, monkeypatch, page)
    without_browser(login, monkeypatch, to(f"/{planted}?error={planted}&error_description={planted}#{planted}"))
    said = repr(list(examine(server)))
    assert "another secret" not in said
    assert planted not in said


def test_our_secret_goes_to_our_token_endpoint_alone_and_a_wrong_one_once(
    acme: Brand, login: ModernAuthorizationServer
) -> None:
    codes(configured(acme, login))
    sent_secrets = [request.headers["Authorization"] for request in login.token_requests]
    assert [request.url for request in login.token_requests] == [f"{login.issuer}/token"] * 2
    assert len(set(sent_secrets)) == 2


def test_the_wrong_secret_has_what_goes_wrong_in_encodings_too(acme: Brand, login: ModernAuthorizationServer) -> None:
    """The bug: of two secrets one had + and % and was refused for its encoding, which proved nothing."""
    codes(configured(acme, login))
    ours, wrong = (unquote(b64decode(sent.headers["Authorization"][6:]).decode()) for sent in login.token_requests)
    assert ours != wrong
    assert re.sub(r"[a-z]", "x", ours) == re.sub(r"[a-z]", "x", re.sub(r"[0-9]", "7", wrong))


def test_each_row_can_be_said() -> None:
    """A row whose words lack a value would end a run in the middle."""
    said = {name: name for name in ("detail", "effect", "algorithms", "method", "redirect_uri", "seconds", "remedy")}
    said |= {"error": "e", "cause": "c"}
    assert all(row.meaning.format(**said) and row.remedy.format(**said) is not None for row in ROWS.values())


# The command.


def test_the_command_prints_each_finding_and_fails_where_one_is_a_proven_problem(
    acme: Brand, login: ModernAuthorizationServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server = configured(acme, login)
    call_command("check_brand", "acme")
    assert capsys.readouterr().out.count("orders: ok ") == len(GOOD)
    AuthorizationServer.objects.filter(pk=server.pk).update(client_id="somebody-else")
    with pytest.raises(CommandError, match="to be fixed"):
        call_command("check_brand", "acme", server="orders")
    assert "orders: problem client_refused (client_secret): The server does not accept" in capsys.readouterr().out


def test_the_command_does_not_fail_for_what_cannot_be_told(
    acme: Brand, login: ModernAuthorizationServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    configured(acme, login)
    always(login, monkeypatch, (500, HTML, b""))
    without_browser(login, monkeypatch, (200, HTML, b""))
    call_command("check_brand", "acme")
    assert "orders: note    token_endpoint_busy" in capsys.readouterr().out


def test_a_brand_or_server_that_is_not_there_is_said_so(acme: Brand) -> None:
    with pytest.raises(CommandError, match="There is no brand nobody"):
        call_command("check_brand", "nobody")
    with pytest.raises(CommandError, match="no such active"):
        call_command("check_brand", "acme")
