"""Salesforce's `instance_url`: the token response names the API's host, below a suffix that the admin declared (P2)."""

import socket
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final

import pytest
from pytest_django import Settings

from brands.audited_changes import save_audited
from brands.models import AuthorizationServer, Brand, BrandAPI
from conversations.flow import call_counts
from conversations.models import AccessToken, ApiCallCount, AuditEvent, Conversation
from infrastructure.crypto import Secret
from tests.admin_pages import AdminBrowser, address
from tests.brand_api import CALLING, ORDERS, Caller, make_api
from tests.cast import ACME_SECRET, Browser, make_bot
from tests.fake_authorization_server import FakeAuthorizationServer
from tests.hostile_token_endpoint import HostileTokenEndpoint, running
from tests.tls import Authority

pytestmark = pytest.mark.django_db

HERE: Final = "https://acme.shop.localhost"
_resolve = socket.getaddrinfo


def _with_our_names(host: Any, port: Any, *others: Any, **named: Any) -> Any:
    """Let the test's names lead to this machine, as a resolver would that knows them."""
    ours = str(host).endswith(".localhost")
    return _resolve("127.0.0.1" if ours else host, port, *others, **named)


@pytest.fixture
def orders_api(
    tls_authority: Authority, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[HostileTokenEndpoint]:
    """A server for two customers' hosts, and for one that is below no suffix."""
    monkeypatch.setattr("socket.getaddrinfo", _with_our_names)
    settings.OUTBOUND_CA_FILE = str(tls_authority.ca_file)
    settings.ALLOW_LOCAL_ENDPOINTS = True
    with running(tls_authority.issue("acme.shop.localhost", "beta.shop.localhost", "rival.localhost")) as server:
        server.play(ORDERS)
        yield server


@pytest.fixture
def caller(acme: Brand, acme_server: AuthorizationServer, ada: Browser, orders_api: HostileTokenEndpoint) -> Caller:
    """acme-bot, before Ada has signed in. Her server says at which host her orders are."""
    acme_server.token_response_members = ["instance_url"]
    acme_server.save()
    make_api(acme_server, f"https://*.shop.localhost:{orders_api.port}/v1", host_member="instance_url")
    login = FakeAuthorizationServer(
        "login.acme.example", "acme-client", ACME_SECRET, redirect_uri=acme_server.redirect_uri
    )
    login.further_members = {"instance_url": HERE}
    return Caller(make_bot(acme, *CALLING), ada, login, acme_server, orders_api)


def signed_in(caller: Caller, instance_url: Any) -> Caller:
    caller.login.further_members = {} if instance_url is None else {"instance_url": instance_url}
    caller.sign_in()
    return caller


def timeline_of(browser: AdminBrowser, conversation: Conversation) -> str:
    page = browser.get(address(Conversation, "change", conversation))
    assert page.status_code == 200
    return str(page.content.decode())


@pytest.mark.parametrize("host", ["acme.shop.localhost", "beta.shop.localhost"])
def test_each_customer_is_called_at_the_host_that_the_token_response_named(host: str, caller: Caller) -> None:
    """P2, P6: over TLS that is checked for this name."""
    status, answer = signed_in(caller, f"https://{host}").call(arguments={"limit": 5})
    assert (status, answer["response"]["body"]) == (200, {"orders": ["A-1001"]})
    lines = caller.sent().split(b"\r\n")
    assert lines[0] == b"GET /v1/orders?limit=5 HTTP/1.1"
    assert f"Host: {host}:{caller.api.port}".encode() in lines


@pytest.mark.parametrize(
    ("instance_url", "reason"),
    [
        ("https://rival.localhost", "host_not_below_suffix"),
        ("https://shop.localhost", "host_not_below_suffix"),
        ("https://acme.shop.localhost@rival.localhost", "host_not_below_suffix"),
        (["https://acme.shop.localhost"], "host_not_below_suffix"),
        (None, "host_member_missing"),
    ],
)
def test_another_host_gets_nothing_and_the_admin_sees_why(
    instance_url: Any, reason: str, caller: Caller, acme_admin: Any
) -> None:
    """P2, P11: checked when the token is stored, and again at the call. The sign-in itself is no failure."""
    status, problem = signed_in(caller, instance_url).call()
    assert (status, problem["code"], problem["was_sent"], problem["next"]) == (502, "api_host_refused", False, None)
    assert "rival" not in str(problem)
    assert caller.api.requests == []
    assert caller.bot.status() == ("authorized", None)

    event, api = AuditEvent.objects.get(kind="brand_api.host_refused"), BrandAPI.objects.get()
    assert (event.outcome, event.object_uuid) == (reason, api.uuid)
    call_counts.flush()
    assert ApiCallCount.objects.get().outcome == "api_host_refused"
    browser, conversation = AdminBrowser(acme_admin), AccessToken.objects.get().conversation
    shown = browser.get(address(BrandAPI, "change", api)).content.decode()
    assert "with this token are refused" in shown
    assert "An API cannot be called with this token" in timeline_of(browser, conversation)


def test_a_right_host_leaves_no_word_about_it(caller: Caller) -> None:
    signed_in(caller, HERE)
    assert not AuditEvent.objects.filter(kind="brand_api.host_refused").exists()


def test_what_was_stored_is_checked_again_at_the_call(caller: Caller) -> None:
    """P2: a row that was written by other code, or moved by SQL."""
    signed_in(caller, HERE)
    BrandAPI.objects.update(base_url=f"https://*.rival.localhost:{caller.api.port}/v1")
    assert caller.code() == "api_host_refused"
    assert caller.api.requests == []


@pytest.mark.parametrize(
    "change", [{"base_url": "https://*.other.localhost/v1"}, {"host_member": "api_domain"}], ids=["suffix", "member"]
)
def test_a_changed_suffix_or_member_is_a_changed_host(change: dict[str, str], caller: Caller) -> None:
    """P2: an admin of Acme cannot collect the tokens of live conversations with a suffix of their own."""
    signed_in(caller, HERE)
    AuthorizationServer.objects.update(token_response_members=["instance_url", "api_domain"])
    api = BrandAPI.objects.get()
    for name, value in change.items():
        setattr(api, name, value)
    save_audited(api)
    assert caller.code() == "rechallenge_required"
    changed = AuditEvent.objects.filter(kind="brand_api.host_changed").latest("id")
    assert changed.changed_fields.split() == [*change]
    assert caller.api.requests == []


def test_a_browser_names_no_host(caller: Caller) -> None:
    """P2, B13: a member in the callback's query, or in the bot's arguments, is none of the token response."""
    caller.login.further_members = {}
    caller.login.further_redirect_parameters = {"instance_url": HERE}
    caller.sign_in()
    assert caller.code() == "api_host_refused"
    assert caller.code(arguments={"instance_url": HERE}) == "arguments_invalid"
    assert caller.api.requests == []


def test_a_private_address_behind_the_named_host_is_not_called(
    caller: Caller, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P6, N2: a customer's host may be hers to point anywhere."""
    signed_in(caller, HERE)
    BrandAPI.objects.update(base_url="https://*.acme.example/v1")
    AccessToken.objects.update(issued_at=BrandAPI.objects.get().host_since + timedelta(seconds=1))
    settings.ALLOW_LOCAL_ENDPOINTS = False
    row = AccessToken.objects.get()
    row.set_response_members(Secret('{"instance_url":"https://inside.acme.example"}'))
    row.save()
    monkeypatch.setattr("socket.getaddrinfo", lambda *_arguments, **_options: [(2, 1, 6, "", ("10.0.0.1", 443))])
    status, problem = caller.call()
    assert (status, problem["code"], problem["was_sent"]) == (502, "api_unreachable", False)


def test_the_members_of_the_api_stay_declared(caller: Caller, acme_admin: Any) -> None:
    """P2: without the member, every later token would be refused."""
    answer = AdminBrowser(acme_admin).send_changed(
        address(AuthorizationServer, "change", caller.server), token_response_members=""
    )
    assert "shop from instance_url. Change them first." in answer.content.decode()
