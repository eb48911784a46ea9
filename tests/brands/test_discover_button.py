"""The *Discover* button: what the server publishes beside what would be stored; nothing is saved, nothing is lost."""

import html
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from brands.doctor import bounded
from brands.models import AuthorizationServer, Brand, UnsavedClientSecret
from brands.server_rules import complete_from_metadata
from infrastructure.models import AuditEvent
from oauth_client import discover as discover_metadata
from oauth_client import transport
from oauth_client.certificates import CertificateProblem
from tests.admin_pages import AdminBrowser, address, filled_in
from tests.brands.test_unsaved_secrets import as_shown
from tests.fake_authorization_server import mounted
from tests.modern_authorization_server import ModernAuthorizationServer

pytestmark = pytest.mark.django_db

ISSUER = "https://login.acme.example"
TYPED = "planted-typed-secret-7c2f"
NOT_FETCHED = "The metadata of this issuer could not be fetched. Look at the address, or enter the endpoints yourself."


@pytest.fixture
def login() -> Iterator[ModernAuthorizationServer]:
    fake = ModernAuthorizationServer(metadata_changes={"scopes_supported": ["openid", "orders.read"]})
    with mounted(fake):
        yield fake


@pytest.fixture
def browser(acme: Brand, acme_admin: Any) -> AdminBrowser:
    return AdminBrowser(acme_admin)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> float:
    """Wait half a second for a no instead of five."""
    monkeypatch.setattr(bounded, "SECONDS_UNTIL_NO", 0.5)
    monkeypatch.setattr(bounded, "SECONDS_FOR_ALL", 2.0)
    return 0.5


def discover(browser: AdminBrowser, page: str = address(AuthorizationServer, "add"), **typed: Any) -> Any:
    form = browser.get(page).context["adminform"].form
    return browser.post(page, filled_in(form) | {"issuer": ISSUER, "_discover": "1"} | typed)


def told(answer: Any) -> dict[str, tuple[str, str, str]]:
    assert answer.status_code == 200
    rows = answer.context["adminform"].form.discovered or []
    return {row.label: (row.found, row.stored, row.note) for row in rows}


def errors_of(answer: Any) -> dict[str, list[str]]:
    form = answer.context["adminform"].form
    return {name: [html.unescape(str(message)) for message in messages] for name, messages in form.errors.items()}


def test_it_shows_what_was_found_beside_what_will_be_stored(
    browser: AdminBrowser, login: ModernAuthorizationServer
) -> None:
    """C6: endpoints, methods, scopes, PKCE and iss, before anything is saved and with nothing else typed."""
    answer = discover(browser, scope="orders.read wished")
    found = list(told(answer).values())
    assert found == [
        (ISSUER, ISSUER, "The same."),
        *[(f"{ISSUER}/{path}", f"{ISSUER}/{path}", "Filled in now.") for path in ("authorize", "token", "jwks")],
        *[(f"{ISSUER}/{path}", f"{ISSUER}/{path}", "Filled in now.") for path in ("revoke", "par")],
        ("client_secret_basic, private_key_jwt", "client_secret_basic", ""),
        ("openid, orders.read", "orders.read, wished", "The server does not announce wished."),
        ("S256", "S256, always", ""),
        ("yes", "yes", "Switched on now."),
    ]
    assert errors_of(answer) == {}
    assert not AuthorizationServer.objects.exists()
    assert not AuditEvent.objects.filter(kind__startswith="authorization_server").exists()


def test_what_was_filled_in_is_what_a_save_stores(browser: AdminBrowser, login: ModernAuthorizationServer) -> None:
    """C6, N8, H10: the typed secret is stored with it, and the server is not asked a second time."""
    typed = {"key": "orders", "client_id": "acme-client", "client_secret": TYPED, "scope": "orders.read"}
    answer = discover(browser, **typed)
    assert TYPED not in answer.content.decode()
    saved = browser.post(address(AuthorizationServer, "add"), as_shown(answer))
    assert saved.status_code == 302, errors_of(saved)
    server = AuthorizationServer.objects.get()
    assert (server.token_endpoint, server.pushed_authorization_request_endpoint) == (f"{ISSUER}/token", f"{ISSUER}/par")
    assert (server.key, server.scope, server.authorization_response_iss_parameter_supported) == (
        "orders",
        "orders.read",
        True,
    )
    secret = server.reveal_credentials().client_secret
    assert secret is not None
    assert secret.reveal() == TYPED
    assert len(login.metadata_requests) == 1
    assert not UnsavedClientSecret.objects.exists()


def test_a_secret_survives_it_twice_and_is_kept_no_longer(
    browser: AdminBrowser, login: ModernAuthorizationServer
) -> None:
    """H10: ten minutes from when it was typed, however often Discover is pressed."""
    page = address(AuthorizationServer, "add")
    first = discover(browser, client_secret=TYPED)
    until = UnsavedClientSecret.objects.get().expires_at
    second = browser.post(page, as_shown(first, _discover="1"))
    assert UnsavedClientSecret.objects.get().expires_at == until
    saved = browser.post(page, as_shown(second, key="orders", client_id="acme-client"))
    assert saved.status_code == 302, errors_of(saved)
    secret = AuthorizationServer.objects.get().reveal_credentials().client_secret
    assert secret is not None
    assert secret.reveal() == TYPED


def test_a_secret_that_was_typed_for_another_issuer_is_not_used(
    browser: AdminBrowser, login: ModernAuthorizationServer
) -> None:
    """N8: Discover must not carry a kept secret to the hosts that another issuer names."""
    first = discover(browser, client_secret=TYPED, issuer=f"{ISSUER}/of-another-tenant")
    second = browser.post(address(AuthorizationServer, "add"), as_shown(first, issuer=ISSUER, _discover="1"))
    assert errors_of(second)["client_secret"] == [
        "The secret that you typed was for another host or issuer: type it again."
    ]
    assert not UnsavedClientSecret.objects.exists()


def test_a_stored_secret_is_not_sent_to_what_was_found(
    browser: AdminBrowser, login: ModernAuthorizationServer, acme_server: AuthorizationServer
) -> None:
    """N8: a save with what was filled in asks for the secret, as if the hosts had been typed."""
    login.metadata_changes = {"revocation_endpoint": "https://elsewhere.example/revoke"}
    page = address(AuthorizationServer, "change", acme_server)
    answer = discover(browser, page)
    assert "https://elsewhere.example/revoke" in [stored for _, stored, _ in told(answer).values()]
    assert list(errors_of(browser.post(page, as_shown(answer)))) == ["client_secret"]
    acme_server.refresh_from_db()
    assert acme_server.revocation_endpoint == ""


@pytest.mark.parametrize("path", ["/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"])
def test_a_pasted_metadata_address_becomes_the_issuer(
    browser: AdminBrowser, login: ModernAuthorizationServer, path: str
) -> None:
    answer = discover(browser, issuer=f" {ISSUER}{path} ")
    assert answer.context["adminform"].form["issuer"].value() == ISSUER
    assert told(answer)


def test_a_typed_endpoint_stays_and_the_difference_is_said(
    browser: AdminBrowser, login: ModernAuthorizationServer
) -> None:
    """C6: at the field, too."""
    answer = discover(browser, token_endpoint=f"{ISSUER}/typed")
    assert (f"{ISSUER}/token", f"{ISSUER}/typed") in [(found, stored) for found, stored, _ in told(answer).values()]
    assert errors_of(answer) == {"token_endpoint": [f"The issuer's metadata says: {ISSUER}/token"]}
    assert answer.context["adminform"].form["token_endpoint"].value() == f"{ISSUER}/typed"


def test_what_is_ticked_as_not_used_stays_empty(browser: AdminBrowser, login: ModernAuthorizationServer) -> None:
    """C6."""
    answer = discover(browser, ignored_metadata=["revocation_endpoint"])
    assert answer.context["adminform"].form["revocation_endpoint"].value() == ""
    assert (f"{ISSUER}/revoke", "-", "It stays empty, because it is ticked as not to be used.") in told(answer).values()


@pytest.mark.parametrize(
    ("typed", "published", "filled_in"),
    [
        ({}, ("introspection_endpoint", "userinfo_endpoint"), "introspection_endpoint"),
        ({}, ("userinfo_endpoint",), "userinfo_endpoint"),
        ({"token_endpoint_auth_method": "none"}, ("introspection_endpoint", "userinfo_endpoint"), "userinfo_endpoint"),
        (
            {"ignored_metadata": ["introspection_endpoint"]},
            ("introspection_endpoint", "userinfo_endpoint"),
            "userinfo_endpoint",
        ),
        ({"scope": "openid orders.read"}, ("introspection_endpoint", "userinfo_endpoint"), ""),
        ({"scope": ""}, ("introspection_endpoint", "userinfo_endpoint"), ""),
        ({}, (), ""),
    ],
)
def test_one_endpoint_that_says_who_signed_in_is_filled_in(
    browser: AdminBrowser,
    login: ModernAuthorizationServer,
    typed: dict[str, Any],
    published: tuple[str, ...],
    filled_in: str,
) -> None:
    """A17: only if no ID token says it. Without a scope nobody knows yet: openid was typed next, and no save worked."""
    login.metadata_changes = {name: f"{ISSUER}/{name}" for name in published}
    answer = discover(browser, **{"scope": "orders.read"} | typed)
    form = answer.context["adminform"].form
    names = ("userinfo_endpoint", "introspection_endpoint")
    assert [name for name in names if form[name].value()] == ([filled_in] if filled_in else [])
    shown = {found: note for found, _, note in told(answer).values()}
    notes = {shown[f"{ISSUER}/{name}"] for name in published if name not in typed.get("ignored_metadata", [])}
    assert notes <= {
        "Filled in now.", "Not used: one of the two is enough.", "Not filled in: it is for a scope without openid.",
    }  # fmt: skip


@pytest.mark.parametrize("found", ["http://login.acme.example/me", "https://10.0.0.1/me", 7, None, ["x"]])
def test_an_optional_endpoint_that_cannot_be_used_is_as_good_as_none(
    browser: AdminBrowser, login: ModernAuthorizationServer, found: Any
) -> None:
    """N1: nothing else depends on it, so the rest is still filled in."""
    login.metadata_changes = {"userinfo_endpoint": found}
    answer = discover(browser, scope="orders.read")
    form = answer.context["adminform"].form
    assert (form["userinfo_endpoint"].value(), form["token_endpoint"].value()) == ("", f"{ISSUER}/token")


def test_a_save_fills_in_no_endpoint_that_says_who_signed_in(acme: Brand, login: ModernAuthorizationServer) -> None:
    """A17: servers publish endpoints that refuse our tokens, and sign-ins that worked would fail."""
    login.metadata_changes = {"userinfo_endpoint": f"{ISSUER}/userinfo"}
    values: dict[str, Any] = {"scope": "orders.read", "token_endpoint_auth_method": "client_secret_basic"}
    complete_from_metadata(values, discover_metadata(ISSUER))
    assert (values["token_endpoint"], "userinfo_endpoint" in values) == (f"{ISSUER}/token", False)


def test_a_new_server_gets_an_authentication_and_an_algorithm_that_it_supports(
    browser: AdminBrowser, login: ModernAuthorizationServer
) -> None:
    """E16: never HS256, which an admin has to choose."""
    login.metadata_changes = {
        "token_endpoint_auth_methods_supported": ["none", "client_secret_post"],
        "id_token_signing_alg_values_supported": ["HS256", "ES256"],
    }
    answer = discover(browser, scope="openid")
    assert ("none, client_secret_post", "client_secret_post", "Chosen now.") in told(answer).values()
    assert ("HS256, ES256", "ES256", "Chosen now.") in told(answer).values()
    form = answer.context["adminform"].form
    assert (form["token_endpoint_auth_method"].value(), form["id_token_signing_alg_values"].value()) == (
        "client_secret_post",
        ["ES256"],
    )


def test_a_server_without_pkce_is_named(browser: AdminBrowser, login: ModernAuthorizationServer) -> None:
    """B2."""
    login.metadata_changes = {"code_challenge_methods_supported": ["plain"]}
    answer = discover(browser)
    assert ("plain", "S256, always", "The server does not announce S256.") in told(answer).values()
    assert "issuer" in errors_of(answer)


@pytest.mark.parametrize("scopes", ["openid", 7, {"a": 1}, [1, None, "a b", "é", "<b>x</b>", "x" * 300, "\x00"]])
def test_scopes_that_are_none_are_left_out(
    browser: AdminBrowser, login: ModernAuthorizationServer, scopes: Any
) -> None:
    """H8: nothing that a server writes there can fail the look-up, or be read as HTML."""
    login.metadata_changes = {"scopes_supported": scopes}
    answer = discover(browser)
    assert told(answer)
    assert "<b>x</b>" not in answer.content.decode()


def test_without_an_issuer_it_says_what_to_type(browser: AdminBrowser, login: ModernAuthorizationServer) -> None:
    answer = discover(browser, issuer="", client_secret=TYPED)
    said = "Type the issuer of your server, or the address of its metadata."
    assert (errors_of(answer), login.metadata_requests) == ({"issuer": [said]}, [])
    assert UnsavedClientSecret.objects.count() == 1


@pytest.mark.parametrize("issuer", ["https://[::1", "http://login.acme.example", "x\x01y", "https://10.0.0.1"])
def test_an_issuer_that_is_none_sends_nothing(
    browser: AdminBrowser, login: ModernAuthorizationServer, issuer: str
) -> None:
    """N1."""
    assert list(errors_of(discover(browser, issuer=issuer))) == ["issuer"]
    assert login.metadata_requests == []


@pytest.mark.parametrize("button", ["_discover", "_save"])
@pytest.mark.parametrize(
    "reason",
    [
        transport.EndpointBlocked("the address is not allowed"),
        transport.EndpointTimeout("the server did not answer in time"),
        transport.EndpointUnreachable("the server could not be reached"),
    ],
    ids=lambda reason: type(reason).__name__,
)
def test_whatever_is_wrong_in_our_network_is_one_sentence_after_one_time(
    browser: AdminBrowser, login: ModernAuthorizationServer, quick: float, reason: Any, button: str
) -> None:
    """N9. The bug: a save fetched the same metadata, and its time told a blocked address from a slow one."""
    login.metadata_path, login.well_known_answers = "/nowhere", [reason, reason]
    began = time.monotonic()
    typed = {"key": "orders", "client_id": "acme-client", "client_secret": TYPED}
    form = filled_in(browser.get(address(AuthorizationServer, "add")).context["adminform"].form)
    answer = browser.post(address(AuthorizationServer, "add"), form | typed | {"issuer": ISSUER, button: "1"})
    assert time.monotonic() - began >= quick
    assert errors_of(answer) == {"issuer": [NOT_FETCHED]}


def test_what_is_wrong_with_a_certificate_is_said(
    browser: AdminBrowser, login: ModernAuthorizationServer, quick: float
) -> None:
    """N9: it comes from an address that was checked to be public."""
    expired = transport.CertificateNotAccepted(CertificateProblem.EXPIRED)
    login.metadata_path, login.well_known_answers = "/nowhere", [expired, expired]
    assert "expired" in errors_of(discover(browser))["issuer"][0]


def test_it_needs_a_recent_sign_in_and_keeps_what_was_typed(
    browser: AdminBrowser, login: ModernAuthorizationServer
) -> None:
    """G10: whoever has a session alone must not send our requests to addresses of their choice."""
    page = address(AuthorizationServer, "add")
    browser.sign_in_again(seconds_ago=11 * 60)
    refused = discover(browser, client_secret=TYPED)
    assert "then press Discover again" in errors_of(refused)["__all__"][0]
    assert login.metadata_requests == []
    browser.sign_in_again()
    assert told(browser.post(page, as_shown(refused, _discover="1")))
    assert UnsavedClientSecret.objects.count() == 1


@pytest.mark.usefixtures("one_window")
def test_look_ups_are_limited(browser: AdminBrowser, login: ModernAuthorizationServer) -> None:
    """N9."""
    for _ in range(10):
        discover(browser)
    answer = discover(browser)
    assert errors_of(answer)["issuer"][0].startswith("Too many look-ups of metadata: wait")
    assert len(login.metadata_requests) == 10


def test_only_who_may_save_has_anything_fetched(
    browser: AdminBrowser,
    login: ModernAuthorizationServer,
    acme: Brand,
    acme_server: AuthorizationServer,
    rival_admin: Any,
    django_user_model: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """J1, J15, B22: neither a viewer, nor another brand's admin, nor a page elsewhere."""
    viewer = django_user_model.objects.create_user("vera", is_staff=True)
    acme.viewers.add(viewer)
    both = django_user_model.objects.create_user("both", is_staff=True)
    acme.viewers.add(both)
    rival_admin.brands.get().admins.add(both)
    page = address(AuthorizationServer, "change", acme_server)
    for user, status in ((viewer, 403), (both, 403), (rival_admin, 302)):
        assert AdminBrowser(user).post(page, {"issuer": ISSUER, "_discover": "1"}).status_code == status
    assert AdminBrowser(viewer).post(address(AuthorizationServer, "add"), {"_discover": "1"}).status_code == 403
    monkeypatch.setattr(browser.client.handler, "enforce_csrf_checks", True)
    assert browser.post(page, {"issuer": ISSUER, "_discover": "1"}).status_code == 403
    assert login.metadata_requests == []


def test_a_viewer_sees_no_button(acme: Brand, acme_server: AuthorizationServer, django_user_model: Any) -> None:
    """J15."""
    viewer = django_user_model.objects.create_user("vera", is_staff=True)
    acme.viewers.add(viewer)
    text = AdminBrowser(viewer).get(address(AuthorizationServer, "change", acme_server)).content.decode()
    assert re.findall(r'name="_(?:discover|save)"', text) == []
