"""Acme's server as the doctor meets it, and answers that it can be made to give."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from brands.doctor import Finding, Verdict, examine
from brands.models import AuthorizationServer, Brand
from tests.cast import ACME_SECRET, make_server
from tests.fake_authorization_server import Answer, FakeAuthorizationServer, mounted
from tests.modern_authorization_server import ModernAuthorizationServer

GOOD = ["metadata_agrees", "keys_found", "client_accepted", "redirect_uri_registered"]
JSON = {"Content-Type": "application/json"}
HTML = {"Content-Type": "text/html"}
# At most what docs/operator.md says.
MOST_REQUESTS = 16


def acme_login() -> ModernAuthorizationServer:
    """Return Acme's server, with metadata and OpenID Connect, and our client registered."""
    server = ModernAuthorizationServer("login.acme.example", "acme-client", ACME_SECRET, openid=True, pushed_only=False)
    server.metadata_changes = {"pushed_authorization_request_endpoint": ...}
    return server


@pytest.fixture
def login() -> Iterator[ModernAuthorizationServer]:
    """Mount Acme's server."""
    server = acme_login()
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
            len(login.subject_requests),
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
