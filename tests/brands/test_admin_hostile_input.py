"""Hostile input to the admin: each gives an error at its field or a 400, never a 500."""

import re
from typing import Any

import pytest

from brands.configuration_file import ConfigurationRefused, apply_configuration, read_configuration
from brands.models import AuthorizationServer, BotKey, Brand
from brands.server_rules import HOST_FIELDS
from tests.admin_pages import AdminBrowser, House, address, addresses_of_the_admin
from tests.cast import make_server

pytestmark = pytest.mark.django_db

# urllib's reader raises ValueError for both; the second one's slash is a letter that becomes one.
NO_ADDRESSES = ["https://[::1", "https://login.acme.example\uff0fx"]
PARAMETERS = "extra_authorization_parameters"


@pytest.fixture
def browser(acme_admin: Any) -> AdminBrowser:
    return AdminBrowser(acme_admin)


def errors_of(answer: Any) -> dict[str, list[str]]:
    assert answer.status_code == 200
    return {name: list(messages) for name, messages in answer.context["adminform"].form.errors.items()}


@pytest.mark.parametrize("url", NO_ADDRESSES)
@pytest.mark.parametrize("field", HOST_FIELDS)
def test_an_address_that_cannot_be_read_is_a_mistake_at_its_field(
    browser: AdminBrowser, acme_server: AuthorizationServer, field: str, url: str
) -> None:
    """N1: its host was asked for before anybody had found it bad, and the page was a 500."""
    page = address(AuthorizationServer, "change", acme_server)
    assert field in errors_of(browser.send_changed(page, **{field: url}))
    acme_server.refresh_from_db()
    assert getattr(acme_server, field) != url


@pytest.mark.parametrize("url", NO_ADDRESSES)
@pytest.mark.parametrize("field", ["token_endpoint", "issuer"])
def test_a_file_with_such_an_address_is_refused_by_name(acme: Brand, field: str, url: str) -> None:
    """N1: new or not; the command ended with a traceback."""
    endpoints = {name: f"https://login.acme.example/{name}" for name in ("authorization_endpoint", "token_endpoint")}
    values = {"key": "orders", "client_id": "x", "client_secret": "a-secret", "prompt": ""} | endpoints | {field: url}
    lines = [f'{name} = "{value}"' for name, value in values.items()]
    text = "\n".join(['[brand]\nslug = "acme"\nname = "Acme"\n[[authorization_servers]]', *lines])
    for _ in range(2):
        with pytest.raises(ConfigurationRefused) as refused:
            apply_configuration(read_configuration(text), {})
        assert f"authorization_servers.orders.{field}" in {problem.split(": ")[0] for problem in refused.value.problems}
        if not AuthorizationServer.objects.exists():
            make_server(acme)


@pytest.mark.parametrize(
    "typed",
    [
        "[" * 3000,
        '{"a":' * 3000,
        "[" * 400 + "]" * 400,
        '{"a": ' + "9" * 5000 + "}",
        '{"a": "\\ud800"}',
        '{"\\ud800": "a"}',
        '{"a": NaN}',
        '{"a": ["b"]}',
        '"text"',
        "7",
        "\x00",
    ],
    ids=lambda typed: repr(typed[:12]),
)
def test_json_that_is_no_parameters_is_a_mistake_at_its_field(
    browser: AdminBrowser, acme_server: AuthorizationServer, typed: str
) -> None:
    """B20: nested too deep, a number too long, half a character: each was a 500, some while shown again."""
    page = address(AuthorizationServer, "change", acme_server)
    # The form carries what it began with, which anybody can change too.
    answer = browser.send_changed(page, **{PARAMETERS: typed, f"initial-{PARAMETERS}": typed})
    assert list(errors_of(answer)) == [PARAMETERS]
    assert answer.context["adminform"].form[PARAMETERS].value() == typed
    acme_server.refresh_from_db()
    assert acme_server.extra_authorization_parameters == {}


@pytest.mark.parametrize("name", ["a\\u0000", "\\ud800", "a b", "é", "", '\\"'])
def test_a_description_of_what_cannot_be_a_scope_is_a_mistake_at_its_field(
    browser: AdminBrowser, acme_server: AuthorizationServer, name: str
) -> None:
    """The bug: PostgreSQL cannot store every name that JSON can write, and the page was a 500."""
    typed = f'{{"{name}": "see your orders"}}'
    answer = browser.send_changed(address(AuthorizationServer, "change", acme_server), scope_descriptions=typed)
    assert list(errors_of(answer)) == ["scope_descriptions"]


def test_parameters_are_shown_again_as_they_were_typed(browser: AdminBrowser, acme_server: AuthorizationServer) -> None:
    page = address(AuthorizationServer, "change", acme_server)
    typed = '{ "audience":  "orders", "ui_locales": "dé" }'
    refused = browser.send_changed(page, **{PARAMETERS: typed}, max_age="-1")
    assert list(errors_of(refused)) == ["max_age"]
    assert refused.context["adminform"].form[PARAMETERS].value() == typed
    assert browser.send_changed(page, **{PARAMETERS: typed}).status_code == 302
    acme_server.refresh_from_db()
    assert acme_server.extra_authorization_parameters == {"audience": "orders", "ui_locales": "dé"}


@pytest.mark.parametrize("key", ["abc", "\x00", "1\x00", "-1", "1.5", "9" * 19, "9" * 5000, "", "\u0661"])
@pytest.mark.parametrize(("model", "action"), [(BotKey, "revoke_keys"), (AuthorizationServer, "check_set_up")])
def test_a_selected_row_that_is_no_key_is_a_bad_request(
    browser: AdminBrowser, model: type[Any], action: str, key: str
) -> None:
    """J2: the database was asked for it as it was."""
    data = {"action": action, "_selected_action": ["1", key], "index": "0"}
    assert browser.post(address(model, "changelist"), data).status_code == 400


# Whoever is signed in can send these to any address of the admin.
HOSTILE = ("x", "9" * 19, "[", "2020-13-45")
PARAMETERS_OF_PAGES = (
    *("p", "o", "q", "_popup", "_to_field", "_changelist_filters", "state", "brand", "period"),
    *("brand__id__exact", "endpoint__id__exact", "since", "at", "expires_at", "scopes"),
)
_NUMBERED = tuple(enumerate(PARAMETERS_OF_PAGES))
HOSTILE_FORMS: tuple[dict[str, Any], ...] = (
    {"_saveasnew": "1"},
    {"_discover": "1"},
    {"_save": "1", "form-TOTAL_FORMS": "x"},
    {"action": "x", "index": "99"},
    {"action": ["a", "b"], "index": "-1", "select_across": "x"},
    {"action": "delete_selected", "_selected_action": ["1"], "index": "x"},
    {"token": ["x", "9" * 30, "-1"]},
    {"admins": ["9" * 19], "name": "Acme", "_save": "1"},
    {"_popup": "1", "_to_field": "x"},
    {"name": "a\x00b"},
)


@pytest.mark.timeout(300)  # about 600 forms
@pytest.mark.parametrize("sent", ["queries", "forms"])
@pytest.mark.parametrize("name", [pytest.param("viewer", marks=pytest.mark.full), "operator"])
def test_no_page_fails_whatever_is_sent(
    houses: tuple[House, House], operator: AdminBrowser, django_user_model: Any, name: str, sent: str
) -> None:
    """J8: every address of the admin, with values that no page of ours sends.

    The bugs: a date that is none in the query of a new key's form, "save as new" for a brand, and an account's key of
    19 digits were each a 500.
    """
    acme = houses[0]
    viewer = django_user_model.objects.create_user("vera", is_staff=True)
    acme.brand.viewers.add(viewer)
    browser = {"viewer": AdminBrowser(viewer), "operator": operator}[name]
    browser.client.raise_request_exception = False
    pages = [page for page in addresses_of_the_admin(acme) if not page.endswith(("/delete/", "/history/"))]
    if sent == "queries":
        varied = [page for page in pages if not re.search("[0-9]", page)]
        asked = [(page, {key: HOSTILE[number % len(HOSTILE)]}) for page in varied for number, key in _NUMBERED]
        asked += [(page, dict.fromkeys(PARAMETERS_OF_PAGES, "x")) for page in pages]
        failed = [(page, str(query)[:80]) for page, query in asked if browser.get(page, **query).status_code >= 500]
    else:
        posted = [(page, form) for page in pages for form in HOSTILE_FORMS]
        failed = [(page, str(form)[:80]) for page, form in posted if browser.post(page, form).status_code >= 500]
    assert failed == []


@pytest.mark.parametrize("value", ["x", "-1", "9" * 19, "2020-13-45", "[", ""])
def test_a_link_fills_in_no_form(browser: AdminBrowser, acme_server: AuthorizationServer, value: str) -> None:
    """G10: a link of a stranger could fill in an issuer; and a date that is none was a 500."""
    for model, name in ((BotKey, "expires_at"), (AuthorizationServer, "issuer")):
        page = browser.get(address(model, "add"), **{name: value})
        assert page.status_code == 200
        assert not page.context["adminform"].form[name].value()


@pytest.mark.parametrize("key", ["9" * 19, "9" * 5000, "x", "\u0661", "-1"])
def test_an_account_that_is_no_key_is_a_mistake_at_its_field(acme: Brand, operator: AdminBrowser, key: str) -> None:
    """J7: the database was asked for it as it was."""
    for name in ("admins", "viewers"):
        assert list(errors_of(operator.send_changed(address(Brand, "change", acme), **{name: [key]}))) == [name]


def test_save_as_new_is_a_bad_request(browser: AdminBrowser, operator: AdminBrowser, acme: Brand) -> None:
    """J6: no form has that button, and a brand's page failed for want of a row."""
    for who in (browser, operator):
        assert who.send_changed(address(Brand, "change", acme), _saveasnew="1").status_code == 400
