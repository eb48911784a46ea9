"""The page that imports an OpenAPI document: a file or an address, boxes, and what is ticked is declared."""

import html
import json
import re
from typing import Any, Final

import pytest
from django.contrib.auth import get_user_model
from django.core import signing
from django.core.files.uploadedfile import SimpleUploadedFile

from brands.doctor import bounded
from brands.models import AuthorizationServer, Brand, BrandAPI, Operation
from infrastructure.models import AuditEvent
from tests.admin_pages import AdminBrowser
from tests.brands.test_openapi_documents import document_of_others
from tests.cast import declare_api, declare_operation, make_admin, make_server
from tests.hostile_token_endpoint import HostileTokenEndpoint, http_answer

pytestmark = pytest.mark.django_db

BODY: Final = {"required": True, "content": {"multipart/form-data": {}}}
DOCUMENT: Final = {
    "openapi": "3.1.0",
    "servers": [{"url": "https://api.acme.example/v2"}],
    "components": {"securitySchemes": {"login": {"type": "openIdConnect"}}},
    "paths": {
        "/orders": {
            "get": {
                "operationId": "orders.list",
                "summary": "List <b>orders</b>",
                "security": [{"login": ["orders.read"]}],
            },
            "post": {"operationId": "orders.upload", "requestBody": BODY},
        },
        "/orders/{id}": {
            "delete": {
                "operationId": "orders.cancel",
                "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}],
            }
        },
    },
}


@pytest.fixture
def browser(acme_admin: Any) -> AdminBrowser:
    return AdminBrowser(acme_admin)


@pytest.fixture
def api(acme_server: AuthorizationServer) -> BrandAPI:
    return declare_api(acme_server)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait half a second for a no instead of five."""
    monkeypatch.setattr(bounded, "SECONDS_UNTIL_NO", 0.5)
    monkeypatch.setattr(bounded, "SECONDS_FOR_ALL", 2.0)


def page_of(api: BrandAPI) -> str:
    return f"/admin/brands/brandapi/{api.pk}/import/"


def choose(browser: AdminBrowser, api: BrandAPI, document: Any = DOCUMENT) -> Any:
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    return browser.post(page_of(api), {"file": SimpleUploadedFile("openapi.json", content)})


def tick(browser: AdminBrowser, api: BrandAPI, shown: Any, *names: str) -> Any:
    return browser.post(page_of(api), {"document": shown.context["document"], "operation": list(names)})


def text_of(page: Any) -> str:
    return html.unescape(re.sub(r"\s+", " ", page.content.decode()))


def test_what_is_ticked_is_declared_and_nothing_else(browser: AdminBrowser, api: BrandAPI) -> None:
    """P15: a tick is the decision, so the operation is active at once; its words are the admin's to write."""
    shown = choose(browser, api)
    assert not Operation.objects.exists()
    answer = tick(browser, api, shown, "orders.list", "orders.upload", "orders.invented")
    assert (answer.status_code, answer["Location"]) == (302, f"/admin/brands/operation/?api__id__exact={api.pk}")
    operation = Operation.objects.get()
    assert (operation.name, operation.method, operation.path, operation.scope) == (
        "orders.list", "GET", "/orders", "orders.read",
    )  # fmt: skip
    assert (operation.api, operation.brand, operation.is_active) == (api, api.brand, True)
    assert (operation.is_safe_to_repeat, operation.description) == (True, {})
    assert AuditEvent.objects.filter(kind="operation.created", object_uuid=operation.uuid).exists()
    assert "1 operation declared." in text_of(browser.get(answer["Location"]))


def test_the_list_says_what_there_is_and_why_something_cannot_be_ticked(browser: AdminBrowser, api: BrandAPI) -> None:
    text = text_of(choose(browser, api))
    assert "Cannot be declared: Its body is multipart/form-data, and only JSON can be sent." in text
    assert 'value="orders.upload"' not in text
    assert "&lt;b&gt;orders" in choose(browser, api).content.decode()
    assert "Needs the scope orders.read." in text
    assert "The document's own address is <code>https://api.acme.example/v2</code>" in text


def test_nothing_is_ticked_at_first_and_none_is_no_choice(browser: AdminBrowser, api: BrandAPI) -> None:
    shown = choose(browser, api)
    assert " checked" not in shown.content.decode()
    again = tick(browser, api, shown)
    assert "Tick at least one operation." in text_of(again)
    assert again.context["document"]
    assert not Operation.objects.exists()


def test_an_import_of_a_newer_document_replaces_the_request_and_keeps_words_and_switches(
    browser: AdminBrowser, api: BrandAPI
) -> None:
    """What was switched off stays off."""
    stored = declare_operation(api, "orders.list", path="/old", description="see your orders", is_active=False)
    shown = choose(browser, api)
    assert "Declared already: ticking it replaces" in text_of(shown)
    tick(browser, api, shown, "orders.list")
    operation = Operation.objects.get()
    assert (operation.pk, operation.path, operation.description) == (stored.pk, "/orders", "see your orders")
    assert (operation.is_active, operation.is_safe_to_repeat) == (False, False)


def test_a_name_of_another_api_is_not_taken_over(
    browser: AdminBrowser, api: BrandAPI, acme_server: AuthorizationServer
) -> None:
    other = declare_operation(declare_api(acme_server, "second"), "orders.list", path="/other")
    shown = choose(browser, api)
    assert "Another API of your brand has an operation of this name" in text_of(shown)
    answer = tick(browser, api, shown, "orders.cancel", "orders.list")
    assert "orders.list: This brand already has an operation of this name." in text_of(answer)
    assert answer.context["lines"][0].is_ticked  # what was chosen is still chosen (H10)
    assert Operation.objects.get() == other


@pytest.mark.parametrize(
    ("sent", "problem"),
    [
        ({}, "Choose a file, or type an address."),
        ({"address": "https://api.acme.example/", "file": SimpleUploadedFile("a", b"{}")}, "not both."),
        ({"address": "http://api.acme.example/"}, "The URL must begin with https://."),
        ({"address": "https://10.0.0.1/"}, "not as an IP address"),
        ({"file": SimpleUploadedFile("a", b"")}, "The submitted file is empty."),
        ({"file": SimpleUploadedFile("a", b"<html>")}, "This is no OpenAPI document"),
        ({"file": SimpleUploadedFile("a", b" " * 1_000_001)}, "larger than 1 MB"),
        ({"document": "invented", "operation": "orders.list"}, "The document is no longer kept: choose it again."),
        ({"document": signing.dumps("{}", salt="another")}, "The document is no longer kept: choose it again."),
    ],
)
def test_what_cannot_be_read_is_explained(
    browser: AdminBrowser, api: BrandAPI, sent: dict[str, Any], problem: str
) -> None:
    answer = browser.post(page_of(api), sent)
    assert answer.status_code == 200
    assert problem in text_of(answer)
    assert 'type="file"' in answer.content.decode()
    assert not Operation.objects.exists()


def test_a_document_of_another_brand_declares_for_its_own_api_only(
    browser: AdminBrowser, api: BrandAPI, rival: Brand
) -> None:
    """J1, J15, P15: the signed document grants nothing; the API in the address has to be one's own."""
    shown = choose(browser, api)
    foreign = declare_api(make_server(rival, "orders"))
    answer = tick(browser, foreign, shown, "orders.list")
    assert answer.status_code == 404
    assert choose(browser, foreign).status_code == browser.get(page_of(foreign)).status_code == 404
    viewer = get_user_model().objects.create_user("vera", is_staff=True)
    api.brand.viewers.add(viewer)
    assert tick(AdminBrowser(viewer), api, shown, "orders.list").status_code == 403
    assert not Operation.objects.exists()


def test_ten_operations_of_a_document_that_others_wrote_are_declared(browser: AdminBrowser, api: BrandAPI) -> None:
    """django-allauth's own document, in YAML with aliases."""
    shown = choose(browser, api, document_of_others())
    names = [line.proposal.name for line in shown.context["lines"] if line.can_be_ticked]
    assert tick(browser, api, shown, *names[:10]).status_code == 302
    assert set(Operation.objects.values_list("name", flat=True)) == set(names[:10])
    for operation in Operation.objects.all():
        operation.full_clean()
    assert tick(browser, api, shown, *names).status_code == 302
    assert Operation.objects.count() == len(names) > 50


@pytest.fixture
def published(endpoint: HostileTokenEndpoint) -> HostileTokenEndpoint:
    """A server on a real socket that publishes the document."""
    endpoint.play(http_answer(json.dumps(DOCUMENT).encode()))
    return endpoint


def fetch(browser: AdminBrowser, api: BrandAPI, address: str) -> Any:
    return browser.post(page_of(api), {"address": address})


def test_a_document_is_fetched_once(browser: AdminBrowser, api: BrandAPI, published: HostileTokenEndpoint) -> None:
    """What is declared is what was shown, also if the address answers otherwise meanwhile."""
    shown = fetch(browser, api, published.url)
    assert len(shown.context["lines"]) == 3
    published.play(http_answer(b"", status=500))
    assert tick(browser, api, shown, "orders.list").status_code == 302
    assert published.requests == []


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (http_answer(b"", status=302, Location="https://10.0.0.1/"), "the status 302. Redirects are not followed."),
        (http_answer(b"", status=404), "the status 404"),
        (http_answer(b"<html>"), "This is no OpenAPI document"),
        (http_answer(b"x" * 1_000_001), "could not be fetched"),
        (b"", "could not be fetched"),
    ],
)
def test_an_address_that_gives_no_document_is_explained(
    browser: AdminBrowser, api: BrandAPI, published: HostileTokenEndpoint, answer: bytes, problem: str, quick: None
) -> None:
    """N4, N7, N9."""
    published.play(answer)
    assert problem in text_of(fetch(browser, api, published.url))


def test_what_is_inside_our_network_is_one_sentence(
    browser: AdminBrowser, api: BrandAPI, quick: None, look_ups: Any
) -> None:
    """N9: a private address and a name without one."""
    texts = set()
    for answers in (["10.0.0.1"], ["169.254.169.254"]):
        look_ups(answers)
        errors = fetch(browser, api, "https://api.acme.example/openapi.json").context["form"].errors
        texts.add(str(errors["address"]))
    (text,) = texts
    assert "<li>The document could not be fetched. Look at the address, or choose a file.</li>" in text


@pytest.mark.usefixtures("one_window")
def test_look_ups_are_counted(browser: AdminBrowser, api: BrandAPI, published: HostileTokenEndpoint) -> None:
    """N9: an admin cannot have addresses tried, or large documents read, all day."""
    answers = [text_of(fetch(browser, api, published.url)) for _ in range(11)]
    assert "Too many look-ups: wait" in answers[-1]
    assert len(published.requests) == 10
    assert "Too many look-ups: wait" in text_of(choose(browser, api))


def test_the_page_of_an_api_leads_here_for_its_admins_alone(browser: AdminBrowser, api: BrandAPI) -> None:
    """J15."""
    change = f"/admin/brands/brandapi/{api.pk}/change/"
    viewer = make_admin(api.brand.__class__.objects.create(name="Third", slug="third"))
    api.brand.viewers.add(viewer)
    assert page_of(api) in browser.get(change).content.decode()
    assert page_of(api) not in AdminBrowser(viewer).get(change).content.decode()
