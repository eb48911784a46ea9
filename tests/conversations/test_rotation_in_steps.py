"""A key rotation while processes are restarted one after the other: nothing is lost for what one cannot read yet."""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import pytest
import time_machine
from django.utils import timezone

from brands.models import AuthorizationServer
from conversations.models import AuditEvent, Revocation, WebhookDelivery
from conversations.outbox.worker import run_once
from tests.cast import Bot, Browser, code_on
from tests.environment import TEST_ENVIRONMENT
from tests.fake_authorization_server import FakeAuthorizationServer
from tests.webhook_receiver import Receiver

pytestmark = pytest.mark.django_db

OLD: Final = TEST_ENVIRONMENT["ENCRYPTION_KEYS"]
NEWEST: Final = "newest:8l8GIbXrL3uWnxkKcEgT1nKk1jC1s0pNqQv3y0m0c5A="

Restart = Callable[[str], None]


@pytest.fixture
def restart_with(settings: Any) -> Restart:
    """Return what gives this process, web and worker in one, other keys."""

    def restart(keys: str) -> None:
        settings.ENCRYPTION_KEYS = keys

    return restart


def test_a_worker_without_the_new_key_yet_loses_no_event(
    acme_bot: Bot, acme_server: AuthorizationServer, acme_hooks: Receiver, restart_with: Restart
) -> None:
    """The bug: the event was a dead letter at once, though the worker's restart was a minute away."""
    restart_with(f"{NEWEST},{OLD}")
    acme_bot.challenge()
    restart_with(OLD)
    run_once()
    assert (acme_hooks.types, WebhookDelivery.objects.get().last_outcome) == ([], "unreadable")
    restart_with(f"{NEWEST},{OLD}")
    with time_machine.travel(timezone.now() + timedelta(minutes=1), tick=False):
        run_once()
    assert acme_hooks.types == ["challenge.issued"]


def test_a_worker_without_the_new_key_yet_loses_no_revocation(
    acme_bot: Bot,
    ada: Browser,
    acme_server: AuthorizationServer,
    acme_login: FakeAuthorizationServer,
    restart_with: Restart,
) -> None:
    """A13. The bug: the row was deleted as unreadable, and the token lived on at the brand."""
    AuthorizationServer.objects.update(revocation_endpoint=f"{acme_login.issuer}/revoke")
    acme_bot.complete(code_on(ada.sign_in(acme_bot.challenge()["url"], acme_login)))
    restart_with(f"{NEWEST},{OLD}")
    acme_bot.in_chat("DELETE", "/token")
    restart_with(OLD)
    run_once()
    assert (acme_login.revocation_requests, Revocation.objects.count()) == ([], 1)
    restart_with(f"{NEWEST},{OLD}")
    with time_machine.travel(timezone.now() + timedelta(minutes=1), tick=False):
        run_once()
    assert [request.parameters["token"] for request in acme_login.revocation_requests] == (
        acme_login.issued_access_tokens
    )
    assert AuditEvent.objects.get(kind="token.revocation").outcome == "revoked"


@pytest.mark.parametrize("check", ["completion_code", "chat_page"])
def test_what_waits_for_its_confirmation_is_shown_again_where_the_old_key_went_meanwhile(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, restart_with: Restart, check: str
) -> None:
    """K4: code and handle are derived with the newest key; what begins after a rotation needs no older one."""
    AuthorizationServer.objects.update(same_person_checks=[check], chat_page_url="https://www.acme.example/chat")
    restart_with(f"{NEWEST},{OLD}")
    url = acme_bot.challenge()["url"]
    ada.come_back(ada.begin(url), acme_login)
    before = shown_on(ada.get(f"{url}/done"))
    restart_with(NEWEST)
    assert (len(before), shown_on(ada.get(f"{url}/done"))) == (1, before)


def shown_on(page: Any) -> list[str]:
    """Return the code, or the handle, of a result page."""
    either = r'data-completion-code="[0-9]{6}"|#consumer_delegation_handle=[A-Za-z0-9_-]{43}'
    return re.findall(either, page.content.decode())
