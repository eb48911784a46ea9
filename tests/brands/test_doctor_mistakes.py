"""The set-up doctor names each mistake, with the field that it is about."""

from typing import Any

import pytest

from brands.doctor import Verdict, examine
from brands.models import Brand
from tests.brands.doctor_login import (
    GOOD,
    HTML,
    JSON,
    MOST_REQUESTS,
    always,
    codes,
    configured,
    login,
    problems,
    refusal,
    sent,
    to,
    without_browser,
)
from tests.cast import make_server
from tests.fake_authorization_server import Answer
from tests.modern_authorization_server import ModernAuthorizationServer

# The fixture, by its name.
__all__ = ["login"]

pytestmark = pytest.mark.django_db


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


@pytest.mark.parametrize(
    "method",
    [
        {"token_endpoint_auth_method": "client_secret_basic"},
        {"token_endpoint_auth_method": "client_secret_post", "basic_encoding": "raw"},
        {"token_endpoint_auth_method": "client_secret_post", "send_client_id_with_basic": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("error", ["invalid_client", "invalid_request"])
def test_no_run_sends_more_than_is_promised(
    acme: Brand, login: ModernAuthorizationServer, monkeypatch: pytest.MonkeyPatch, method: dict[str, Any], error: str
) -> None:
    """A refused secret with characters that each encoding writes in another way, and pushed requests."""
    server = configured(acme, login, pushed_authorization_request_endpoint=f"{login.issuer}/par", **method)
    login.metadata_path = "/.well-known/oauth-authorization-server"
    login.client_refusal = error
    login.client_secret = "another one"
    calls: list[str] = []
    send = login.send

    def counted(request: Any, *arguments: Any, **options: Any) -> Any:
        calls.append(str(request.url))
        return send(request, *arguments, **options)

    monkeypatch.setattr(login, "send", counted)
    assert {"client_refused", "client_not_proven"} & set(codes(server))
    assert len(calls) <= MOST_REQUESTS
    assert calls.count(server.token_endpoint) <= 7


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


@pytest.mark.parametrize(
    "answer",
    [
        refusal("some_code_of_its_own"),
        (200, JSON, b'{"errcode": 40029}'),
        (200, JSON, b'{"active": false}'),  # an introspection endpoint
        (200, JSON, b'{"keys": []}'),
        (200, JSON, b"{}"),
        (400, {}, b""),
        (400, {"Content-Type": "text/plain"}, b"no such code"),
        (400, JSON, b'{"error": {"message": "Error validating client secret.", "code": 1}}'),
        (401, JSON, b'{"error": "invalid_token"}'),  # a userinfo endpoint
        (403, {}, b""),
        (404, JSON, b'{"error": "tenant_not_found"}'),
        (404, JSON, b'{"code": 404, "message": "no route"}'),
        (403, JSON, b'{"error": "forbidden"}'),
        (415, JSON, b'{"message": "Unsupported Media Type"}'),
        (418, JSON, b'{"error": "teapot"}'),
        (499, {}, b""),
    ],
    ids=str,
)
def test_an_answer_without_a_known_code_is_not_called_a_matter_of_the_secret(
    acme: Brand, login: ModernAuthorizationServer, monkeypatch: pytest.MonkeyPatch, answer: Answer
) -> None:
    """The bug: of a wrong address the admin read "our client and one with a wrong secret get the same answer"."""
    server = configured(acme, login)
    always(login, monkeypatch, answer)
    assert codes(server) == [*GOOD[:2], "token_endpoint_unclear", GOOD[3]]


@pytest.mark.parametrize("error", ["invalid_dpop_proof", "use_dpop_nonce"])
def test_a_server_that_demands_dpop_is_named(
    acme: Brand, login: ModernAuthorizationServer, monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    """RFC 9449: it may be on by default for a new client."""
    server = configured(acme, login)
    always(login, monkeypatch, refusal(error))
    assert list(problems(server)) == ["dpop_demanded"]


@pytest.mark.parametrize(("method", "code"), [("private_key_jwt", "key_refused"), ("none", "public_client_refused")])
def test_a_client_without_a_secret_that_is_refused_is_told_what_it_has(
    acme: Brand, login: ModernAuthorizationServer, method: str, code: str
) -> None:
    login.token_endpoint_auth_method = method
    login.metadata_changes["token_endpoint_auth_methods_supported"] = [method]
    server = make_server(acme, secret="", **login.fields() | {"client_id": "somebody-else"})
    server.update_signing_key()
    login.redirect_uri = server.redirect_uri
    assert code in problems(server)


@pytest.mark.parametrize("method", ["private_key_jwt", "none"])
def test_a_client_without_a_secret_is_proven_too(acme: Brand, login: ModernAuthorizationServer, method: str) -> None:
    login.token_endpoint_auth_method = method
    login.metadata_changes["token_endpoint_auth_methods_supported"] = [method]
    server = make_server(acme, secret="", **login.fields())
    server.update_signing_key()
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
        ((404, JSON, b'{"status": 404, "error": "Not Found", "path": "/typo"}'), "token_endpoint_not_found"),
        ((404, JSON, b'{"detail": "Not Found"}'), "token_endpoint_not_found"),
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


@pytest.mark.parametrize(
    "answer", [(403, HTML, b"<h1>Are you a robot?</h1>"), (403, JSON, b'{"error": "forbidden"}'), (418, HTML, b"")]
)
def test_a_refusal_without_a_reason_is_not_called_a_matter_of_the_redirect_uri(
    acme: Brand, login: ModernAuthorizationServer, monkeypatch: pytest.MonkeyPatch, answer: Answer
) -> None:
    """The bug: a firewall's page was "our redirect URI and one that is not registered get the same answer"."""
    server = configured(acme, login)
    without_browser(login, monkeypatch, answer)
    assert codes(server) == [*GOOD[:3], "authorization_endpoint_refuses"]


@pytest.mark.parametrize("error", ["access_denied", "no_such_tenant"])
def test_a_refusal_is_not_put_down_to_a_consumer(
    acme: Brand, login: ModernAuthorizationServer, monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    """The bug: "Nothing, if it was the consumer", where nobody had been asked to sign in."""
    server = configured(acme, login)
    without_browser(login, monkeypatch, to(f"{server.redirect_uri}?error={error}"))
    found = problems(server)["authorization_refused"]
    assert "consumer" not in found.meaning + found.remedy


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
        ({"authorization_response_iss_parameter_supported": ...}, "iss_not_announced", Verdict.NOTE),
        ({"require_pushed_authorization_requests": True}, "push_required", Verdict.PROBLEM),
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
