"""A brand's APIs and operations in the admin: who may declare what, and what a new host means."""

import html
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core import mail
from django.utils import timezone

from brands.audited_changes import save_audited
from brands.models import AuthorizationServer, BotKey, Brand, BrandAPI, Operation
from infrastructure.models import AuditEvent
from tests.admin_pages import AdminBrowser, address
from tests.cast import declare_api, declare_operation, make_server

pytestmark = pytest.mark.django_db

ID_IN_PATH = '[{"name": "id", "in": "path", "required": true, "schema": {"type": "string"}}]'


@pytest.fixture
def browser(acme_admin: Any) -> AdminBrowser:
    return AdminBrowser(acme_admin)


@pytest.fixture
def bea(acme: Brand) -> None:
    """Another admin of Acme, who is told of what Ada does."""
    acme.admins.add(get_user_model().objects.create_user("bea", email="bea@acme.example", is_staff=True))


@pytest.fixture
def api(acme_server: AuthorizationServer) -> BrandAPI:
    return declare_api(acme_server, host_since=timezone.now() - timedelta(days=1))


def errors_of(answer: Any) -> dict[str, list[str]]:
    assert answer.status_code == 200
    errors = answer.context["adminform"].form.errors.as_data()
    return {name: [error.code for error in found] for name, found in errors.items()}


def change(browser: AdminBrowser, row: Any, **changes: Any) -> Any:
    return browser.send_changed(address(type(row), "change", row), **changes)


def events() -> list[tuple[str, Any]]:
    rows = AuditEvent.objects.filter(kind__startswith="brand_api").order_by("id")
    return list(rows.values_list("kind", "changed_values"))


def test_an_api_is_added_audited_and_mailed(
    browser: AdminBrowser, bea: None, acme_server: AuthorizationServer, django_capture_on_commit_callbacks: Any
) -> None:
    """N8, P16: from now on tokens go to this host. The brand is the server's, and a slash at the end is dropped."""
    with django_capture_on_commit_callbacks(execute=True):
        answer = browser.send_changed(
            address(BrandAPI, "add"), key="orders-api", base_url="https://api.acme.example/secret-path/"
        )
    assert answer.status_code == 302
    api = BrandAPI.objects.get()
    assert (api.brand, api.base_url) == (acme_server.brand, "https://api.acme.example/secret-path")
    assert events() == [
        ("brand_api.created", None),
        ("brand_api.host_changed", {"base_url": ["", "api.acme.example"]}),
    ]
    (letter,) = mail.outbox
    assert (letter.to, letter.subject) == (["bea@acme.example"], "Acme: access tokens are sent to api.acme.example")
    assert "secret-path" not in letter.body + repr(list(AuditEvent.objects.values()))


@pytest.mark.parametrize(
    ("base_url", "shown"),
    [
        ("https://rival.example/v1", "rival.example"),
        ("https://localhost/v1", "localhost"),
        ("https://localhost:8443/v1", "localhost:8443"),
        ("http://localhost/v1", "http://localhost:80"),
    ],
)
def test_a_new_host_gets_no_older_token(
    browser: AdminBrowser, bea: None, api: BrandAPI, base_url: str, shown: str, django_capture_on_commit_callbacks: Any
) -> None:
    """P2, N8: a change of scheme, host or port counts from now, is audited with both, and is mailed."""
    before = timezone.now()
    with django_capture_on_commit_callbacks(execute=True):
        answer = change(browser, api, base_url=base_url)
    assert answer.status_code == 302
    api.refresh_from_db()
    assert before <= api.host_since <= timezone.now()
    assert events()[-1] == ("brand_api.host_changed", {"base_url": ["api.acme.example", shown]})
    assert [letter.subject for letter in mail.outbox] == [f"Acme: access tokens are sent to {shown}"]
    assert "The host is new" in browser.get("/admin/").content.decode()


@pytest.mark.parametrize(
    "base_url", ["https://api.acme.example/v2", "https://api.acme.example:443/v1", "https://API.acme.example/v1"]
)
def test_another_path_of_the_host_is_no_new_host(
    browser: AdminBrowser, api: BrandAPI, base_url: str, django_capture_on_commit_callbacks: Any
) -> None:
    """P2."""
    since = api.host_since
    with django_capture_on_commit_callbacks(execute=True):
        assert change(browser, api, base_url=base_url).status_code == 302
    api.refresh_from_db()
    assert (api.base_url, api.host_since) == (base_url, since)
    assert (mail.outbox, [kind for kind, _ in events()]) == ([], ["brand_api.changed"])


def test_a_suffix_and_the_member_that_names_the_host_are_audited_and_mailed(
    browser: AdminBrowser, bea: None, api: BrandAPI, django_capture_on_commit_callbacks: Any
) -> None:
    """P2, N8."""
    since = api.host_since
    AuthorizationServer.objects.update(token_response_members=["instance_url"])
    with django_capture_on_commit_callbacks(execute=True):
        answer = change(browser, api, base_url="https://*.my.salesforce.com/v1", host_member="instance_url")
    assert answer.status_code == 302
    values = {"base_url": ["api.acme.example", "*.my.salesforce.com"], "host_member": ["", "instance_url"]}
    assert events()[-1] == ("brand_api.host_changed", values)
    assert BrandAPI.objects.get().host_since > since
    (letter,) = mail.outbox
    assert letter.subject == "Acme: access tokens are sent to *.my.salesforce.com"
    assert "The token response's member instance_url says which host it is." in letter.body


def test_a_host_that_was_left_is_new_again(api: BrandAPI) -> None:
    """P2: what was issued meanwhile was not issued for it."""
    first = api.base_url
    for base_url in ("https://rival.example", first):
        api.base_url = base_url
        save_audited(api)
    assert timezone.now() - BrandAPI.objects.get().host_since < timedelta(minutes=1)


def test_a_form_that_was_open_meanwhile_does_not_bring_an_old_moment_back(api: BrandAPI) -> None:
    """P2. The bug: two admins type the same new host, and the second save writes the moment of the old one."""
    stale = BrandAPI.objects.get()
    api.base_url = stale.base_url = "https://rival.example"
    save_audited(api)
    save_audited(stale)
    assert BrandAPI.objects.get().host_since == api.host_since


def test_switching_on_is_told_and_switching_off_is_not(
    browser: AdminBrowser, bea: None, api: BrandAPI, django_capture_on_commit_callbacks: Any
) -> None:
    """N8: otherwise one that was added while it was off would be noticed by nobody."""
    for is_active, told in (([], 0), (["on"], 1)):
        with django_capture_on_commit_callbacks(execute=True):
            assert change(browser, api, is_active=is_active).status_code == 302
        assert len(mail.outbox) == told


@pytest.mark.parametrize(
    ("changes", "is_refused"),
    [
        ({"base_url": "https://rival.example"}, True),
        ({"base_url": "https://api.acme.example/v2"}, True),
        ({"base_url": "https://*.acme.example", "host_member": "instance_url"}, True),
        ({"is_active": []}, False),
        ({}, False),
    ],
)
def test_where_tokens_go_changes_after_a_recent_sign_in_only(
    browser: AdminBrowser, api: BrandAPI, changes: dict[str, Any], is_refused: bool
) -> None:
    """G10, P16. Switching off is always possible: the mail about a strange change asks for it."""
    AuthorizationServer.objects.update(token_response_members=["instance_url"])
    browser.sign_in_again(seconds_ago=3600)
    answer = change(browser, api, **changes)
    assert answer.status_code == (200 if is_refused else 302)
    if is_refused:
        assert errors_of(answer) == {"__all__": ["recent_sign_in_needed"]}


def test_adding_and_switching_on_need_a_recent_sign_in(browser: AdminBrowser, api: BrandAPI) -> None:
    """G10."""
    BrandAPI.objects.update(is_active=False)
    browser.sign_in_again(seconds_ago=3600)
    new = browser.send_changed(address(BrandAPI, "add"), key="new", base_url="https://rival.example")
    assert errors_of(new) == errors_of(change(browser, api, is_active=["on"])) == {"__all__": ["recent_sign_in_needed"]}
    assert BrandAPI.objects.values_list("key", "is_active").get() == ("orders-api", False)


@pytest.mark.parametrize(
    ("typed", "errors"),
    [
        ({"key": "orders-api"}, {"key": ["unique_together"]}),
        ({"key": "Orders"}, {"key": ["invalid_slug"]}),
        ({"base_url": ""}, {"base_url": ["required"]}),
        ({"base_url": "https://10.0.0.1/"}, {"base_url": ["endpoint_ip_address"]}),
        ({"base_url": "https://api.acme.example/v1?key=1"}, {"base_url": ["base_url_query"]}),
        ({"authorization_server": ""}, {"authorization_server": ["required"]}),
        ({"base_url": "https://*.my.salesforce.com"}, {"host_member": ["required"]}),
        ({"host_member": "instance_url"}, {"host_member": ["no_suffix"]}),
        ({"base_url": "https://*.acme.example", "host_member": "instance"}, {"host_member": ["undeclared_member"]}),
        ({"base_url": "https://*.com", "host_member": "instance_url"}, {"base_url": ["short_suffix"]}),
        (
            {"base_url": "https://*.acme[.example", "host_member": ""},
            {"base_url": ["endpoint_malformed"], "host_member": ["required"]},
        ),
    ],
)
def test_a_wrong_api_is_explained_at_its_field(
    browser: AdminBrowser, api: BrandAPI, typed: dict[str, Any], errors: dict[str, list[str]]
) -> None:
    AuthorizationServer.objects.update(token_response_members=["instance_url"])
    right = {"key": "second", "base_url": "https://api.acme.example"}
    assert errors_of(browser.send_changed(address(BrandAPI, "add"), **right | typed)) == errors


def test_an_api_stays_with_its_server(acme: Brand, api: BrandAPI) -> None:
    """P16: tokens of the other server were issued before it had this host."""
    api.authorization_server = make_server(acme, "second")
    with pytest.raises(Exception, match="An API stays with its authorization server"):
        api.full_clean(exclude={"brand"})


def add_operation(browser: AdminBrowser, **typed: Any) -> Any:
    return browser.send_changed(
        address(Operation, "add"), **{"name": "orders.read", "method": "GET", "path": "/orders"} | typed
    )


def test_an_operation_is_declared(browser: AdminBrowser, api: BrandAPI) -> None:
    typed = {"path": "/orders/{id}", "parameters": ID_IN_PATH, "scope": "orders.read", "method": "PUT"}
    typed |= {"description": "change an order", "body_schema": '{"type": "object"}', "is_body_required": "on"}
    assert add_operation(browser, **typed).status_code == 302
    operation = Operation.objects.get()
    assert (operation.brand, operation.api, operation.is_active) == (api.brand, api, True)
    assert (operation.description, operation.body_schema) == ("change an order", {"type": "object"})
    assert operation.parameters[0]["name"] == "id"
    assert AuditEvent.objects.filter(object_uuid=operation.uuid).values_list("kind").get() == ("operation.created",)


def test_an_unchanged_form_changes_nothing(browser: AdminBrowser, api: BrandAPI) -> None:
    """An empty schema stays no body, and a description in several languages stays one."""
    operation = declare_operation(api, description={"en": "see your orders", "he": "לראות"})
    assert change(browser, operation).status_code == 302
    assert not AuditEvent.objects.filter(kind__startswith="operation").exists()


@pytest.mark.parametrize(
    ("typed", "stored"),
    [
        ("", {}),
        (" see your orders ", "see your orders"),
        ("en: see your orders", {"en": "see your orders"}),
        ("en: see your orders\r\n\r\nde: Bestellungen sehen", {"en": "see your orders", "de": "Bestellungen sehen"}),
        ("see: your orders", "see: your orders"),
    ],
)
def test_words_are_typed_as_one_text_or_a_line_for_each_language(
    browser: AdminBrowser, api: BrandAPI, typed: str, stored: Any
) -> None:
    assert add_operation(browser, description=typed).status_code == 302
    assert Operation.objects.get().description == stored


@pytest.mark.parametrize(
    ("typed", "errors"),
    [
        ({"name": "orders list"}, {"name": ["invalid_operation_name"]}),
        ({"name": "orders.list"}, {"name": ["unique_together"]}),
        ({"path": "/orders/../admin"}, {"path": ["path_with_dots"]}),
        ({"path": "/orders/{id}"}, {"parameters": ["path_parameter_not_declared"]}),
        ({"parameters": ID_IN_PATH}, {"parameters": ["path_parameter_not_used"]}),
        ({"parameters": '[{"name": "Cookie", "in": "header"}]'}, {"parameters": ["header_not_declarable"]}),
        ({"parameters": "{"}, {"parameters": ["invalid"]}),
        ({"parameters": "[" * 100_000}, {"parameters": ["invalid"]}),
        ({"parameters": f"[{'1' * 5_000}]"}, {"parameters": ["invalid"]}),
        ({"parameters": '[{"name": "\\ud800", "in": "query"}]'}, {"parameters": ["invalid_name"]}),
        ({"body_schema": '{"pattern": "a"}', "method": "POST"}, {"body_schema": ["keyword_not_declarable"]}),
        ({"body_schema": '{"const": "\\u0000"}', "method": "POST"}, {"body_schema": ["invalid_schema"]}),
        ({"body_schema": "{}"}, {"body_schema": ["no_body_allowed"]}),
        ({"body_schema": "true", "method": "POST"}, {"body_schema": ["invalid_schema"]}),
        ({"is_body_required": "on"}, {"is_body_required": ["no_body_schema"]}),
        ({"scope": "a  b"}, {"scope": ["invalid_scope"]}),
        ({"method": "TRACE"}, {"method": ["invalid_choice"]}),
        ({"description": "x" * 81}, {"description": ["invalid_description"]}),
        ({"description": "en: see\nno language"}, {"description": ["invalid_description"]}),
    ],
)
def test_a_wrong_operation_is_explained_at_its_field(
    browser: AdminBrowser, api: BrandAPI, typed: dict[str, Any], errors: dict[str, list[str]]
) -> None:
    """Whatever is typed comes back as it was typed (H10)."""
    declare_operation(api, "orders.list")
    answer = add_operation(browser, **typed)
    assert errors_of(answer) == errors
    ((name, value), *_) = typed.items()
    assert name == "is_body_required" or value in html.unescape(answer.content.decode())


def test_operations_are_switched_together(browser: AdminBrowser, api: BrandAPI) -> None:
    rows = [declare_operation(api, name) for name in ("orders.list", "orders.other")]
    assert "2 operations switched off." in browser.run(Operation, "switch_off", *rows).content.decode()
    assert not Operation.objects.filter(is_active=True).exists()
    assert (
        "1 operation switched on."
        in browser.run(Operation, "switch_on", rows[0], query="?state=inactive").content.decode()
    )
    kinds = AuditEvent.objects.filter(kind__startswith="operation").values_list("changed_values", flat=True)
    assert list(kinds.order_by("id")) == [{"is_active": [True, False]}] * 2 + [{"is_active": [False, True]}]


def test_words_of_operations_describe_scopes_that_the_server_does_not(
    browser: AdminBrowser, api: BrandAPI, acme_server: AuthorizationServer
) -> None:
    """What the brand wrote itself stays, and of two operations with one scope the first one counts."""
    AuthorizationServer.objects.update(scope_descriptions={"orders.write": "change your orders"})
    words = [
        ("orders.list", "orders.read", {"en": "see your orders"}),
        ("orders.more", "orders.read", "see more"),
        ("orders.note", "orders.write", "write notes"),
        ("orders.two", "orders.read profile", "see two things"),
        ("orders.silent", "profile", {}),
    ]
    rows = [declare_operation(api, name, scope=scope, description=text) for name, scope, text in words]
    text = browser.run(Operation, "describe_scopes", *rows).content.decode()
    acme_server.refresh_from_db()
    assert "now describes orders.read, once" in html.unescape(text)
    assert acme_server.scope_descriptions == {
        "orders.write": "change your orders",
        "orders.read": {"en": "see your orders"},
    }
    assert "Nothing was changed" in browser.run(Operation, "describe_scopes", *rows).content.decode()


def test_the_history_names_operations_and_apis(browser: AdminBrowser, api: BrandAPI) -> None:
    """J13."""
    operation = declare_operation(api)
    change(browser, operation, scope="orders.read")
    change(browser, api, base_url="https://new.acme.example")
    assert "Scope: empty → orders.read" in browser.get(address(Operation, "history", operation)).content.decode()
    history = browser.get(address(BrandAPI, "history", api)).content.decode()
    assert "Base URL: api.acme.example → new.acme.example" in history


def test_a_new_key_offers_calls_and_does_not_tick_them(browser: AdminBrowser) -> None:
    """P1."""
    form = browser.get(address(BotKey, "add")).context["adminform"].form
    assert "api:call" in dict(form.fields["scopes"].choices)
    assert "api:call" not in form.fields["scopes"].initial


def test_a_list_costs_no_query_for_each_row(
    browser: AdminBrowser, api: BrandAPI, django_assert_max_num_queries: Any
) -> None:
    for number in range(20):
        declare_operation(api, f"orders.n{number}")
    with django_assert_max_num_queries(16):
        assert browser.get(address(Operation, "changelist")).context["cl"].result_count == 20
