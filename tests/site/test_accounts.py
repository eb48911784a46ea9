"""Accounts of admins: the operator makes and changes them, confirmed and audited; each changes their own password."""

from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import TOTP, generate_totp_secret
from django.contrib.auth import get_user_model
from django.contrib.auth.models import User

from accounts.account_changes import NO_BRAND
from brands.models import Brand
from infrastructure import rate_limits
from infrastructure.models import AuditEvent
from tests.admin_pages import AdminBrowser, address
from tests.limits import pause

pytestmark = pytest.mark.django_db

ADD = "/admin/auth/user/add/"
OWN_PASSWORD = "/admin/password_change/"
PASSWORD = "a-long-planted-password-77"
NEW_ACCOUNT = {"username": "eve", "usable_password": "true", "password1": PASSWORD, "password2": PASSWORD}


@pytest.fixture
def stale(operator: AdminBrowser) -> AdminBrowser:
    """Return the operator's session, signed in eleven minutes ago."""
    operator.sign_in_again(seconds_ago=11 * 60)
    return operator


def new_password(user: Any) -> tuple[str, dict[str, str]]:
    url = f"/admin/auth/user/{user.pk}/password/"
    return url, {"usable_password": "true", "password1": PASSWORD, "password2": PASSWORD, "set-password": "x"}


def asks(answer: Any) -> bool:
    return answer.status_code == 200 and "Confirm that it is you" in answer.content.decode()


def events() -> list[tuple[str, str, str, str, Any]]:
    rows = AuditEvent.objects.filter(kind__startswith="admin.").order_by("pk")
    return [(event.kind, event.actor, event.outcome, event.changed_fields, event.brand_uuid) for event in rows]


def test_an_open_session_makes_no_account_for_itself(stale: AdminBrowser) -> None:
    """G10: Django's own page asked nobody."""
    assert asks(stale.post(ADD, NEW_ACCOUNT))
    assert not User.objects.filter(username="eve").exists()
    stale.sign_in_again()
    assert stale.post(ADD, NEW_ACCOUNT).status_code == 302
    eve = User.objects.get(username="eve")
    assert eve.check_password(PASSWORD)
    assert events() == [("admin.created", f"admin:{stale.user.pk}", f"admin:{eve.pk}", "", NO_BRAND)]


def test_an_open_session_makes_nobody_a_superuser(stale: AdminBrowser, acme_admin: Any, acme: Brand) -> None:
    """G10: confirmed it does, and the brand's admins can read that it did."""
    page = address(get_user_model(), "change", acme_admin)
    assert asks(stale.send_changed(page, is_superuser="on"))
    assert not User.objects.get(pk=acme_admin.pk).is_superuser
    stale.sign_in_again()
    assert stale.send_changed(page, is_superuser="on").status_code == 302
    assert User.objects.get(pk=acme_admin.pk).is_superuser
    expected = ("admin.changed", f"admin:{stale.user.pk}", f"admin:{acme_admin.pk}", "is_superuser", acme.uuid)
    assert events() == [expected]


def test_an_open_session_sets_nobodys_password(stale: AdminBrowser, acme_admin: Any, acme: Brand) -> None:
    """G10."""
    url, data = new_password(acme_admin)
    sent_back = stale.post(url, data)
    assert (sent_back.status_code, sent_back["Location"]) == (302, url)
    assert asks(stale.get(url))
    assert User.objects.get(pk=acme_admin.pk).check_password("acme-admin")
    stale.sign_in_again()
    assert stale.post(url, data | {"password2": "another"}).status_code == 200
    assert events() == []
    assert stale.post(url, data).status_code == 302
    assert User.objects.get(pk=acme_admin.pk).check_password(PASSWORD)
    assert events() == [
        ("admin.changed", f"admin:{stale.user.pk}", f"admin:{acme_admin.pk}", "password", acme.uuid),
    ]
    assert PASSWORD not in str(list(AuditEvent.objects.values()))


@pytest.mark.parametrize("what", ["account", "second factor"])
def test_an_open_session_deletes_neither_an_account_nor_a_second_factor(
    stale: AdminBrowser, acme_admin: Any, acme: Brand, what: str
) -> None:
    """G10: without the second factor a stolen password is enough. And there is no action that deletes many."""
    row = TOTP.activate(acme_admin, generate_totp_secret()).instance if what == "second factor" else acme_admin
    model = type(row)
    page = address(model, "delete", row)
    assert stale.post(page, {"post": "yes"})["Location"] == page
    assert asks(stale.get(page))
    stale.run(model, "delete_selected", row, post="yes")
    assert model._base_manager.filter(pk=row.pk).exists()
    stale.sign_in_again()
    stale.run(model, "delete_selected", row, post="yes")
    assert model._base_manager.filter(pk=row.pk).exists()
    before = f"admin:{acme_admin.pk}"
    assert stale.post(page, {"post": "yes"}).status_code == 302
    assert not model._base_manager.filter(pk=row.pk).exists()
    kind, changed = ("admin.changed", "second_factor") if model is Authenticator else ("admin.deleted", "")
    assert events() == [(kind, f"admin:{stale.user.pk}", before, changed, acme.uuid)]


def test_a_brands_admin_gets_to_no_account(acme_admin: Any, operator: AdminBrowser) -> None:
    """J7: not with a recent sign-in either."""
    browser = AdminBrowser(acme_admin)
    url, data = new_password(operator.user)
    assert [browser.post(ADD, NEW_ACCOUNT).status_code, browser.post(url, data).status_code] == [403, 403]
    assert operator.get("/admin/auth/user/abc/password/").status_code == 404
    assert operator.get("/admin/auth/group/").status_code == 404
    assert events() == []


@pytest.mark.usefixtures("one_window")
def test_guesses_at_ones_own_old_password_are_limited(acme_admin: Any, operator: AdminBrowser) -> None:
    """G10, G8: a stolen session could guess for ever, and the password is what confirms everything else."""
    browser = AdminBrowser(acme_admin)
    wrong = {"old_password": "wrong", "new_password1": PASSWORD, "new_password2": PASSWORD}
    right = wrong | {"old_password": "acme-admin"}
    for _ in range(rate_limits.PASSWORD_CHANGES_PER_ADMIN.times):
        assert browser.post(OWN_PASSWORD, wrong).status_code == 200
    limited = browser.post(OWN_PASSWORD, right)
    assert (limited.status_code, int(limited["Retry-After"]) >= 1) == (429, True)
    assert User.objects.get(pk=acme_admin.pk).check_password("acme-admin")
    assert operator.post(OWN_PASSWORD, wrong).status_code == 200
    assert browser.get(OWN_PASSWORD).status_code == 200
    pause()
    assert browser.post(OWN_PASSWORD, right)["Location"] == "/admin/password_change/done/"
    assert User.objects.get(pk=acme_admin.pk).check_password(PASSWORD)


def test_the_page_of_ones_own_password_is_for_those_who_are_signed_in(acme_admin: Any) -> None:
    browser = AdminBrowser(acme_admin)
    browser.client.logout()
    for send in (browser.get, browser.post):
        assert send(OWN_PASSWORD)["Location"] == f"/admin/login/?next={OWN_PASSWORD}"
