"""Each of twenty-five mistakes is named by the doctor, and none that only a sign-in can show is invented."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.utils import timezone
from requests.adapters import BaseAdapter

from brands.doctor import Verdict, bounded, examine, examine_within_bounds
from brands.doctor.table import ROWS
from brands.models import AuthorizationServer, Brand
from conversations.models import Conversation, TrialSignIn
from conversations.timeline import timeline_of
from infrastructure.crypto import Secret
from oauth_client import keys, transport
from oauth_client.transport import GuardedAdapter
from tests.brands.misconfigurations import DOCUMENT, MISTAKES, Mistake, document
from tests.cast import ACME_SECRET, Browser, make_bot, make_server
from tests.conversations.test_trial_sign_in import TrialBrowser
from tests.fake_authorization_server import Answer, AuthorizationRequestRefused
from tests.hostile_token_endpoint import running
from tests.modern_authorization_server import ModernAuthorizationServer
from tests.tls import Authority, ServerCertificate

pytestmark = pytest.mark.django_db

JSON = {"Content-Type": "application/json"}


@dataclass
class Setup:
    """Our server, and the authorization server that it leads to. `adapters` lead to others, by host and port."""

    server: AuthorizationServer
    login: ModernAuthorizationServer
    monkeypatch: pytest.MonkeyPatch
    authority: Authority
    stack: ExitStack
    adapters: dict[str, BaseAdapter] = field(default_factory=dict)

    def answer_codes(self, *answer: Any) -> None:
        """Answer each token request so."""
        self.monkeypatch.setattr(self.login, "_answer_token_request", lambda _request: answer)

    def serve_tls(self, certificate: ServerCertificate, ca_file: str) -> None:
        """Have the token endpoint at a real server on loopback."""
        endpoint = self.stack.enter_context(running(certificate))
        self.server.token_endpoint = endpoint.url
        # Where the metadata names another one, it is compared.
        self.login.metadata_changes["token_endpoint"] = self.server.token_endpoint
        self.lead(endpoint.url, GuardedAdapter(secure=True, allow_loopback=True, ca_file=ca_file))

    def lead(self, url: str, adapter: BaseAdapter) -> None:
        """Send what goes to this address's host through another adapter."""
        self.adapters[urlsplit(url).netloc] = adapter


@pytest.fixture
def setup(acme: Brand, monkeypatch: pytest.MonkeyPatch, tls_authority: Authority, settings: Any) -> Iterator[Setup]:
    """Return a set-up without a mistake."""
    settings.ALLOW_LOCAL_ENDPOINTS = True
    keys.forget_all()  # those of earlier mistakes at the same address
    login = ModernAuthorizationServer("login.acme.example", "acme-client", ACME_SECRET, openid=True, pushed_only=False)
    server = make_server(
        acme,
        revocation_endpoint=f"{login.issuer}/revoke",
        **{name: value for name, value in login.fields().items() if name != "revocation_endpoint"},
    )
    login.redirect_uri = server.redirect_uri
    login.metadata_changes["pushed_authorization_request_endpoint"] = ...
    with ExitStack() as stack:
        made = Setup(server, login, monkeypatch, tls_authority, stack)
        monkeypatch.setattr(transport, "adapter_for", lambda url: made.adapters.get(urlsplit(url).netloc, login))
        yield made


def refusal(error: str, status: int = 400) -> Answer:
    return status, JSON, json.dumps({"error": error}).encode()


def another_secret(setup: Setup) -> None:
    setup.server.set_client_secret(Secret("mistyped"))


def another_method(setup: Setup) -> None:
    setup.server.token_endpoint_auth_method = "client_secret_post"
    setup.login.metadata_changes["token_endpoint_auth_methods_supported"] = ...


def not_registered(setup: Setup) -> None:
    setup.login.redirect_uri = "https://delegation.test/callback/another"


def another_issuer(setup: Setup) -> None:
    """The address of a tenant whose document, ID tokens and responses name the issuer of all tenants."""
    setup.server.issuer += "/tenant-b"
    setup.login.metadata_path = "/tenant-b/.well-known/openid-configuration"


def slash_too_many(setup: Setup) -> None:
    setup.server.issuer += "/"


def well_known_address(setup: Setup) -> None:
    setup.server.issuer += "/.well-known/openid-configuration"


def expired(setup: Setup) -> None:
    certificate = setup.authority.issue(expired_at=datetime.now(UTC) - timedelta(days=1))
    setup.serve_tls(certificate, str(setup.authority.ca_file))


def unknown_ca(setup: Setup) -> None:
    setup.serve_tls(setup.authority.issue(), "")


def no_pkce(setup: Setup) -> None:
    setup.login.pkce = "ignored"
    setup.login.metadata_changes["code_challenge_methods_supported"] = ...


def pkce_refused(setup: Setup) -> None:
    setup.login.pkce = "refused"


def push_refused(setup: Setup) -> None:
    del setup.login.metadata_changes["pushed_authorization_request_endpoint"]
    setup.server.pushed_authorization_request_endpoint = f"{setup.login.issuer}/par"
    setup.login.next_push_answer = refusal("unauthorized_client")


def html_error(setup: Setup) -> None:
    setup.answer_codes(400, {"Content-Type": "text/html"}, b"<h1>Bad request</h1>")


def plain_error(setup: Setup) -> None:
    answer = setup.login._answer_token_request

    def plain(request: Any) -> Answer:
        status, _, body = answer(request)
        return status, {"Content-Type": "text/plain"}, body

    setup.monkeypatch.setattr(setup.login, "_answer_token_request", plain)


def error_with_200(setup: Setup) -> None:
    setup.answer_codes(*refusal("incorrect_client_credentials", 200))


def clock_ahead(setup: Setup) -> None:
    setup.login.clock_ahead, now = 600, time.time()
    setup.login.id_token_changes = {"iat": int(now) + 600, "exp": int(now) + 900}


def private_address(setup: Setup) -> None:
    url = setup.server.token_endpoint = "https://inside.acme.example/token"
    setup.login.metadata_changes["token_endpoint"] = url
    inside = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.7", 443))]
    setup.monkeypatch.setattr(socket, "getaddrinfo", lambda *_arguments, **_options: inside)
    setup.lead(url, GuardedAdapter(secure=True, allow_loopback=False, ca_file=""))


def no_key_that_fits(setup: Setup) -> None:
    key_set = setup.login.jwks()
    for key in key_set["keys"]:
        key["use"] = "enc"
    setup.monkeypatch.setattr(setup.login, "jwks", lambda: key_set)


def wrong_token_type(setup: Setup) -> None:
    setup.login.further_members = {"token_type": "mac"}


def scope_not_granted(setup: Setup) -> None:
    setup.login.granted_scope = "openid"


def no_expires_in(setup: Setup) -> None:
    setup.login.expires_in = None


def consent_refused(setup: Setup) -> None:
    """The consumer's account is looked at after the sign-in: `make` has the server refuse it then."""


def too_slow(setup: Setup) -> None:
    setup.login.hangs = True


def redirects(setup: Setup) -> None:
    setup.answer_codes(301, {"Location": "https://www.acme.example/token"}, b"")


def wrong_algorithm(setup: Setup) -> None:
    setup.server.id_token_signing_alg_values = ["ES256"]


def client_disabled(setup: Setup) -> None:
    setup.answer_codes(*refusal("unauthorized_client", 401))


MAKE: dict[str, Callable[[Setup], None]] = {
    "wrong secret": another_secret,
    "wrong authentication method": another_method,
    "redirect URI not registered": not_registered,
    "another issuer": another_issuer,
    "issuer with a slash too many": slash_too_many,
    "well-known address as issuer": well_known_address,
    "expired certificate": expired,
    "certificate of an unknown CA": unknown_ca,
    "no PKCE at the server": no_pkce,
    "PKCE refused": pkce_refused,
    "pushed requests refused for this client": push_refused,
    "error as HTML": html_error,
    "error as JSON of the type text/plain": plain_error,
    "error with status 200": error_with_200,
    "clock 10 minutes ahead": clock_ahead,
    "private address": private_address,
    "no key that fits": no_key_that_fits,
    "wrong token_type": wrong_token_type,
    "scope not granted": scope_not_granted,
    "no expires_in": no_expires_in,
    "consent refused by a policy": consent_refused,
    "token endpoint too slow": too_slow,
    "token endpoint redirects": redirects,
    "wrong ID token algorithm": wrong_algorithm,
    "client disabled": client_disabled,
}
# What the entry of a token says.
NOTED = {"lifetime assumed": "the server named no lifetime", "scope not granted": "not granted: orders.read"}
# What an admin reads as `no_answer`.
REASONS = {"private address": "address_blocked", "token endpoint too slow": "timed_out"}


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_the_doctor_names_each_mistake(setup: Setup, mistake: Mistake, monkeypatch: pytest.MonkeyPatch) -> None:
    MAKE[mistake.name](setup)
    monkeypatch.setattr(bounded, "SECONDS_UNTIL_NO", 1.0)
    found = [finding for finding in examine_within_bounds(setup.server) if finding.verdict != Verdict.GOOD]
    assert tuple(finding.code for finding in found) == mistake.doctor


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_a_trial_sign_in_names_each_mistake(setup: Setup, mistake: Mistake, acme_admin: Any) -> None:
    make(mistake, setup)
    admin = TrialBrowser(acme_admin)
    signed_in(setup, admin, admin.begin_trial(setup.server)["Location"])
    trial = TrialSignIn.objects.get()
    assert noted(trial) == mistake.sign_in
    page = admin.page(setup.server)
    assert ("A consumer can sign in like this" in page) == (not trial.error and trial.returned_at is not None)
    assert trial.error_detail in unescape(page)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_the_timeline_names_each_mistake(setup: Setup, mistake: Mistake, acme: Brand) -> None:
    make(mistake, setup)
    ada, challenge = Browser(), make_bot(acme).challenge()
    signed_in(setup, ada, ada.press(challenge["url"])["Location"])
    entries = timeline_of(Conversation.objects.get(), timezone.now()).entries
    titles = [entry.title for entry in entries if entry.mark in {"problem", "waiting", "note"}]
    ended = ("The sign-in failed", "The sign-in ended")
    named = [title.partition(": ")[2] for title in titles if title.startswith(ended)]
    silent = ["nothing came back" for title in titles if title.endswith("; nothing came back")]
    lines = " ".join(line for entry in entries if entry.mark == "note" for line in entry.lines)
    noted = [words for words, line in NOTED.items() if line in lines]
    assert tuple(named or silent or noted) == mistake.shown_by("timeline")


def make(mistake: Mistake, setup: Setup) -> None:
    """Make the mistake, and store our side of it."""
    MAKE[mistake.name](setup)
    setup.login.denies = MAKE[mistake.name] is consent_refused
    setup.server.save()


def signed_in(setup: Setup, browser: Browser, url: str) -> None:
    """Go to the server and come back, if it sends anybody back."""
    if url.startswith(setup.login.issuer):
        with suppress(AuthorizationRequestRefused):
            browser.get(f"{setup.server.redirect_uri}?{setup.login.authorize(url)}")


def noted(trial: TrialSignIn) -> tuple[str, ...]:
    """What a trial's page shows that is not good: the error's code, or in words what is noted."""
    if trial.error:
        return (trial.error,)
    if trial.returned_at is None:
        return ("nothing came back",)
    report = trial.report
    is_partial = not set(report["scope_asked"]) <= set(report["scope_granted"])
    notes = {"lifetime assumed": report["lifetime_assumed"], "scope not granted": is_partial}
    return tuple(words for words, applies in notes.items() if applies)


@pytest.mark.parametrize("name", REASONS)
def test_the_operator_reads_the_reason_too(setup: Setup, name: str) -> None:
    MAKE[name](setup)
    assert [finding.code for finding in examine(setup.server) if finding.verdict != Verdict.GOOD] == [REASONS[name]]


def test_a_set_up_without_a_mistake_is_proven(setup: Setup) -> None:
    assert {finding.verdict for finding in examine_within_bounds(setup.server)} == {Verdict.GOOD}


def test_there_are_twenty_five_and_the_table_is_up_to_date() -> None:
    """After a change run `python -m tests.brands.misconfigurations`."""
    assert [mistake.name for mistake in MISTAKES] == list(MAKE)
    assert len(MISTAKES) == 25
    assert DOCUMENT.read_text(encoding="utf-8") == document(ROWS)
