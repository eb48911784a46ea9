"""With `REQUIRE_ADMIN_MFA`, a password alone opens nothing of the admin but the way to a second factor (G10)."""

import io
from collections.abc import Callable
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from allauth.mfa.totp.internal.auth import TOTP, generate_totp_secret
from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session
from django.core import mail
from django.core.cache import cache
from django.core.management import CommandError, call_command
from django.urls import clear_script_prefix, reverse, set_script_prefix

from accounts.account_changes import NO_BRAND
from brands.models import Brand
from infrastructure.models import AuditEvent
from tests.admin_pages import AdminBrowser, address, addresses_of_the_admin
from tests.cast import HOST
from tests.site.test_sign_in import SECOND_FACTOR, SignIn, code_for

pytestmark = pytest.mark.django_db

INDEX = "/admin/"
ENROL = SECOND_FACTOR
CONFIRM = f"{SECOND_FACTOR}reauthenticate/"
WHY = "a stolen password alone must not open anything here"
OPENED_BY_PASSWORD = "this session was opened with the password alone"


@pytest.fixture(autouse=True)
def required(settings: Any) -> None:
    settings.REQUIRE_ADMIN_MFA = True


@pytest.fixture
def acme_admin(acme: Brand) -> Any:
    """Return Acme's admin, with a number that looks otherwise where a session notes a half-finished sign-in."""
    make = get_user_model().objects.create_user
    user = make("acme-admin", password="acme-admin", is_staff=True, pk=1_234_567)
    acme.admins.add(user)
    return user


@pytest.fixture
def visitor(acme_admin: Any) -> SignIn:
    """Return the browser of Acme's admin, signed in with the password."""
    browser = SignIn()
    browser.sign_in()
    return browser


def enrol(browser: SignIn) -> str:
    """Set an authenticator app up through the pages; return its secret."""
    page = browser.get(f"{SECOND_FACTOR}totp/activate/")
    if page.status_code == 302:
        browser.post(page["Location"], password="acme-admin")
        page = browser.get(f"{SECOND_FACTOR}totp/activate/")
    secret: str = page.context["form"].secret
    data = {"code": code_for(secret), "csrfmiddlewaretoken": browser.client.cookies["__Host-csrf"].value}
    headers = {"Referer": f"https://{HOST}/"}
    done = browser.client.post(f"{SECOND_FACTOR}totp/activate/", data, secure=True, headers=headers)
    assert done.status_code == 302, done.content.decode()
    return secret


def forget_used_codes() -> None:
    """Let the code of this half minute be typed once more."""
    cache.clear()
    for app in Authenticator.objects.filter(type=Authenticator.Type.TOTP):
        app.data.pop("last_period", None)
        app.save()


def test_without_a_second_factor_everything_leads_to_enrolment(houses: Any) -> None:
    """G10: every address of the admin by GET and POST, whoever signs in; and the page says why in one sentence."""
    acme, _ = houses
    operator = AdminBrowser(get_user_model().objects.create_superuser("operator", password="operator"))
    pages = [
        *addresses_of_the_admin(acme),
        "/admin/login/",
        "/admin/account/login/",
        "/admin/nowhere/",
        "/admin/account/signup/",
    ]
    for browser in (acme.admin, operator):
        for send in (browser.get, browser.post):
            answers = {page: send(page) for page in pages}
            assert {page: (found.status_code, found["Location"]) for page, found in answers.items()} == dict.fromkeys(
                pages, (302, ENROL)
            )
    assert WHY in acme.admin.get(ENROL).content.decode()


def test_a_prefix_of_the_path_opens_nothing(acme_admin: Any, request: pytest.FixtureRequest) -> None:
    """G10: gunicorn takes a prefix of the path from a header of its proxy, and so from any client of a careless one.

    The path with its prefix does not begin with /admin/: no second factor was asked for, and no policy was sent.
    """
    browser, pages = AdminBrowser(acme_admin), (INDEX, address(Brand, "changelist"), "/admin/home.csv")
    set_script_prefix("/prefix/")  # as Django's WSGI handler does
    request.addfinalizer(clear_script_prefix)
    for page in pages:
        answer = browser.client.get(page, secure=True, SCRIPT_NAME="/prefix")
        assert (answer.status_code, answer["Location"]) == (302, f"/prefix{ENROL}")
        assert "script-src 'self'" in answer["Content-Security-Policy"]
    assert browser.client.get(ENROL, secure=True, SCRIPT_NAME="/prefix").status_code == 200


def test_a_form_that_was_open_is_not_lost_in_silence(visitor: SignIn, acme: Brand) -> None:
    """H10: a session that needs its second factor meanwhile is led away from the form that it sends, and told so."""
    page = address(Brand, "change", acme)
    lost = "Nothing was changed, and nothing that you typed is kept"
    assert lost not in visitor.get(ENROL).content.decode()
    assert visitor.post(page, name="Acme Ltd").status_code == 302
    assert lost in visitor.get(ENROL).content.decode()
    before = SignIn()
    before.sign_in()
    enrol(visitor)
    asked = before.post(page, name="Acme Ltd")["Location"]
    assert lost in before.get(asked).content.decode()
    assert Brand.objects.get(pk=acme.pk).name == "Acme"


def test_enrolment_stays_reachable(visitor: SignIn) -> None:
    """G10: the way to a second factor, to another password, and out."""
    index = visitor.get(INDEX)
    assert (index.status_code, index["Location"]) == (302, ENROL)
    page = visitor.get(ENROL).content.decode()
    assert WHY in page
    assert "Back to the admin" not in page
    confirm = visitor.get(f"{SECOND_FACTOR}totp/activate/")
    assert (confirm.status_code, WHY in visitor.get(confirm["Location"]).content.decode()) == (302, True)
    visitor.post(confirm["Location"], password="acme-admin")
    for reachable in (f"{SECOND_FACTOR}totp/activate/", f"{SECOND_FACTOR}webauthn/add/"):
        shown = visitor.get(reachable)
        assert (shown.status_code, WHY in shown.content.decode()) == (200, True)
    for reachable in ("/admin/password_change/", "/admin/account/logout/"):
        assert visitor.get(reachable).status_code == 200
    assert visitor.post("/admin/logout/").status_code == 200
    assert visitor.get(INDEX)["Location"].startswith("/admin/login/")


def test_whoever_enrols_goes_on_at_once(visitor: SignIn, acme_admin: Any) -> None:
    """G10: with the recovery codes on the page that follows, and without typing a second code."""
    enrol(visitor)
    codes = visitor.get(f"{SECOND_FACTOR}recovery-codes/")
    assert (codes.status_code, WHY in codes.content.decode()) == (200, False)
    assert "Back to the admin" in codes.content.decode()
    assert visitor.get(INDEX).status_code == 200


def test_a_sign_in_with_both_opens_everything(visitor: SignIn, acme_admin: Any, acme: Brand) -> None:
    """G10: with the app's code, or with a recovery code."""
    secret = enrol(visitor)
    forget_used_codes()
    recovery = Authenticator.objects.get(user=acme_admin, type="recovery_codes").wrap().get_unused_codes()[0]
    for code in (code_for(secret), recovery):
        another = SignIn()
        asked = another.sign_in()
        assert another.get(INDEX)["Location"].startswith("/admin/login/")
        assert another.post(asked["Location"], code=code).status_code == 302
        assert [another.get(page).status_code for page in (INDEX, address(Brand, "changelist"))] == [200, 200]


def test_a_session_from_before_the_enrolment_does_not_count(visitor: SignIn, acme_admin: Any) -> None:
    """G10: whoever stole the password waits at the enrolment until its owner has enrolled."""
    thief = SignIn()
    thief.sign_in()
    thief.post("/admin/account/reauthenticate/", password="acme-admin")
    secret = enrol(visitor)
    closed = [INDEX, address(Brand, "changelist"), ENROL, "/admin/password_change/", "/admin/account/reauthenticate/"]
    closed += [f"{SECOND_FACTOR}{page}/" for page in ("webauthn/add", "totp/deactivate", "recovery-codes")]
    for page in closed:
        for send in (thief.get, thief.post):
            answer = send(page)
            assert (answer.status_code, answer["Location"].split("?")[0]) == (302, CONFIRM), page
    asked = thief.get(address(Brand, "changelist"))["Location"]
    assert OPENED_BY_PASSWORD in thief.get(asked).content.decode()
    assert thief.post(CONFIRM, code="000000").status_code == 200
    assert thief.get(INDEX).status_code == 302
    assert thief.get("/admin/account/logout/").status_code == 200
    forget_used_codes()
    done = thief.post(CONFIRM, code=code_for(secret), next=address(Brand, "changelist"))
    assert (done.status_code, done["Location"]) == (302, address(Brand, "changelist"))
    assert thief.get(address(Brand, "changelist")).status_code == 200


def test_a_security_key_counts_as_well(acme_admin: Any) -> None:
    """G10: as a second factor that is there, and as the one that a session has used."""
    Authenticator.objects.create(user=acme_admin, type=Authenticator.Type.WEBAUTHN, data={})
    browser = AdminBrowser(acme_admin)
    asked = browser.get(INDEX)
    assert (asked.status_code, asked["Location"]) == (302, f"{SECOND_FACTOR}webauthn/reauthenticate/?next=%2Fadmin%2F")
    use(browser, method="mfa", type="webauthn", passwordless=True)
    assert browser.get(INDEX).status_code == 200


def use(browser: AdminBrowser, **record: Any) -> None:
    """Note a use in the session, as allauth does."""
    session = browser.client.session
    session["account_authentication_methods"] = [*session["account_authentication_methods"], {"at": 1.0, **record}]
    session.save()


def test_recovery_codes_alone_are_no_second_factor(acme_admin: Any) -> None:
    """G10: they are what is left when a factor is lost."""
    RecoveryCodes.activate(acme_admin)
    browser = AdminBrowser(acme_admin)
    use(browser, method="mfa", type="recovery_codes")
    assert browser.get(INDEX)["Location"] == ENROL


def test_another_users_use_does_not_count(acme_admin: Any, rival_admin: Any) -> None:
    """G10: of two people at one browser."""
    TOTP.activate(acme_admin, generate_totp_secret())
    browser = AdminBrowser(acme_admin)
    use(browser, method="mfa", type="totp")
    assert browser.get(INDEX).status_code == 200
    session = browser.client.session
    session["account_authentication_methods_user"] = str(rival_admin.pk)
    session.save()
    assert browser.get(INDEX)["Location"].startswith(CONFIRM)


def test_whoever_removes_the_last_one_enrols_again(visitor: SignIn, acme_admin: Any) -> None:
    """G10: from the next page on."""
    enrol(visitor)
    assert visitor.get(INDEX).status_code == 200
    assert visitor.post(f"{SECOND_FACTOR}totp/deactivate/").status_code == 302
    assert not Authenticator.objects.exists()
    assert visitor.get(INDEX)["Location"] == ENROL


def test_nothing_is_asked_where_it_is_off(visitor: SignIn, settings: Any) -> None:
    settings.REQUIRE_ADMIN_MFA = False
    assert visitor.get(INDEX).status_code == 200
    assert WHY not in visitor.get(ENROL).content.decode()


def test_consumers_and_bots_are_asked_nothing(visitor: SignIn) -> None:
    """G10: a browser that is signed in to the admin may also be a consumer's."""
    assert visitor.get("/c/nothing").status_code != 302
    assert visitor.get("/health/live").status_code == 200


def test_it_costs_a_page_one_query(acme_admin: Any, django_assert_max_num_queries: Any) -> None:
    TOTP.activate(acme_admin, generate_totp_secret())
    browser = AdminBrowser(acme_admin)
    use(browser, method="mfa", type="totp")
    browser.get(INDEX)
    with django_assert_max_num_queries(8):
        assert browser.get(INDEX).status_code == 200


def reset(name: str) -> str:
    call_command("reset_second_factor", name, stdout=(said := io.StringIO()))
    return said.getvalue()


def test_the_operator_resets_a_lost_factor(visitor: SignIn, acme_admin: Any, acme: Brand) -> None:
    """G10: audited for the brand's admins; every session of the account ends, and no other; its owner is told."""
    acme_admin.email = "ada@acme.example"
    acme_admin.save()
    enrol(visitor)
    half_way, other = SignIn(), AdminBrowser(get_user_model().objects.create_superuser("operator"))
    asked = half_way.sign_in()
    mail.outbox.clear()
    said = reset("acme-admin")
    assert said == (
        "The second factor of acme-admin is removed and the account is signed out. "
        "A mail says so to ada@acme.example.\n"
    )
    assert not Authenticator.objects.exists()
    event = AuditEvent.objects.get(kind="admin.changed")
    whose = f"admin:{acme_admin.pk}"
    assert (event.actor, event.outcome, event.changed_fields, event.brand_uuid) == (
        "operator", whose, "second_factor", acme.uuid,
    )  # fmt: skip
    assert visitor.get(INDEX)["Location"].startswith("/admin/login/")
    assert half_way.get(asked["Location"])["Location"] == reverse("account_login")
    assert [session.get_decoded()["_auth_user_id"] for session in Session.objects.all()] == [str(other.user.pk)]
    (letter,) = mail.outbox
    assert letter.to == ["ada@acme.example"]
    assert f"https://{HOST}{ENROL}" in letter.body
    again = SignIn()
    assert again.sign_in()["Location"] == INDEX
    assert again.get(INDEX)["Location"] == ENROL


@pytest.mark.parametrize("name", ["acme-admin", "nobody", "ACME-ADMIN"])
def test_nothing_to_reset_is_said(acme_admin: Any, name: str) -> None:
    with pytest.raises(CommandError, match=r"has no second factor|There is no account"):
        reset(name)
    assert not AuditEvent.objects.filter(kind="admin.changed").exists()


def test_the_reset_of_an_account_without_an_address_asks_to_tell_them(acme_admin: Any) -> None:
    TOTP.activate(acme_admin, generate_totp_secret())
    assert reset("acme-admin").endswith("No mail was sent: tell them yourself.\n")


def test_a_mail_server_that_is_down_takes_nothing_back(acme_admin: Any, settings: Any) -> None:
    """The operator reads it, and the factor is gone."""
    settings.EMAIL_BACKEND, settings.EMAIL_PORT = "django.core.mail.backends.smtp.EmailBackend", 1
    acme_admin.email = "ada@acme.example"
    acme_admin.save()
    TOTP.activate(acme_admin, generate_totp_secret())
    assert reset("acme-admin").endswith("No mail was sent: tell them yourself.\n")
    assert not Authenticator.objects.exists()


def test_a_viewers_lost_factor_is_read_by_the_brands_admins(acme: Brand) -> None:
    """G10, J15: the event is the brand's; of an account without a brand, it is the operator's."""
    vera, nobody = (get_user_model().objects.create_user(name, is_staff=True) for name in ("vera", "nobody"))
    acme.viewers.add(vera)
    for user in (vera, nobody):
        TOTP.activate(user, generate_totp_secret())
        reset(user.get_username())
    events = AuditEvent.objects.filter(kind="admin.changed").order_by("pk")
    assert [event.brand_uuid for event in events] == [acme.uuid, NO_BRAND]


def test_the_admins_page_that_deletes_a_factor_does_the_same(
    acme_admin: Any, settings: Any, django_capture_on_commit_callbacks: Callable[..., Any]
) -> None:
    """G10: the other way to take a factor away ends sessions and tells its owner, too."""
    settings.REQUIRE_ADMIN_MFA = False
    acme_admin.email = "ada@acme.example"
    acme_admin.save()
    factor = TOTP.activate(acme_admin, generate_totp_secret()).instance
    RecoveryCodes.activate(acme_admin)
    operator, theirs = AdminBrowser(get_user_model().objects.create_superuser("operator")), AdminBrowser(acme_admin)
    with django_capture_on_commit_callbacks(execute=True):
        assert operator.post(address(Authenticator, "delete", factor), {"post": "yes"}).status_code == 302
    assert theirs.get(INDEX)["Location"].startswith("/admin/login/")
    assert operator.get(INDEX).status_code == 200
    assert not Authenticator.objects.exists()  # the codes of the old factor are in the same stolen phone
    assert [letter.subject for letter in mail.outbox] == ["Your second factor was removed"]
