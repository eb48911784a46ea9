"""What the operator reads where no answer came, clocks, words without secrets, and the command."""

import re
from base64 import b64decode
from email.utils import formatdate
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import time_machine
from django.core.management import CommandError, call_command

from brands.doctor import Verdict, bounded, examine, examine_within_bounds
from brands.doctor.table import ROWS
from brands.models import AuthorizationServer, Brand
from infrastructure.crypto import Secret
from oauth_client import transport
from oauth_client.certificates import CertificateProblem
from tests.brands.doctor_login import (
    GOOD,
    HTML,
    JSON,
    always,
    codes,
    configured,
    login,
    problems,
    to,
    without_browser,
)
from tests.modern_authorization_server import ModernAuthorizationServer

# The fixture, by its name.
__all__ = ["login"]

pytestmark = pytest.mark.django_db


# No answer. The operator reads why.


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (transport.EndpointBlocked("the address is not allowed"), "address_blocked"),
        (transport.EndpointTimeout("the server did not answer in time"), "timed_out"),
        (transport.EndpointUnreachable("the server could not be reached"), "unreachable"),
        (transport.ResponseTooLarge("the answer is too large"), "answer_too_large"),
        (transport.CertificateNotAccepted(CertificateProblem.EXPIRED), "certificate_expired"),
        (transport.CertificateNotAccepted(CertificateProblem.UNKNOWN_CA), "certificate_unknown_ca"),
        (transport.CertificateNotAccepted(CertificateProblem.OTHER_NAME), "certificate_other_name"),
        (transport.CertificateNotAccepted(CertificateProblem.OTHER), "certificate_invalid"),
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


@pytest.mark.parametrize(
    ("silent", "field"),
    [("/par", "pushed_authorization_request_endpoint"), ("/authorize", "authorization_endpoint")],
)
def test_an_admin_is_told_which_endpoint_did_not_answer(
    acme: Brand, login: ModernAuthorizationServer, monkeypatch: pytest.MonkeyPatch, silent: str, field: str
) -> None:
    """The bug: of an endpoint for pushed requests the admin read that the sign-in address gave no answer."""
    monkeypatch.setattr(bounded, "SECONDS_UNTIL_NO", 1.0)
    monkeypatch.setattr(bounded, "SECONDS_FOR_ALL", 2.0)
    login.pushed_only, login.metadata_changes, answers = True, {}, login.send

    def send(request: Any, *arguments: Any, **options: Any) -> Any:
        if urlsplit(request.url).path == silent:
            raise transport.EndpointUnreachable("the server could not be reached")
        return answers(request, *arguments, **options)

    monkeypatch.setattr(login, "send", send)
    found = examine_within_bounds(configured(acme, login))[-1]
    assert (found.code, found.field) == ("no_answer", field)


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
    server.update_signing_key()
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


@pytest.mark.parametrize(
    ("field", "answer", "code"),
    [
        ("userinfo_endpoint", None, "subject_endpoint_answers"),
        ("userinfo_endpoint", (403, JSON, b"{}"), "subject_endpoint_answers"),
        ("userinfo_endpoint", (200, JSON, b'{"sub": "ada"}'), "subject_for_any_token"),
        ("userinfo_endpoint", (302, {"Location": "https://login.acme.example/"}, b""), "subject_endpoint_not_found"),
        ("userinfo_endpoint", (404, HTML, b""), "subject_endpoint_not_found"),
        ("userinfo_endpoint", (500, HTML, b""), "subject_endpoint_not_proven"),
        ("introspection_endpoint", None, "subject_endpoint_answers"),
        ("introspection_endpoint", (401, JSON, b'{"error": "invalid_client"}'), "introspection_refused"),
        ("introspection_endpoint", (200, JSON, b'{"active": true}'), "subject_for_any_token"),
        ("introspection_endpoint", (200, JSON, b'{"active": "false"}'), "subject_endpoint_not_proven"),
        ("introspection_endpoint", (405, HTML, b""), "subject_endpoint_not_found"),
    ],
)
def test_who_signed_in_is_asked_about_a_made_up_token(
    acme: Brand, login: ModernAuthorizationServer, field: str, answer: Any, code: str
) -> None:
    """A17: once, and harmless. A server that accepts any token cannot say whose account one is for."""
    login.openid, login.next_subject_answers = False, [answer] if answer else []
    server = configured(acme, login, **{field: f"{login.issuer}/{'userinfo' if field[0] == 'u' else 'introspect'}"})
    (told,) = [finding for finding in examine(server) if finding.field == field]
    assert (told.code, len(login.subject_requests)) == (code, 1)
    assert "with a made-up token" in told.tried


@pytest.mark.parametrize("field", ["userinfo_endpoint", "introspection_endpoint"])
@pytest.mark.parametrize("error", [transport.EndpointBlocked("planted"), transport.EndpointTimeout("planted")])
def test_a_no_of_who_signed_in_is_like_every_other_and_at_its_own_field(
    acme: Brand,
    login: ModernAuthorizationServer,
    monkeypatch: pytest.MonkeyPatch,
    error: transport.OutboundError,
    field: str,
) -> None:
    """N9, A17: a brand's admin reads one sentence, whatever the reason."""

    def fail(*_arguments: Any, **_options: Any) -> None:
        raise error

    monkeypatch.setattr(bounded, "SECONDS_UNTIL_NO", 0.5)
    monkeypatch.setattr(bounded, "SECONDS_FOR_ALL", 2.0)
    login.openid = False
    server = configured(acme, login, **{field: f"{login.issuer}/x"})
    monkeypatch.setattr(login, "send", fail)
    fields = ["issuer", "token_endpoint", field, "authorization_endpoint"]
    assert [(found.code, found.field) for found in examine_within_bounds(server)] == [
        ("no_answer", name) for name in fields
    ]


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
