"""The admin's sign-in: limited, with a second factor, confirmed again before anything that matters (G10)."""

import html
import io
import re
import time
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import TOTP, generate_totp_secret, hotp_value
from django.contrib.auth import get_user_model
from django.core import mail
from django.core.management import call_command
from django.test import Client

from accounts.second_factors import stored_second_factors
from brands.models import AuthorizationServer, BotKey, Brand
from infrastructure import rate_limits
from infrastructure.columns import reencrypt
from tests.admin_pages import AdminBrowser, address
from tests.cast import HOST, heading_of
from tests.stored import everything_stored

pytestmark = pytest.mark.django_db

LOGIN = "/admin/account/login/"
INDEX = "/admin/"
SECOND_FACTOR = "/admin/account/second-factor/"


class SignIn:
    """Somebody's browser at the sign-in pages, with CSRF checks on."""

    def __init__(self) -> None:
        self.client = Client(enforce_csrf_checks=True, SERVER_NAME=HOST)

    def get(self, url: str) -> Any:
        return self.client.get(url, secure=True)

    def post(self, url: str, **data: str) -> Any:
        self.get(url)
        cookie = self.client.cookies.get("__Host-csrf")
        token = {"csrfmiddlewaretoken": cookie.value} if cookie else {}
        return self.client.post(url, token | data, secure=True, headers={"Referer": f"https://{HOST}/"})

    def sign_in(self, login: str = "acme-admin", password: str = "acme-admin", url: str = LOGIN) -> Any:
        return self.post(url, login=login, password=password)


@pytest.fixture
def visitor(acme_admin: Any) -> SignIn:
    return SignIn()


def code_for(secret: str, half_minutes_ago: int = 0) -> str:
    """Return what an authenticator app shows now, or showed then."""
    return f"{hotp_value(secret, int(time.time()) // 30 - half_minutes_ago):06}"


def test_a_form_that_was_open_when_the_session_ended_is_not_lost_in_silence(visitor: SignIn, acme: Brand) -> None:
    """H10. The bug: after the sign-in the form stood there as before, and nothing said that it had not been saved."""
    page, lost = address(Brand, "change", acme), "Nothing was changed, and nothing that you typed is kept"
    visitor.get(LOGIN)
    asked = visitor.get(visitor.post(page, name="Acme Ltd")["Location"])["Location"]
    assert lost in visitor.get(asked).content.decode()
    assert lost not in visitor.get(visitor.get(visitor.get(page)["Location"])["Location"]).content.decode()
    assert Brand.objects.get(pk=acme.pk).name == "Acme"


@pytest.mark.parametrize(
    ("came_from", "leads_to"),
    [("https://{host}{page}", "{page}"), ("https://{host}{page}?_popup=1", "{page}?_popup=1"),
     ("https://{host}/c/x", INDEX), ("https://{host}", INDEX)],
)  # fmt: skip
def test_a_form_that_was_open_before_a_sign_in_is_refused_in_words(
    visitor: SignIn, acme: Brand, came_from: str, leads_to: str
) -> None:
    """B22, H10: it may be another account's. The bug: the page spoke of cookies and add-ons, and led to the start."""
    page = address(Brand, "change", acme)
    visitor.sign_in()
    visitor.get(page)
    old = {"csrfmiddlewaretoken": visitor.client.cookies["__Host-csrf"].value, "name": "Acme Ltd"}
    del visitor.client.cookies["__Host-session"]
    visitor.sign_in()
    sent = {"Referer": came_from.format(host=HOST, page=page), "Origin": f"https://{HOST}"}
    answer = visitor.client.post(page, old, secure=True, headers=sent)
    assert (answer.status_code, heading_of(answer)) == (403, "Somebody has signed in since this form was opened")
    assert f'<a href="{leads_to.format(page=page)}">Open the form again</a>' in answer.content.decode()
    assert Brand.objects.get(pk=acme.pk).name == "Acme"


def test_the_admin_leads_to_the_sign_in_page_and_back(visitor: SignIn) -> None:
    """G10: one page for everybody; the address that was wanted comes after it."""
    wanted = "/admin/brands/brand/"
    first = visitor.get(wanted)
    assert (first.status_code, first["Location"]) == (302, f"/admin/login/?next={wanted}")
    second = visitor.get(first["Location"])
    assert (second.status_code, second["Location"]) == (302, f"{LOGIN}?next=%2Fadmin%2Fbrands%2Fbrand%2F")
    page = visitor.get(second["Location"])
    assert (page.status_code, heading_of(page)) == (200, "Sign in")
    done = visitor.post(second["Location"], login="acme-admin", password="acme-admin", next=wanted)
    assert (done.status_code, done["Location"]) == (302, wanted)
    assert visitor.get(wanted).status_code == 200


@pytest.mark.parametrize("wanted", ["https://evil.example/", "//evil.example/", "javascript:alert(1)"])
def test_nobody_is_sent_elsewhere_after_signing_in(visitor: SignIn, wanted: str) -> None:
    """G10: the address comes from whoever made the link."""
    assert visitor.get(f"/admin/login/?next={wanted}")["Location"] == f"{LOGIN}?next=%2Fadmin%2F"
    done = visitor.post(LOGIN, login="acme-admin", password="acme-admin", next=wanted)
    assert done["Location"] == INDEX


def test_a_session_lasts_eight_hours(visitor: SignIn) -> None:
    """G10."""
    visitor.sign_in()
    cookie = visitor.client.cookies["__Host-session"]
    assert visitor.client.session.get_expiry_age() == 8 * 60 * 60
    assert (cookie["secure"], cookie["httponly"], cookie["samesite"]) == (True, True, "Lax")


def test_who_may_not_use_the_admin_is_told_so(visitor: SignIn) -> None:
    """G10: and not sent around in a circle."""
    get_user_model().objects.create_user("nobody", password="nobody-in-particular")
    assert visitor.sign_in("nobody", "nobody-in-particular").status_code == 302
    assert visitor.get(visitor.get(INDEX)["Location"]).status_code == 403


def test_the_unknown_and_the_wrong_look_alike(visitor: SignIn) -> None:
    """G10: nobody learns which accounts there are."""
    pages = [visitor.sign_in("acme-admin", "wrong"), visitor.sign_in("nobody", "wrong")]
    texts = [re.sub(r'value="[^"]*"', "", page.content.decode()) for page in pages]
    assert [page.status_code for page in pages] == [200, 200]
    assert texts[0] == texts[1]
    assert "not correct" in texts[0]


def test_there_is_no_sign_up_and_no_reset_by_mail(visitor: SignIn) -> None:
    """G10: accounts are the operator's; there is nothing to enumerate."""
    closed = visitor.post(
        "/admin/account/signup/", username="eve", email="eve@evil.example", password1="x1y2z3-eve-long"
    )
    assert closed.status_code in {200, 403}
    assert not get_user_model().objects.filter(username="eve").exists()
    for path in ("password/reset/", "email/", "login/code/", "confirm-email/"):
        assert visitor.get(f"/admin/account/{path}").status_code in {302, 404}, path
    assert mail.outbox == []


@pytest.mark.usefixtures("one_window")
def test_guesses_from_one_address_are_limited(visitor: SignIn) -> None:
    """G10, G8: in the shared store, right password or not, whatever account."""
    answers = [visitor.sign_in(f"user-{number}", "wrong").status_code for number in range(21)]
    assert answers.count(200) <= rate_limits.SIGN_INS_PER_ADDRESS.times
    limited = SignIn().sign_in()
    assert limited.status_code == 429
    assert int(limited["Retry-After"]) >= 1


@pytest.mark.usefixtures("one_window")
def test_guesses_below_a_prefix_are_limited_too(visitor: SignIn) -> None:
    """G10, G8: a prefix of the path (SCRIPT_NAME) may be a client's, and the limit looked at the whole path."""
    below: dict[str, Any] = {
        "secure": True,
        "SCRIPT_NAME": "/prefix",
        "headers": {"Referer": "https://delegation.test/"},
    }
    token = {"csrfmiddlewaretoken": visitor.client.cookies["__Host-csrf"].value} if visitor.client.cookies else {}
    answers = [visitor.client.post("/admin/account/login/", token, **below).status_code for _ in range(21)]
    assert answers[-1] == 429


def test_guesses_at_one_account_are_limited_from_everywhere(visitor: SignIn, settings: Any) -> None:
    """G10: five failures in five minutes, each from another address; then the right password waits too."""
    settings.TRUSTED_PROXY_COUNT = 1
    for number in range(5):
        visitor.client.defaults["HTTP_X_FORWARDED_FOR"] = f"203.0.113.{number}"
        assert "not correct" in visitor.sign_in(password="wrong").content.decode()
    visitor.client.defaults["HTTP_X_FORWARDED_FOR"] = "203.0.113.9"
    assert "Too many failed login attempts" in visitor.sign_in().content.decode()


def test_a_second_factor_is_recommended_until_there_is_one(visitor: SignIn, acme_admin: Any) -> None:
    """G10: on the first page of the admin."""
    visitor.sign_in()
    assert "A second factor is recommended" in visitor.get(INDEX).content.decode()
    TOTP.activate(acme_admin, generate_totp_secret())
    assert "A second factor is recommended" not in visitor.get(INDEX).content.decode()


def test_an_authenticator_app_is_set_up_and_asked_for(visitor: SignIn, acme_admin: Any) -> None:
    """G10: whole, through the pages; afterwards the password alone opens nothing."""
    visitor.sign_in()
    confirm = visitor.get(f"{SECOND_FACTOR}totp/activate/")
    if confirm.status_code == 302:
        visitor.post(confirm["Location"], password="acme-admin")
    page = visitor.get(f"{SECOND_FACTOR}totp/activate/")
    secret = page.context["form"].secret
    data = {"code": code_for(secret), "csrfmiddlewaretoken": visitor.client.cookies["__Host-csrf"].value}
    headers = {"Referer": f"https://{HOST}/"}
    done = visitor.client.post(f"{SECOND_FACTOR}totp/activate/", data, secure=True, headers=headers)
    assert done.status_code == 302
    assert Authenticator.objects.filter(user=acme_admin, type="totp").count() == 1
    assert secret not in everything_stored()

    another = SignIn()
    asked = another.sign_in()
    assert (asked.status_code, asked["Location"]) == (302, f"{SECOND_FACTOR}authenticate/")
    assert another.get(INDEX).status_code == 302
    assert another.post(asked["Location"], code="000000").status_code == 200
    assert another.get(INDEX).status_code == 302


def test_secrets_of_second_factors_are_encrypted(acme_admin: Any) -> None:
    """G10, K1: with our key ring, and readable again."""
    secret = generate_totp_secret()
    authenticator = TOTP.activate(acme_admin, secret)
    assert secret not in repr(Authenticator.objects.values())
    assert authenticator.validate_code(code_for(secret))


def test_second_factors_move_to_the_newest_key(acme_admin: Any, settings: Any) -> None:
    """K4, K1: the old key can go afterwards, and the app still works; a value that nothing reads is counted."""
    new, old = settings.ENCRYPTION_KEYS.split(",")
    secret = generate_totp_secret()
    settings.ENCRYPTION_KEYS = old
    TOTP.activate(acme_admin, secret)
    settings.ENCRYPTION_KEYS = f"{new},{old}"
    call_command("reencrypt", stdout=(said := io.StringIO()))
    assert "authenticator.data: moved 1, unreadable 0\n" in said.getvalue()
    assert "authenticator.data is held by: test-new 1\n" in said.getvalue()
    settings.ENCRYPTION_KEYS = new
    assert Authenticator.objects.get().wrap().validate_code(code_for(secret))
    Authenticator.objects.update(data={"secret": "not a ciphertext"})
    assert reencrypt(stored_second_factors()) == (0, 1)


@pytest.mark.parametrize(
    "path",
    ["login/", "reauthenticate/", "second-factor/", "second-factor/totp/activate/", "second-factor/webauthn/add/"],
)
def test_the_pages_hold_the_admins_headers(visitor: SignIn, acme_admin: Any, path: str) -> None:
    """H6: no inline script or style, kept nowhere."""
    if path != "login/":
        visitor.sign_in()
        visitor.post("/admin/account/reauthenticate/", password="acme-admin")
    page = visitor.get(f"/admin/account/{path}")
    assert page.status_code == 200
    text = page.content.decode()
    assert "script-src 'self'" in page["Content-Security-Policy"]
    assert page["Cache-Control"] == "no-store"
    assert re.findall(r"<script(?![^>]*(?:src=|application/json))[^>]*>", text) == []
    assert re.findall(r"\s(?:style|on\w+)=", text) == []


def test_the_operator_takes_a_lost_second_factor_away(acme_admin: Any, admin_user: Any) -> None:
    """G10, H7: without seeing what it is made of; a brand's admin does not get there."""
    authenticator = TOTP.activate(acme_admin, generate_totp_secret()).instance
    page = address(Authenticator, "change", authenticator)
    operator = AdminBrowser(admin_user)
    shown = operator.get(page)
    assert shown.context["adminform"].form.fields == {}
    assert authenticator.data["secret"] not in html.unescape(shown.content.decode())
    assert AdminBrowser(acme_admin).get(page).status_code == 403
    assert operator.post(address(Authenticator, "delete", authenticator), {"post": "yes"}).status_code == 302
    assert not Authenticator.objects.exists()


@pytest.fixture
def stale(acme_admin: Any) -> AdminBrowser:
    """Return a session that was signed in eleven minutes ago."""
    browser = AdminBrowser(acme_admin)
    browser.sign_in_again(seconds_ago=11 * 60)
    return browser


@pytest.mark.parametrize(
    "changes",
    [
        {"client_secret": "typed"},
        {"token_endpoint": "https://login.acme.example/another"},
        {"authorization_endpoint": "https://login.acme.example/another"},
        {"jwks_uri": "https://login.acme.example/another", "client_secret": "typed"},
        {"same_person_checks": ["none"], "default_check": "none"},
    ],
)
def test_a_secret_or_endpoint_asks_who_it_is_first(
    stale: AdminBrowser, acme_server: AuthorizationServer, changes: dict[str, Any]
) -> None:
    """G10: nothing is saved, what was typed stays in the form and the secret in no session; confirmed, it is saved."""
    page = address(AuthorizationServer, "change", acme_server)
    before = AuthorizationServer.objects.values().get()
    refused = stale.send_changed(page, **changes)
    assert refused.status_code == 200
    text = refused.content.decode()
    assert '<a href="/admin/account/reauthenticate/?next=%2Fadmin%2F"' in text
    assert AuthorizationServer.objects.values().get() == before
    assert "typed" not in everything_stored()
    confirmed = stale.client.post("/admin/account/reauthenticate/", {"password": "acme-admin"}, secure=True)
    assert confirmed.status_code == 302
    assert stale.send_changed(page, **changes).status_code == 302
    assert AuthorizationServer.objects.values().get() != before


@pytest.mark.parametrize("ahead", [60, 3600, 10 * 365 * 24 * 3600])
def test_a_moment_of_the_future_confirms_nobody(
    stale: AdminBrowser, acme_server: AuthorizationServer, ahead: int
) -> None:
    """G10. The bug: what a process with a wrong clock had noted counted as recent until ten minutes after it."""
    stale.sign_in_again(seconds_ago=-ahead)
    page = address(AuthorizationServer, "change", acme_server)
    assert stale.send_changed(page, token_endpoint="https://login.acme.example/another").status_code == 200
    note_reauthentication(stale, time.time() + ahead)
    second_factor = stale.get("/admin/account/second-factor/totp/activate/")
    assert (second_factor.status_code, "reauthenticate" in second_factor["Location"]) == (302, True)
    stale.client.post("/admin/account/reauthenticate/", {"password": "acme-admin"}, secure=True)
    assert stale.get("/admin/account/second-factor/totp/activate/").status_code == 200


def note_reauthentication(browser: AdminBrowser, at: float) -> None:
    """Note it as allauth does; its own pages look at nothing else."""
    session = browser.client.session
    session["account_authentication_methods"] = [{"method": "password", "at": at, "reauthenticated": True}]
    session.save()


def test_clocks_of_two_processes_may_differ_a_little(stale: AdminBrowser, acme_server: AuthorizationServer) -> None:
    """G10: the one that noted it may be a few seconds ahead of the one that asks."""
    stale.sign_in_again(seconds_ago=-3)
    page = address(AuthorizationServer, "change", acme_server)
    assert stale.send_changed(page, token_endpoint="https://login.acme.example/another").status_code == 302


def test_the_rest_of_a_server_may_be_changed_without(stale: AdminBrowser, acme_server: AuthorizationServer) -> None:
    """G10: a lifetime or a scope sends nothing elsewhere."""
    page = address(AuthorizationServer, "change", acme_server)
    assert stale.send_changed(page, default_token_lifetime="1800").status_code == 302
    assert AuthorizationServer.objects.get().default_token_lifetime == 1800


def test_a_new_server_and_a_new_key_ask_too(stale: AdminBrowser, acme: Brand, acme_server: AuthorizationServer) -> None:
    """G10: a key is worth every token of the brand."""
    refused = stale.send_changed(address(BotKey, "add"), brand=acme.pk, label="fresh")
    assert (refused.status_code, BotKey.objects.count()) == (200, 0)
    values = {"brand": acme.pk, "key": "second", "client_secret": "typed", "client_id": "x"}
    endpoints = {"authorization_endpoint": "https://a.example/a", "token_endpoint": "https://a.example/t"}
    assert stale.send_changed(address(AuthorizationServer, "add"), **values, **endpoints).status_code == 200
    assert AuthorizationServer.objects.count() == 1
    stale.sign_in_again()
    assert stale.send_changed(address(BotKey, "add"), brand=acme.pk, label="fresh").status_code == 302
    assert BotKey.objects.count() == 1


def test_a_wrong_password_confirms_nothing(stale: AdminBrowser, acme_server: AuthorizationServer) -> None:
    """G10."""
    assert stale.client.post("/admin/account/reauthenticate/", {"password": "wrong"}, secure=True).status_code == 200
    page = address(AuthorizationServer, "change", acme_server)
    assert stale.send_changed(page, client_secret="typed").status_code == 200
