"""Which private networks are open while a brand is called: those of that brand, for that use, and no others."""

from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
import requests
from django.core.management import call_command
from requests.adapters import BaseAdapter

from brands.configuration_file import apply_configuration, read_configuration
from brands.doctor import examine, examine_within_bounds, run_health_check
from brands.models import AuthorizationServer, Brand
from brands.openapi_page import fetch
from conversations.models import Conversation
from conversations.outbox.worker import run_once
from oauth_client import addresses, transport
from tests.admin_pages import AdminBrowser
from tests.brands.test_discover_button import discover
from tests.cast import Bot, Browser, code_on, declare_api, declare_operation
from tests.conversations.test_trial_sign_in import TrialBrowser
from tests.fake_authorization_server import FakeAuthorizationServer, mounted
from tests.modern_authorization_server import ModernAuthorizationServer
from tests.webhook_receiver import Receiver

pytestmark = pytest.mark.django_db

SERVERS, WEBHOOKS = "10.20.0.0/16", "10.30.0.0/16"
Calls = list[tuple[str, list[str]]]


class Witness(BaseAdapter):
    """Notes which networks were open at each call, and passes it on."""

    def __init__(self, behind: BaseAdapter, seen: Calls) -> None:
        super().__init__()
        self._behind, self._seen = behind, seen

    def send(self, request: requests.PreparedRequest, *arguments: Any, **options: Any) -> requests.Response:
        self._seen.append((str(request.url), [str(open_.network) for open_ in addresses.allowed_networks()]))
        return self._behind.send(request, *arguments, **options)


@pytest.fixture
def _allowed(acme: Brand) -> None:
    call_command("private_networks", "acme", "allow", SERVERS)
    call_command("private_networks", "acme", "allow", WEBHOOKS, "--for", "webhooks")
    acme.refresh_from_db()


@pytest.fixture
def watch(_allowed: None) -> Iterator[Any]:
    """Return a function that begins to note the calls of the mounted servers, and returns its notes."""

    def begin() -> Calls:
        seen: Calls = []
        behind = transport.adapter_for
        mock.patch.object(transport, "adapter_for", lambda url: Witness(behind(url), seen)).start()
        return seen

    # It puts back what was there at first: servers that a test mounts are gone before this fixture ends.
    with mock.patch.object(transport, "adapter_for", transport.adapter_for):
        yield begin
    assert addresses.allowed_networks() == ()


def paths(seen: Calls, networks: list[str]) -> set[str]:
    """The last part of each address; each was called with exactly these networks."""
    assert [call for call in seen if call[1] != networks] == []
    return {url.partition("?")[0].rpartition("/")[2] for url, _ in seen}


def test_a_sign_in_and_a_revocation_are_in_the_brands_networks(
    watch: Any, acme_bot: Bot, acme_server: AuthorizationServer, acme_login: FakeAuthorizationServer, ada: Browser
) -> None:
    """N14: pushed request, exchange, who signed in, revocation by the worker."""
    AuthorizationServer.objects.filter(pk=acme_server.pk).update(
        revocation_endpoint=f"{acme_login.issuer}/revoke", userinfo_endpoint=f"{acme_login.issuer}/userinfo"
    )
    seen = watch()
    acme_bot.complete(code_on(ada.sign_in(acme_bot.challenge()["url"], acme_login)))
    acme_bot.in_chat("DELETE", "/token")
    run_once()
    assert paths(seen, [SERVERS]) == {"token", "userinfo", "revoke"}


def test_a_pushed_request_is_in_the_brands_networks(
    watch: Any, acme_bot: Bot, acme_server: AuthorizationServer, ada: Browser
) -> None:
    fake = ModernAuthorizationServer()
    AuthorizationServer.objects.filter(pk=acme_server.pk).update(
        pushed_authorization_request_endpoint=f"{fake.issuer}/par"
    )
    challenge = acme_bot.challenge()
    with mounted(fake):
        seen = watch()
        ada.press(challenge["url"])
    assert paths(seen, [SERVERS]) == {"par"}


def test_another_brands_sign_in_is_in_none(
    watch: Any, rival_bot: Bot, rival_login: FakeAuthorizationServer, rita: Browser
) -> None:
    """N14."""
    seen = watch()
    rival_bot.complete(code_on(rita.sign_in(rival_bot.challenge()["url"], rival_login)))
    assert paths(seen, []) == {"token"}


def test_a_trial_is_in_the_brands_networks(
    watch: Any, acme_server: AuthorizationServer, acme_login: FakeAuthorizationServer, acme_admin: Any
) -> None:
    AuthorizationServer.objects.filter(pk=acme_server.pk).update(revocation_endpoint=f"{acme_login.issuer}/revoke")
    seen = watch()
    TrialBrowser(acme_admin).try_sign_in(acme_server, acme_login)
    assert paths(seen, [SERVERS]) == {"token", "revoke"}


def test_doctor_and_health_check_are_in_the_brands_networks_in_each_thread(
    watch: Any, acme: Brand, acme_server: AuthorizationServer
) -> None:
    """N14: threads do not inherit a context."""
    fake = ModernAuthorizationServer(pushed_only=False)
    with mounted(fake):
        seen = watch()
        server = AuthorizationServer.objects.select_related("brand").get(pk=acme_server.pk)
        server.issuer = fake.issuer
        examine_within_bounds(server)
        run_health_check(server)
        for _ in examine(server):
            assert addresses.allowed_networks() == ()
        assert len(paths(seen, [SERVERS])) > 2


def test_metadata_is_fetched_in_the_networks_of_the_brand_that_the_form_names(
    watch: Any, acme: Brand, rival: Brand, acme_admin: Any
) -> None:
    """N14: only of one that the admin administers. Rival names Acme in its form, and Acme's network stays closed."""
    fake = ModernAuthorizationServer()
    with mounted(fake):
        seen = watch()
        browser = AdminBrowser(acme_admin)
        discover(browser, brand=str(acme.pk))
        assert paths(seen, [SERVERS]) == {"openid-configuration"}
        call_command("private_networks", "rival", "allow", "10.40.0.0/16")
        seen.clear()
        discover(browser, brand=str(rival.pk))
        discover(browser, brand="none")
        discover(browser, brand="9" * 40)
        assert paths(seen, []) == {"openid-configuration"}


def test_a_file_is_completed_in_the_brands_networks(watch: Any, acme: Brand) -> None:
    fake = ModernAuthorizationServer(pushed_only=False)
    with mounted(fake):
        seen = watch()
        server = (
            f'[[authorization_servers]]\nkey = "new"\nclient_id = "x"\nissuer = "{fake.issuer}"\nclient_secret = "s"'
        )
        apply_configuration(read_configuration(f'[brand]\nslug = "acme"\nname = "Acme"\n{server}'))
        assert paths(seen, [SERVERS]) == {"openid-configuration"}


def test_an_openapi_document_is_fetched_in_the_brands_networks(watch: Any, acme_server: AuthorizationServer) -> None:
    fake = ModernAuthorizationServer()
    api = declare_api(acme_server)
    with mounted(fake):
        seen = watch()
        fetch(f"{fake.issuer}/.well-known/openid-configuration", api)
        assert paths(seen, [SERVERS]) == {"openid-configuration"}


@pytest.mark.usefixtures("acme_server")
def test_a_webhook_is_in_the_networks_for_webhooks_alone(watch: Any, acme_hooks: Receiver, acme_bot: Bot) -> None:
    """N14."""
    seen = watch()
    acme_bot.challenge()
    acme_hooks.deliver()
    assert paths(seen, [WEBHOOKS]) == {acme_hooks.endpoint.url.rpartition("/")[2]}


def test_a_call_of_an_api_is_in_the_brands_networks(
    watch: Any, acme_bot: Bot, acme_server: AuthorizationServer, acme_login: FakeAuthorizationServer, ada: Browser
) -> None:
    declare_operation(declare_api(acme_server, base_url=f"{acme_login.issuer}/api"))
    acme_bot.complete(code_on(ada.sign_in(acme_bot.challenge()["url"], acme_login)))
    assert Conversation.objects.count() == 1
    seen = watch()
    acme_bot.in_chat("POST", "/calls/orders.list", {})
    assert paths(seen, [SERVERS]) == {"orders"}
