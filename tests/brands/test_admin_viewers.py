"""Every address of the admin, walked by a stranger and by viewers: a brand's viewer sees its rows and changes nothing.

The walk takes its addresses from the URL configuration, so that a new view cannot be forgotten (J8, J15).
"""

import html
import re
from datetime import timedelta
from typing import Any, Final

import pytest
import time_machine
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied
from django.db.models import Model
from django.http import Http404
from django.test import RequestFactory
from django.utils import timezone

from brands.models import AuthorizationServer, BotKey, Brand
from brands.scoped_admin import own_row_or_404
from conversations.models import AccessToken, AuthorizationRequest
from tests import snapshot
from tests.admin_pages import OURS, AdminBrowser, House, address, addresses_of_the_admin, filled_in, rows_of
from tests.cast import Bot, Browser

pytestmark = pytest.mark.django_db

Houses = tuple[House, House]
each_model = pytest.mark.parametrize("model", OURS, ids=lambda model: model.__name__)

# Sessions and counters change whenever somebody looks.
NOT_COMPARED: Final = {"django_session", "infrastructure_ratecounter"}


def member(name: str, *, views: list[Brand], administers: list[Brand]) -> AdminBrowser:
    user = get_user_model().objects.create_user(name, password=name, is_staff=True)
    user.viewed_brands.set(views)
    user.brands.set(administers)
    return AdminBrowser(user)


@pytest.fixture
def vera(houses: Houses) -> AdminBrowser:
    """Return the browser of Acme's viewer."""
    return member("vera", views=[houses[0].brand], administers=[])


@pytest.fixture
def both(houses: Houses) -> AdminBrowser:
    """Return the browser of somebody who views Acme and administers Rival."""
    return member("both", views=[houses[0].brand], administers=[houses[1].brand])


@pytest.fixture
def people(houses: Houses, vera: AdminBrowser, both: AdminBrowser) -> dict[str, AdminBrowser]:
    """Return everybody who may change nothing of Acme."""
    viewer_of_rival = member("victor", views=[houses[1].brand], administers=[])
    return {"viewer": vera, "both": both, "stranger": houses[1].admin, "viewer of Rival": viewer_of_rival}


def stored() -> dict[str, Any]:
    return {table: rows for table, rows in snapshot.stored().items() if table not in NOT_COMPARED}


def changed(before: dict[str, Any]) -> list[str]:
    return [table for table, rows in stored().items() if rows != before[table]]


def marks_on(page: Any, house: House) -> list[str]:
    text = page.content.decode()
    return [mark for mark in house.marks if mark in text]


def forms(house: House) -> dict[str, dict[str, Any]]:
    """Return what the house's admin would send of every form that they have, by its address."""
    sent = {}
    for model in OURS:
        for page in (address(model, "add"), address(model, "change", house.row(model))):
            shown = house.admin.get(page)
            if shown.status_code == 200 and shown.context["adminform"].form.fields:
                sent[page] = filled_in(shown.context["adminform"].form) | {"label": "changed", "name": "Changed"}
    return sent


def test_the_walk_knows_every_page_of_every_model(houses: Houses) -> None:
    """J8: a walk that finds nothing would prove nothing."""
    found = set(addresses_of_the_admin(houses[0]))
    for model in OURS:
        row = houses[0].row(model)
        pages = {address(model, page, row) for page in ("change", "history", "delete")}
        assert pages | {address(model, "changelist"), address(model, "add")} <= found
    assert {"/admin/", "/admin/autocomplete/", "/admin/brands/"} <= found


@pytest.mark.parametrize(
    "name", ["viewer", "both", "stranger", pytest.param("viewer of Rival", marks=pytest.mark.full)]
)
def test_nobody_but_its_admins_changes_anything_of_a_brand(
    houses: Houses, people: dict[str, AdminBrowser], name: str
) -> None:
    """J1, J8, J15: every address by GET and by POST, also with what the brand's admin would send."""
    acme, _ = houses
    sent = forms(acme)
    before = stored()
    for page in addresses_of_the_admin(acme):
        shown = people[name].get(page)
        assert shown.status_code in {200, 302, 400, 403, 404, 405}, page
        assert name in {"viewer", "both"} or marks_on(shown, acme) == [], page
        for data in ({"post": "yes"}, sent.get(page, {"_save": "x"})):
            assert people[name].post(page, data).status_code in {200, 302, 400, 403, 404, 405}, page
    assert changed(before) == []


def test_the_same_forms_are_saved_for_the_brands_admin(houses: Houses) -> None:
    """The walk above would also pass if no form could be saved by anybody."""
    acme, _ = houses
    sent = forms(acme)
    of_rows = {page: data for page, data in sent.items() if page.endswith("/change/")}
    assert len(of_rows) == 6
    assert {page: acme.admin.post(page, data).status_code for page, data in of_rows.items()} == dict.fromkeys(
        of_rows, 302
    )
    assert Brand.objects.get(pk=acme.brand.pk).name == "Changed"


@each_model
def test_a_viewer_sees_what_the_brands_admin_sees(houses: Houses, vera: AdminBrowser, model: type[Model]) -> None:
    """J15, J4: the same rows, filters and histories; nothing of another brand, and no page that changes something."""
    acme, rival = houses
    row = acme.row(model)
    lists = [browser.get(address(model, "changelist")).context["cl"] for browser in (vera, acme.admin)]
    assert [set(shown.queryset) for shown in lists] == [set(rows_of(model, acme.brand))] * 2
    choices = [[list(spec.choices(shown)) for spec in shown.filter_specs] for shown in lists]
    assert choices[0] == choices[1]
    for choice in (choice for spec in choices[0] for choice in spec):
        page = vera.client.get(address(model, "changelist") + choice["query_string"], secure=True)
        assert (page.status_code, marks_on(page, rival)) == (200, [])
    pages = [vera.get(address(model, page, row)) for page in ("change", "history")]
    assert [(page.status_code, marks_on(page, rival)) for page in pages] == [(200, [])] * 2
    assert vera.get(address(model, "add")).status_code == 403
    assert vera.get(address(model, "delete", row)).status_code == 403


@each_model
def test_a_viewers_page_has_nothing_to_press(houses: Houses, vera: AdminBrowser, model: type[Model]) -> None:
    """J15: no field, no button that saves, no action, no link that adds; also in a pop-up."""
    for page in (address(model, "change", houses[0].row(model)), address(model, "changelist")):
        for query in ({}, {"_popup": "1"}):
            text = vera.get(page, **query).content.decode()
            assert re.findall(r'name="(?:_save|_continue|_addanother|_saveasnew|action)"|class="addlink"', text) == []
    form = vera.get(address(model, "change", houses[0].row(model))).context["adminform"]
    shown = {name for fieldset in form for line in fieldset for field in line for name in [field.field["name"]]}
    assert shown & {"client_secret", "default_check", "logo", "remove_logo"} == set()
    assert not form.form.is_bound


def test_every_link_of_a_viewers_pages_opens(houses: Houses, vera: AdminBrowser) -> None:
    """J15: also of the note that nobody comes back, which led to a page that refuses viewers."""
    acme, _ = houses
    with time_machine.travel(timezone.now() - timedelta(minutes=10)):
        for number in range(3):
            Browser().begin(Bot(acme.bot.key, f"chat-{number}").challenge()["url"])
    AuthorizationRequest.objects.update(claimed_at=None)
    pages = [page for page in map(vera.get, addresses_of_the_admin(acme)) if page.status_code == 200]
    text = "".join(page.content.decode() for page in pages if page["Content-Type"].startswith("text/html"))
    links = set(re.findall(r'(?:href|formaction)="(/admin/[^"#]+)', text))
    assert "and none came back" in text
    assert len(links) > len(OURS)
    refused = [link for link in links if vera.get(html.unescape(link)).status_code in {403, 404, 500}]
    assert refused == []


@each_model
def test_a_viewer_runs_no_action(houses: Houses, people: dict[str, AdminBrowser], model: type[Model]) -> None:
    """J15, J6: alone, and as the admin of another brand, whose lists do have actions."""
    acme, rival = houses
    row, before = acme.row(model), stored()
    model_admin: Any = admin.site._registry[model]
    for action in (*model_admin.actions, "delete_selected"):
        for more in ({}, {"post": "yes"}):
            assert people["viewer"].run(model, action, row, **more).status_code == 403
            page = people["both"].run(model, action, row, **more)
            assert page.status_code == 200
        assert people["viewer"].run(model, action, row, select_across="1").status_code == 403
        assert changed(before) == []
        if action in model_admin.get_actions(people["both"].get("/admin/").wsgi_request):
            page = people["both"].run(model, action, row, rival.row(model))
            assert "you may only look at a selected row" in page.content.decode()
        assert changed(before) == []


def test_all_rows_of_all_pages_are_only_those_of_administered_brands(houses: Houses, both: AdminBrowser) -> None:
    """J15, J6: the box "select all" of a list that also shows rows of a viewed brand."""
    acme, rival = houses
    both.run(BotKey, "revoke_keys", rival.row(BotKey), select_across="1")
    both.run(AccessToken, "revoke_tokens", rival.row(AccessToken), select_across="1")
    assert rival.row(BotKey).revoked_at is not None
    assert rival.row(AccessToken).ended_at is not None
    assert acme.row(BotKey).revoked_at is None
    assert acme.row(AccessToken).ended_at is None


@each_model
def test_to_look_and_to_change_are_two_questions(houses: Houses, people: dict[str, AdminBrowser], model: Any) -> None:
    """J15: every model answers both, so that no view can ask the wrong one by lack of the right one."""
    acme, rival = houses
    objects = model._default_manager
    expected = {"viewer": (acme,), "both": (acme, rival), "stranger": (rival,), "viewer of Rival": (rival,)}
    changes = {"viewer": (), "both": (rival,), "stranger": (rival,), "viewer of Rival": ()}
    for name, browser in people.items():
        user = get_user_model().objects.get(pk=browser.user.pk)
        visible = {row for house in expected[name] for row in rows_of(model, house.brand)}
        assert set(objects.visible_to(user)) == visible
        assert set(objects.administered_by(user)) == {
            row for house in changes[name] for row in rows_of(model, house.brand)
        }


def test_whoever_is_both_at_one_brand_is_an_admin_there(houses: Houses) -> None:
    """J15."""
    acme, _ = houses
    acme.brand.viewers.add(acme.admin.user)
    assert acme.admin.send_changed(address(Brand, "change", acme.brand), name="Acme Ltd").status_code == 302
    assert acme.admin.get(address(BotKey, "changelist")).context["cl"].result_count == 1


def test_a_viewer_who_became_an_admin_and_back(houses: Houses, vera: AdminBrowser) -> None:
    """J15: from the next request on; a session holds nothing of it."""
    acme, _ = houses
    page = address(Brand, "change", acme.brand)
    acme.brand.admins.add(vera.user)
    assert vera.send_changed(page, name="Acme Ltd").status_code == 302
    acme.brand.admins.remove(vera.user)
    assert vera.post(page, {"name": "Vera"}).status_code == 403
    acme.brand.viewers.remove(vera.user)
    assert vera.get(page).status_code == 403


def test_the_operator_alone_decides_who_views_a_brand(
    houses: Houses, vera: AdminBrowser, operator: AdminBrowser
) -> None:
    """J7, G10: confirmed and audited, and no form of the brand's admin takes it."""
    acme, rival = houses
    page = address(Brand, "change", acme.brand)
    assert acme.admin.send_changed(page, viewers=[rival.admin.user.pk]).status_code == 302
    assert list(acme.brand.viewers.all()) == [vera.user]
    operator.sign_in_again(seconds_ago=11 * 60)
    assert operator.send_changed(page, viewers=[rival.admin.user.pk]).status_code == 200
    operator.sign_in_again()
    assert operator.send_changed(page, viewers=[rival.admin.user.pk]).status_code == 302
    assert list(acme.brand.viewers.all()) == [rival.admin.user]


def test_a_view_of_our_own_says_whether_it_changes_something(houses: Houses, people: dict[str, AdminBrowser]) -> None:
    """J1, J15: the one helper for views outside the model admins."""
    acme, _ = houses

    def outcome(browser: AdminBrowser, key: object, *, to_change: bool) -> object:
        request = RequestFactory().get("/")
        request.user = get_user_model().objects.get(pk=browser.user.pk)
        try:
            return own_row_or_404(AuthorizationServer, request, key, to_change=to_change)
        except (Http404, PermissionDenied) as refusal:
            return type(refusal)

    key = acme.server.pk
    reads = {name: outcome(browser, key, to_change=False) for name, browser in people.items()}
    assert reads == {"viewer": acme.server, "both": acme.server, "stranger": Http404, "viewer of Rival": Http404}
    changes = {name: outcome(browser, key, to_change=True) for name, browser in people.items()}
    assert changes == reads | {"viewer": PermissionDenied, "both": PermissionDenied}
    assert outcome(acme.admin, key, to_change=True) == acme.server
    assert [outcome(acme.admin, key, to_change=False) for key in ("x", "-1", "1 or 1", "9" * 30)] == [Http404] * 4
    acme.admin.user.is_staff = False
    acme.admin.user.save()
    assert outcome(acme.admin, key, to_change=False) is Http404


@pytest.mark.parametrize("name", ["viewer", "both", "stranger"])
def test_no_page_asks_the_database_often(
    houses: Houses, people: dict[str, AdminBrowser], name: str, django_assert_max_num_queries: Any
) -> None:
    """The memberships of a user are read once a request, however often a page asks what they may do."""
    browser, house = people[name], houses[1] if name == "stranger" else houses[0]
    browser.get("/admin/")  # content types, which a process reads once
    with django_assert_max_num_queries(8):
        browser.get("/admin/")
    for model in OURS:
        row = house.row(model)
        for page in (address(model, "changelist"), *(address(model, page, row) for page in ("change", "history"))):
            with django_assert_max_num_queries(15):
                assert browser.get(page).status_code == 200
