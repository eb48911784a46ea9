"""Who may open which page of the admin, and checks that apply to all of its pages."""

import re
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.db.models import Model
from django.test import Client

from brands.models import AuthorizationServer, Brand
from tests.admin_pages import OURS, AdminBrowser, House, address
from tests.cast import HOST

pytestmark = pytest.mark.django_db

Houses = tuple[House, House]
each_model = pytest.mark.parametrize("model", OURS, ids=lambda model: model.__name__)

# What the admin's Content-Security-Policy would stop: a script or style in the page, a style or handler attribute.
INLINE = re.compile(r"<script(?![^>]*\bsrc=)[^>]*>|<style|\sstyle=|\son[a-z]+=|javascript:")
FORM_PAGES = {"Brand", "AuthorizationServer", "BotKey", "WebhookEndpoint", "BrandAPI", "Operation"}


def texts_of(browser: AdminBrowser, pages: list[str]) -> list[tuple[str, str]]:
    return [(page, browser.get(page).content.decode()) for page in pages]


def pages_of(model: type[Model], house: House) -> list[str]:
    row = house.row(model)
    return [address(model, "changelist"), address(model, "change", row), address(model, "history", row)]


@each_model
def test_every_page_opens_for_its_admin_and_for_the_operator(
    houses: Houses, operator: AdminBrowser, model: type[Model]
) -> None:
    """J8: nothing is so well guarded that nobody can work."""
    for house in houses:
        for browser in (house.admin, operator):
            assert [browser.get(page).status_code for page in pages_of(model, house)] == [200, 200, 200]
    may_add = FORM_PAGES - {"Brand"}
    assert houses[0].admin.get(address(model, "add")).status_code == (200 if model.__name__ in may_add else 403)
    assert operator.get(address(model, "add")).status_code == (200 if model.__name__ in FORM_PAGES else 403)


@each_model
def test_nothing_is_deleted_by_hand(houses: Houses, operator: AdminBrowser, model: type[Model]) -> None:
    row = houses[0].row(model)
    for browser in (houses[0].admin, operator):
        assert browser.get(address(model, "delete", row)).status_code == 403
        assert browser.post(address(model, "delete", row), {"post": "yes"}).status_code == 403
    assert model._base_manager.filter(pk=row.pk).exists()


@each_model
def test_no_page_needs_what_its_policy_forbids(houses: Houses, operator: AdminBrowser, model: type[Model]) -> None:
    """H6: the admin runs with `script-src 'self'` and `style-src 'self'`."""
    pages = [*pages_of(model, houses[0]), "/admin/", "/admin/login/"]
    if model.__name__ in FORM_PAGES:
        pages.append(address(model, "add"))
    assert [(page, INLINE.findall(text)) for page, text in texts_of(operator, pages) if INLINE.search(text)] == []


@pytest.mark.parametrize("standing", ["staff without a brand", "member who is not staff", "former member"])
def test_who_administers_no_brand_sees_nothing(houses: Houses, standing: str) -> None:
    """J7."""
    user = get_user_model().objects.create_user("zoe", password="zoe", is_staff=standing != "member who is not staff")
    if standing != "staff without a brand":
        houses[0].brand.admins.add(user)
    if standing == "former member":
        houses[0].brand.admins.clear()
    zoe = AdminBrowser(user)
    pages = [page for model in OURS for page in (*pages_of(model, houses[0]), address(model, "add"))]
    answers = {page: zoe.get(page) for page in pages}
    statuses = {page: answer.status_code for page, answer in answers.items()}
    if standing == "member who is not staff":
        assert statuses == dict.fromkeys(pages, 302)
    else:
        # To somebody who may see no row, none is found; the history says so by going to the index.
        assert statuses == {page: 302 if page.endswith("/history/") else 403 for page in pages}
    text = zoe.get("/admin/").content.decode()
    assert [mark for mark in houses[0].marks if mark in text] == []


def test_nobody_sees_anything_without_signing_in(houses: Houses) -> None:
    browser = Client(SERVER_NAME=HOST)
    pages = [page for model in OURS for page in pages_of(model, houses[0])]
    for page in pages:
        answer = browser.get(page, secure=True)
        assert (answer.status_code, answer["Location"]) == (302, f"/admin/login/?next={page}")


def test_membership_is_all_that_a_brand_admin_needs(houses: Houses) -> None:
    """No Django permission has to be given, and none beyond the brand's rows follows."""
    acme, _ = houses
    assert acme.admin.user.get_all_permissions() == set()
    listed = {model["model"] for app in acme.admin.get("/admin/").context["app_list"] for model in app["models"]}
    assert listed == set(OURS)
    pages = [f"/admin/auth/user/{page}" for page in ("", "add/")]
    pages += [f"/admin/auth/user/{acme.admin.user.pk}/{page}/" for page in ("change", "history", "delete", "password")]
    assert {page: acme.admin.get(page).status_code for page in pages} == dict.fromkeys(pages, 403)


LOOK = ("accent_colour", "support_contact", "logo", "remove_logo")


def test_a_brand_admin_renames_the_brand_and_changes_nothing_else_of_it(houses: Houses) -> None:
    """J7: not the slug, not whether it is active, not who administers it."""
    acme, rival = houses
    forged = {"name": "Acme Ltd", "slug": "rival-2", "is_active": "", "admins": [rival.admin.user.pk]}
    forged |= {"viewers": [rival.admin.user.pk], "conversation_ids": "unique", "close_idle_after": "0"}
    form = acme.admin.get(address(Brand, "change", acme.brand))
    rare = {"token_read_purpose_required", "conversation_ids", "close_idle_after"}
    assert set(form.context["adminform"].form.fields) == {"name", *rare, *LOOK}
    answer = acme.admin.post(address(Brand, "change", acme.brand), forged)
    assert answer.status_code == 302
    brand = Brand.objects.get(pk=acme.brand.pk)
    assert (brand.name, brand.slug, brand.is_active) == ("Acme Ltd", "acme", True)
    assert list(brand.admins.all()) == [acme.admin.user]
    assert not brand.viewers.exists()


def test_the_operator_decides_who_administers_a_brand(houses: Houses, operator: AdminBrowser) -> None:
    """J7: the slug stays, since bots and configuration files name it."""
    acme, rival = houses
    answer = operator.send_changed(
        address(Brand, "change", acme.brand), slug="acme-2", is_active=[], admins=[rival.admin.user.pk]
    )
    assert answer.status_code == 302
    brand = Brand.objects.get(pk=acme.brand.pk)
    assert (brand.slug, brand.is_active, list(brand.admins.all())) == ("acme", False, [rival.admin.user])


def test_the_form_of_a_server_shows_every_field_that_can_be_set() -> None:
    """A new field of the model cannot be forgotten; the secret is set through its own write-only field."""
    model_admin: Any = admin.site._registry[AuthorizationServer]
    shown = {name for _, options in model_admin.fieldsets for name in options["fields"]}
    settable = {field.name for field in AuthorizationServer._meta.concrete_fields if field.editable}
    kept_elsewhere = {name for name in settable if name.endswith("_ciphertext")} | {"id"}
    assert settable - shown == kept_elsewhere
    assert shown - settable == {"client_secret", "default_check", "redirect_uri", "client_jwks_uri", "signing_keys"}
