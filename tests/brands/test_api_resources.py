"""`resource` of a brand API (RFC 8707): each request to its authorization server names those of all active APIs."""

from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from brands.audited_changes import save_audited
from brands.configuration_file import apply_configuration, read_configuration
from brands.models import AuthorizationServer, BrandAPI
from brands.server_rules import lock_server
from conversations.models import AccessToken
from tests.admin_pages import AdminBrowser, address
from tests.brands.test_apply_config import apply, configuration, refused
from tests.brands.test_brand_apis import change, errors_of
from tests.brands.test_export_config import exported
from tests.cast import ACME_SECRET, Bot, Browser, code_on, declare_api
from tests.concurrency import meanwhile
from tests.fake_authorization_server import FakeAuthorizationServer

pytestmark = pytest.mark.django_db

ORDERS, INVOICES, SHARED = "https://api.acme.example/orders", "urn:acme:invoices", "https://api.acme.example/"


def save_api(server: AuthorizationServer, key: str, resource: str, **values: Any) -> BrandAPI:
    api = BrandAPI(
        brand=server.brand,
        authorization_server=server,
        key=key,
        base_url=f"https://{key}.acme.example",
        resource=resource,
        **values,
    )
    save_audited(api)
    return api


def asked() -> list[str]:
    return AuthorizationServer.objects.get(brand__slug="acme").configuration("").resource


def test_the_servers_own_resources_come_first_and_each_one_once(acme_server: AuthorizationServer) -> None:
    """B23."""
    AuthorizationServer.objects.update(resource=[SHARED])
    save_api(acme_server, "orders", ORDERS)
    save_api(acme_server, "invoices", INVOICES)
    save_api(acme_server, "again", SHARED)
    save_api(acme_server, "none", "")
    save_api(acme_server, "off", "urn:acme:off", is_active=False)
    assert asked() == [SHARED, INVOICES, ORDERS]


def test_a_sign_in_names_the_resources_of_the_apis_in_both_requests(
    acme_bot: Bot, ada: Browser, acme_server: AuthorizationServer, acme_login: FakeAuthorizationServer
) -> None:
    """B23, C4: the server issues no token if the two requests differ."""
    AuthorizationServer.objects.update(resource=[SHARED])
    save_api(acme_server, "orders", ORDERS)
    acme_login.resource = [SHARED, ORDERS]
    challenge = acme_bot.challenge()
    url = ada.begin(challenge["url"])
    assert [value for name, value in parse_qsl(urlsplit(url).query) if name == "resource"] == [SHARED, ORDERS]
    ada.come_back(url, acme_login)
    assert acme_bot.complete(code_on(ada.get(f"{challenge['url']}/done")))[0] == 200
    assert acme_login.token_requests[0].parameters["resource"] == f"{SHARED} {ORDERS}"


def test_a_change_counts_from_the_next_sign_in_and_ends_no_token(
    acme_bot: Bot, ada: Browser, acme_server: AuthorizationServer, acme_login: FakeAuthorizationServer
) -> None:
    """B23, C4: of a sign-in that has begun, the code is not sent; the next try names the new resource."""
    api = save_api(acme_server, "orders", "")
    challenge = acme_bot.challenge()
    acme_bot.complete(code_on(ada.sign_in(challenge["url"], acme_login)))
    challenge = acme_bot.challenge()
    url = ada.begin(challenge["url"])
    api.resource = ORDERS
    save_audited(api)
    ada.come_back(url, acme_login)
    assert acme_bot.read_challenge(challenge)["last_error"] == "configuration_changed"
    assert AccessToken.objects.get().ended_at is None
    acme_login.resource = [ORDERS]
    assert acme_bot.complete(code_on(ada.sign_in(challenge["url"], acme_login)))[0] == 200


def test_an_api_that_is_switched_off_is_not_asked_for(acme_server: AuthorizationServer) -> None:
    """B23."""
    api = save_api(acme_server, "orders", ORDERS)
    for is_active, resources in ((False, []), (True, [ORDERS])):
        api.is_active = is_active
        save_audited(api)
        assert asked() == resources


def test_a_form_of_the_server_that_was_open_meanwhile_undoes_nothing(acme_server: AuthorizationServer) -> None:
    """B23. The bug: the row of the form, from before the API was added, is written back."""
    stale = AuthorizationServer.objects.get()
    save_api(acme_server, "orders", ORDERS)
    stale.prompt = "consent"
    save_audited(stale)
    assert asked() == [ORDERS]


@pytest.mark.django_db(transaction=True)
def test_a_file_that_is_applied_while_an_admin_saves_an_api_is_no_deadlock(
    acme_admin: Any, acme_server: AuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bug: the file held the server and waited for the API, the form held the API and waited for the server."""
    api = save_api(acme_server, "orders-api", "")
    table = '[[apis]]\nkey = "orders-api"\nauthorization_server = "orders"\nbase_url = "https://api.acme.example"\n'
    monkeypatch.setenv("ACME_CLIENT_SECRET", ACME_SECRET)
    file, browser = read_configuration(configuration() + table), AdminBrowser(acme_admin)
    page = address(BrandAPI, "change", api)
    seen = browser.get(page).context["seen"]
    _, answer = meanwhile(
        lambda: lock_server(acme_server.pk),
        lambda: apply_configuration(file),
        lambda: browser.send_changed(page, resource=ORDERS, seen=seen),
    )
    assert answer.status_code in {200, 302}
    assert (asked(), BrandAPI.objects.get().base_url) == ([], "https://api.acme.example")


def test_an_api_of_another_brand_changes_nothing(
    acme_server: AuthorizationServer, rival_server: AuthorizationServer
) -> None:
    """B23, J1."""
    save_api(rival_server, "orders", ORDERS)
    assert asked() == []


@pytest.mark.parametrize(
    ("resource", "code"),
    [
        ("api.acme.example", "invalid_resource"),
        ("https://api.acme.example/#orders", "invalid_resource"),
        ("https://api.acme.example/a b", "invalid_resource"),
        (f"urn:acme:{'x' * 1000}", "max_length"),
    ],
)
def test_a_wrong_resource_is_explained_at_its_field(
    acme_admin: Any, acme_server: AuthorizationServer, resource: str, code: str
) -> None:
    """B23, B20."""
    answer = change(AdminBrowser(acme_admin), declare_api(acme_server), resource=resource)
    assert code in errors_of(answer)["resource"]


def test_resources_that_make_the_request_too_long_are_refused(
    acme_admin: Any, acme_server: AuthorizationServer
) -> None:
    """B20: of all APIs together; otherwise no consumer could sign in any more."""
    for number in range(7):
        save_api(acme_server, f"api-{number}", f"urn:acme:{number}:{'x' * 980}")
    answer = change(AdminBrowser(acme_admin), declare_api(acme_server), resource=f"urn:acme:8:{'x' * 980}")
    assert errors_of(answer) == {"resource": ["request_too_long"]}


def test_the_form_saves_a_resource_and_its_history_names_the_field(
    acme_admin: Any, acme_server: AuthorizationServer
) -> None:
    """J13."""
    browser, api = AdminBrowser(acme_admin), declare_api(acme_server)
    assert change(browser, api, resource=ORDERS).status_code == 302
    assert asked() == [ORDERS]
    assert "Resource" in browser.get(address(BrandAPI, "history", api)).content.decode()


def test_a_file_sets_a_resource_and_an_export_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    api = '[[apis]]\nkey = "orders-api"\nauthorization_server = "orders"\nbase_url = "https://api.acme.example"\n'
    apply(f'{configuration()}{api}resource = "{ORDERS}"\n', monkeypatch)
    assert asked() == [ORDERS]
    text = exported()
    assert f'resource = "{ORDERS}"' in text
    apply(configuration() + api, monkeypatch)
    assert (asked(), BrandAPI.objects.get().resource) == ([], "")
    apply(text, monkeypatch)
    assert (asked(), exported()) == ([ORDERS], text)
    found = refused(f'{configuration()}{api}resource = "orders"\n', monkeypatch)
    assert [problem.partition(":")[0] for problem in found] == ["apis.orders-api.resource"]
