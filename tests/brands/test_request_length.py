"""The longest authorization request that a configuration can lead to is checked before it is saved (B20)."""

from typing import Any, Final
from urllib.parse import quote

import pytest
from django.core.exceptions import ValidationError

from brands.configuration_file import apply_configuration, read_configuration
from brands.models import AuthorizationServer, BrandAPI
from brands.request_length import problem_of_length
from brands.server_rules import lock_all_brands, lock_server
from infrastructure.crypto import random_token
from oauth_client.authorization import MAX_URL_LENGTH, authorization_url, longest_url
from oauth_client.dpop import new_proof_key
from oauth_client.step_up import LONGEST_DEMANDS, AuthenticationDemand, UnreadableDemand, demand_in
from tests.admin_pages import AdminBrowser, address
from tests.brands.test_apply_config import OPENID, configuration, refused
from tests.brands.test_brand_apis import change, errors_of
from tests.cast import declare_api
from tests.concurrency import meanwhile

pytestmark = pytest.mark.django_db

MANY: Final = '{"id_token": {"acr": {"value": "urn:acme:loa:1"}, "auth_time": null, "email": null}}'
TOO_LONG: Final = (
    "The address of a sign-in could have 8001 characters, with the resources of its active APIs, and a step-up that "
    "one of them may demand; servers take at most 8000. Request less, or set the server's endpoint for pushed requests."
)
# 1,640 characters of an address.
LONG: Final = "urn:acme:" + "%aa" * 326


def openid(**values: Any) -> AuthorizationServer:
    """Acme's server, for OpenID Connect."""
    jwks_uri = "https://login.acme.example/jwks"
    AuthorizationServer.objects.update(**{"scope": "openid", "jwks_uri": jwks_uri} | values)
    return AuthorizationServer.objects.get()


def with_scope_until(longest: int, **values: Any) -> AuthorizationServer:
    """Acme's server with a scope by which the longest address gets this length."""
    server = openid(**values)
    missing = longest - longest_url(server.configuration(server.scope), LONGEST_DEMANDS) - 1
    # A percent sign is three characters there.
    return openid(scope=f"openid {'%' * (missing // 3)}{'a' * (missing % 3)}", **values)


@pytest.mark.usefixtures("acme_server")
@pytest.mark.parametrize(
    "values",
    [
        {},
        {"dpop_bound_access_tokens": True, "resource": ["urn:acme:orders"], "max_age": 3600},
        {"extra_authorization_parameters": {"claims": MANY, "acr_values": "urn:acme:loa:1"}},
        {"authorization_endpoint": f"https://login.acme.example/authorize?claims={quote(MANY)}"},
    ],
    ids=["plain", "dpop", "extra", "endpoint"],
)
def test_the_check_measures_the_longest_request_that_a_step_up_can_lead_to(values: dict[str, Any]) -> None:
    """B20, P32. The bug: a server was saved whose request was too long as soon as an API demanded a step-up."""
    server = with_scope_until(MAX_URL_LENGTH, **values)
    declare_api(server)
    server.clean()
    lengths = []
    for demand in (*LONGEST_DEMANDS, AuthenticationDemand("urn:acme:loa:2", 60)):
        found = server.configuration(server.scope, demand)
        made_anew = {name: random_token() for name in ("state", "nonce", "code_challenge")}
        lengths.append(len(authorization_url(found, new_proof_key(found), **made_anew)))
    assert max(lengths) == MAX_URL_LENGTH
    server.scope += "a"
    with pytest.raises(ValidationError) as too_long:
        server.clean()
    assert too_long.value.message_dict == {"scope": [TOO_LONG]}


def test_no_demand_that_is_read_is_longer_than_the_longest() -> None:
    """P31."""
    longest = LONGEST_DEMANDS[-1]
    told = {"acr_values": longest.acr_values, "max_age": "9" * 20}
    assert demand_in(told) == longest
    with pytest.raises(UnreadableDemand):
        demand_in(told | {"acr_values": f"{longest.acr_values}+"})


def test_a_step_up_counts_where_one_can_be_demanded(acme_server: AuthorizationServer) -> None:
    """P31, P32: of a server with an API, if its ID token can show that the demand was met."""
    server = with_scope_until(MAX_URL_LENGTH + 1)
    found = server.configuration(server.scope)
    assert problem_of_length(found, has_apis=False) is None
    assert problem_of_length(server.configuration(server.scope.removeprefix("openid ")), has_apis=True) is None
    assert problem_of_length(found, has_apis=True) is not None
    server.clean()


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"scope": "openid " + "%" * 2700}, "scope"),
        ({"resource": [f"urn:acme:{number}:" + "%aa" * 320 for number in range(5)]}, "resource"),
        ({"extra_authorization_parameters": {"audience": "%" * 2700}}, "extra_authorization_parameters"),
    ],
)
def test_it_is_said_at_the_longest_field(
    acme_admin: Any, acme_server: AuthorizationServer, values: dict[str, Any], field: str
) -> None:
    """B20."""
    found = openid(**values).configuration(values.get("scope", "openid"))
    assert (problem_of_length(found, has_apis=False) or ("", ""))[0] == field
    AuthorizationServer.objects.update(is_active=False)  # one that was as long before would be saved
    answer = AdminBrowser(acme_admin).send_changed(address(AuthorizationServer, "change", acme_server), is_active="on")
    assert list(errors_of(answer)) == [field]


def test_the_first_api_of_a_server_brings_the_step_up_that_it_may_demand(
    acme_admin: Any, acme_server: AuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B20: also without a resource, in the form and in a file. Switched off, it is saved."""
    server = with_scope_until(MAX_URL_LENGTH + 1)
    browser, values = AdminBrowser(acme_admin), {"key": "orders-api", "base_url": "https://api.acme.example"}
    answer = browser.send_changed(address(BrandAPI, "add"), **values)
    assert errors_of(answer) == {"resource": ["request_too_long"]}
    api = "".join(f'{name} = "{value}"\n' for name, value in {"authorization_server": "orders", **values}.items())
    text = f"{configuration(**OPENID | {'scope': server.scope})}[[apis]]\n{api}"
    assert [problem.partition(":")[0] for problem in refused(text, monkeypatch)] == ["apis.orders-api.resource"]
    assert browser.send_changed(address(BrandAPI, "add"), **values, is_active="").status_code == 302


def test_a_server_whose_request_is_too_long_can_be_switched_off_and_not_on_again(
    acme_admin: Any, acme_server: AuthorizationServer
) -> None:
    """B20. The bug: one that was saved before a step-up counted could not be switched off without other changes."""
    server, browser = with_scope_until(MAX_URL_LENGTH + 1), AdminBrowser(acme_admin)
    declare_api(server)
    assert change(browser, server, is_active=False).status_code == 302
    assert list(errors_of(change(browser, server, is_active=True))) == ["scope"]


def test_what_is_too_long_already_keeps_no_other_change_waiting(
    acme_admin: Any, acme_server: AuthorizationServer
) -> None:
    """B20. The bug: the secret of a server that was saved before a step-up counted could not be replaced."""
    server, browser = with_scope_until(MAX_URL_LENGTH + 1), AdminBrowser(acme_admin)
    declare_api(server)
    assert change(browser, server, client_secret="another-secret").status_code == 302
    assert list(errors_of(change(browser, server, scope=f"{server.scope}x"))) == ["scope"]


@pytest.fixture
def nearly_full(acme_server: AuthorizationServer) -> AuthorizationServer:
    """Acme's server, whose requests have room for one `LONG` resource and not for two."""
    return with_scope_until(MAX_URL_LENGTH - 2500)


@pytest.mark.django_db(transaction=True)
def test_of_two_apis_that_are_saved_at_once_the_second_counts_the_first(
    acme_admin: Any, nearly_full: AuthorizationServer
) -> None:
    """B20. The bug: each alone was short enough, and with both no consumer could sign in."""
    apis = [declare_api(nearly_full, key) for key in ("orders-api", "invoices-api")]
    pages = [AdminBrowser(acme_admin), AdminBrowser(acme_admin)]
    saves = [
        lambda page=page, api=api: change(page, api, resource=f"{LONG}:{api.key}")
        for page, api in zip(pages, apis, strict=True)
    ]
    answers = meanwhile(lambda: lock_server(nearly_full.pk), *saves)
    assert sorted(answer.status_code for answer in answers) == [200, 302]
    nearly_full.refresh_from_db()
    nearly_full.clean()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("is_server_first", [False, True], ids=["api first", "server first"])
def test_of_a_server_and_its_api_that_are_saved_at_once_the_second_counts_the_first(
    acme_admin: Any, nearly_full: AuthorizationServer, *, is_server_first: bool
) -> None:
    """B20."""
    api = declare_api(nearly_full)
    pages = [AdminBrowser(acme_admin), AdminBrowser(acme_admin)]
    saves = [
        lambda: change(pages[0], api, resource=LONG),
        lambda: change(pages[1], nearly_full, resource=LONG.replace("acme", "all")),
    ]
    answers = meanwhile(lambda: lock_server(nearly_full.pk), *(saves[::-1] if is_server_first else saves))
    assert sorted(answer.status_code for answer in answers) == [200, 302]
    nearly_full.refresh_from_db()
    nearly_full.clean()


@pytest.mark.django_db(transaction=True)
def test_a_server_that_is_saved_while_a_file_of_its_brand_is_applied_is_no_deadlock(
    acme_admin: Any, acme_server: AuthorizationServer
) -> None:
    """C5. The bug: the form held the server and waited for the brands, the file held the brands and waited for it."""
    file, browser = read_configuration(configuration()), AdminBrowser(acme_admin)
    page = address(AuthorizationServer, "change", acme_server)
    seen = browser.get(page).context["seen"]
    _, answer = meanwhile(
        lock_all_brands,
        lambda: apply_configuration(file),
        lambda: browser.send_changed(page, default_token_lifetime=1200, seen=seen),
    )
    assert answer.status_code in {200, 302}
