"""An admin of one brand opens every page of our model admins, and sees and changes nothing of another brand.

The models come from the admin's registry, so that no new one can be forgotten (J8).
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.admin.exceptions import DisallowedModelAdminLookup, DisallowedModelAdminToField
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, User
from django.core.exceptions import SuspiciousOperation
from django.db.models import Field, Model
from django.http import Http404, HttpRequest, QueryDict
from django.test import RequestFactory
from django.urls import resolve

from brands.models import AuthorizationServer, BotKey, BrandAPI, WebhookEndpoint
from brands.scoped_admin import BrandScopedAdmin
from tests.admin_pages import BRAND_OF, OURS, AdminBrowser, House, address

pytestmark = pytest.mark.django_db

Houses = tuple[House, House]
each_model = pytest.mark.parametrize("model", OURS, ids=lambda model: model.__name__)


def both_ways(houses: Houses) -> Iterator[tuple[House, House]]:
    """Yield owner and stranger: Rival's admin at Acme's rows, and the reverse."""
    acme, rival = houses
    yield acme, rival
    yield rival, acme


def shown_of(house: House, *pages: Any) -> list[str]:
    """Return the values of a house that any of these pages shows. Its marks cost a query for each model."""
    texts = [page.content.decode() for page in pages]
    return [mark for mark in house.marks if any(mark in text for text in texts)]


def refusal_of(view: Callable[[HttpRequest], object], request: HttpRequest) -> type[Exception] | None:
    """Return the class of the exception that Django answers with 400, without rendering that answer."""
    try:
        view(request)
    except SuspiciousOperation as refused:
        return type(refused)
    return None


def outcome(answer: Any) -> tuple[int, str | None]:
    return answer.status_code, answer.get("Location")


def stored(row: Any) -> dict[str, Any]:
    return type(row)._base_manager.filter(pk=row.pk).values().get()  # type: ignore[no-any-return]


def relations(model: type[Model]) -> list[Any]:
    return [field for field in model._meta.get_fields() if field.is_relation and field.concrete]


def lookups(model: type[Model], depth: int = 2, prefix: str = "") -> Iterator[str]:
    """Yield `field__startswith` for every column of a model and of its related models."""
    for field in model._meta.get_fields():
        if not isinstance(field, Field):
            continue
        if field.is_relation and field.related_model and depth:
            yield from lookups(field.related_model, depth - 1, f"{prefix}{field.name}__")
        else:
            yield f"{prefix}{field.name}__startswith"


def test_every_registered_model_is_either_walked_or_the_operators(houses: Houses, operator: AdminBrowser) -> None:
    """J8: whoever registers one of ours says whose its rows are; those of others are closed to brand admins."""
    assert set(OURS) == set(BRAND_OF)
    of_others = set(admin.site._registry) - set(OURS)
    assert User in of_others
    assert Group not in of_others  # nothing asks for one: membership of a brand is all there is
    for model in of_others:
        user = houses[0].admin.user
        pages = [address(model, "changelist"), address(model, "add")]
        pages += [address(model, page, user) for page in ("change", "history", "delete")] if model is User else []
        assert {page: houses[0].admin.get(page).status_code for page in pages} == dict.fromkeys(pages, 403)
        assert operator.get(pages[0]).status_code == 200
    assert [model for model in OURS if not isinstance(admin.site._registry[model], BrandScopedAdmin)] == []


@each_model
def test_a_list_shows_own_rows_alone_also_in_its_filters(houses: Houses, model: type[Model]) -> None:
    """J4, J7: with facets, which count, and in a pop-up."""
    for owner, stranger in both_ways(houses):
        queries: Any = ({}, {"_facets": "True"}, {"_popup": "1"}, {"_to_field": "id", "_popup": "1"})
        pages = [stranger.admin.get(address(model, "changelist"), **query) for query in queries]
        assert [page.status_code for page in pages] == [200] * 4
        assert [page for page in pages if page.context["cl"].result_count < 1] == []
        assert shown_of(owner, *pages) == []


@each_model
def test_a_strangers_row_is_not_found(houses: Houses, model: type[Model]) -> None:
    """J1: as if there were no such row, and nothing is changed."""
    for owner, stranger in both_ways(houses):
        row = owner.row(model)
        missing = model(pk=999_999_999)
        before = stored(row)
        for page in ("change", "history", "delete"):
            for send in (stranger.admin.get, stranger.admin.post):
                answer, of_none = send(address(model, page, row)), send(address(model, page, missing))
                assert outcome(answer) == outcome(of_none)
                assert outcome(answer) in {(302, "/admin/"), (403, None)}
        assert shown_of(owner, stranger.admin.get("/admin/")) == []
        assert stored(row) == before


@each_model
def test_nothing_is_added_to_another_brand(houses: Houses, model: type[Model]) -> None:
    """J2: neither does the form offer the other brand, nor does the post take it."""
    for owner, stranger in both_ways(houses):
        ours = [field for field in relations(model) if _is_ours(field) and field.editable]
        foreign = {field.name: owner.row(field.related_model).pk for field in ours}
        before = model._base_manager.count()
        form = stranger.admin.get(address(model, "add"))
        answer = stranger.admin.post(address(model, "add"), foreign)
        assert form.status_code == answer.status_code
        assert answer.status_code in {200, 403}
        assert shown_of(owner, form, answer) == []
        if answer.status_code == 200:
            errors = answer.context["adminform"].form.errors.as_data()
            codes = {name: errors[name][0].code for name in foreign}
            assert codes == dict.fromkeys(foreign, "invalid_choice")
        assert model._base_manager.count() == before


@each_model
def test_an_own_row_is_not_moved_to_another_brand(houses: Houses, model: type[Model]) -> None:
    """J2."""
    for owner, stranger in both_ways(houses):
        row = stranger.row(model)
        foreign = {field.name: owner.row(field.related_model).pk for field in relations(model) if _is_ours(field)}
        before = {f"{name}_id": stored(row)[f"{name}_id"] for name in foreign}
        page = stranger.admin.get(address(model, "change", row))
        form = page.context["adminform"].form
        assert set(form.fields) & set(foreign) == set()
        stranger.admin.post(address(model, "change", row), dict.fromkeys(form.fields, "x") | foreign)
        assert {name: stored(row)[name] for name in before} == before


def _is_ours(field: Any) -> bool:
    return field.related_model in OURS and not field.many_to_many


@each_model
def test_autocomplete_is_not_found(houses: Houses, operator: AdminBrowser, model: type[Model]) -> None:
    """J3. The bug: the name of a reverse relation, which any account could send, was a 500.

    The view is asked for every name. Its page, which is costly, for those that are not like the others.
    """
    names = [field.name for field in model._meta.get_fields()] + ["", "x", "pk", "\u0661", "9" * 5000]
    reverse_relations = [field.name for field in model._meta.get_fields() if not field.concrete]
    view = resolve("/admin/autocomplete/").func
    for browser in (houses[0].admin, operator):
        for name in names:
            query: dict[str, Any] = {"app_label": model._meta.app_label, "model_name": model._meta.model_name}
            query["field_name"] = name
            request = RequestFactory().get("/admin/autocomplete/", {"term": "", **query})
            request.user = browser.user
            with pytest.raises(Http404):
                view(request)
            if name in {*reverse_relations[:1], "x", "9" * 5000}:
                assert browser.get("/admin/autocomplete/", term="", **query).status_code == 404


@each_model
def test_only_listed_lookups_are_taken(houses: Houses, model: type[Model]) -> None:
    """J5: every other one is a 400, or it would be an oracle: `?digest__startswith=`.

    The list is asked for every lookup, and its page for some: a page of each costs twenty times as much.
    """
    acme, _ = houses
    of_pages = [next(lookups(model)), "brand__name__startswith", "admins__password__startswith", "nothing"]
    pages = {lookup: acme.admin.get(address(model, "changelist"), **{lookup: "a"}) for lookup in of_pages}
    assert {lookup: page.status_code for lookup, page in pages.items()} == dict.fromkeys(of_pages, 400)
    request, model_admin = pages["nothing"].wsgi_request, admin.site._registry[model]
    answers = {}
    for lookup in (*lookups(model), *of_pages):
        request.GET = QueryDict(f"{lookup}=a")
        answers[lookup] = refusal_of(model_admin.changelist_view, request)
    assert {lookup: refusal for lookup, refusal in answers.items() if refusal != DisallowedModelAdminLookup} == {}
    assert len(answers) > 5


@pytest.mark.parametrize(
    ("model", "lookup"),
    [
        (AuthorizationServer, "client_secret_ciphertext__startswith"),
        (AuthorizationServer, "brand__name__startswith"),
        (AuthorizationServer, "brand__admins__password__startswith"),
        (BotKey, "digest__startswith"),
        (BotKey, "brand__id__in"),
        (BotKey, "brand__isnull"),
    ],
)
def test_an_oracle_is_refused_for_the_operator_too(operator: AdminBrowser, model: type[Model], lookup: str) -> None:
    """J5."""
    assert operator.get(address(model, "changelist"), **{lookup: "a"}).status_code == 400


@each_model
def test_a_foreign_value_of_an_allowed_lookup_finds_nothing(houses: Houses, model: type[Model]) -> None:
    """J4."""
    for owner, stranger in both_ways(houses):
        foreign = {"brand__id__exact": owner.brand.pk, "authorization_server__id__exact": owner.server.pk}
        foreign["endpoint__id__exact"] = owner.row(WebhookEndpoint).pk
        foreign["api__id__exact"] = owner.row(BrandAPI).pk
        allowed: Any = admin.site._registry[model].allowed_lookups  # type: ignore[attr-defined]  # our own base
        asked = [{lookup: foreign[lookup]} for lookup in allowed if lookup in foreign]
        pages = [stranger.admin.get(address(model, "changelist"), **query) for query in asked]
        assert [page.status_code for page in pages] == [200] * len(asked)
        assert shown_of(owner, *pages) == []


@each_model
def test_a_column_cannot_be_chosen_as_the_target_of_a_pop_up(houses: Houses, model: type[Model]) -> None:
    """J6: `_to_field` would print any column's values into the page."""
    acme, _ = houses
    columns = [field.name for field in model._meta.concrete_fields if not field.primary_key]
    model_admin: Any = admin.site._registry[model]
    key = str(acme.row(model).pk)
    views = {
        address(model, "changelist"): model_admin.changelist_view,
        address(model, "change", acme.row(model)): lambda request: model_admin.change_view(request, key),
    }
    for page, view in views.items():
        answer = acme.admin.get(page, _popup=1, _to_field=columns[0])
        assert answer.status_code == 400
        request, answers = answer.wsgi_request, {}
        for name in columns:
            request.GET = QueryDict(f"_popup=1&_to_field={name}")
            answers[name] = refusal_of(view, request)
        assert {name: refusal for name, refusal in answers.items() if refusal != DisallowedModelAdminToField} == {}


@each_model
def test_actions_reach_own_rows_alone(houses: Houses, model: type[Model]) -> None:
    """J6: also where all rows of all pages are asked for, and for `delete_selected`, which nobody has."""
    for owner, stranger in both_ways(houses):
        row = owner.row(model)
        before, count = stored(row), model._base_manager.count()
        model_admin: Any = admin.site._registry[model]
        pages = [
            stranger.admin.run(model, action, row, **more)
            for action in (*model_admin.actions, "delete_selected")
            for more in ({}, {"select_across": "1"}, {"post": "yes"})
        ]
        assert {page.status_code for page in pages} == {200}
        assert shown_of(owner, *pages) == []
        assert (stored(row), model._base_manager.count()) == (before, count)


@each_model
def test_a_search_finds_own_rows_alone(houses: Houses, model: type[Model]) -> None:
    """J8."""
    for owner, stranger in both_ways(houses):
        if admin.site._registry[model].search_fields:
            found = stranger.admin.get(address(model, "changelist"), q=owner.bot.chat).context["cl"]
            assert found.result_count == 0
            found = stranger.admin.get(address(model, "changelist"), q=stranger.bot.chat).context["cl"]
            assert found.result_count >= 1


def test_recent_actions_are_ones_own(houses: Houses) -> None:
    """J6."""
    for owner, stranger in both_ways(houses):
        url = address(AuthorizationServer, "change", owner.server)
        assert owner.admin.send_changed(url, client_id="changed").status_code == 302
        assert LogEntry.objects.filter(user=owner.admin.user).count() == 1
        assert shown_of(owner, stranger.admin.get("/admin/")) == []
        assert shown_of(owner, owner.admin.get("/admin/")) != []
