"""Closing a chat erases: also what waits, with the bot's context, for an endpoint that is switched off."""

from typing import Any

import pytest
from django.utils import timezone

from brands.models import AuthorizationServer, Brand, WebhookEndpoint
from brands.webhooks import create_webhook_endpoint
from conversations.flow.events import replay
from conversations.models import WebhookDelivery
from conversations.outbox import worker
from tests.admin_pages import AdminBrowser, address
from tests.brand_api import Caller, sign_in_with
from tests.cast import Bot
from tests.webhook_receiver import Receiver

pytestmark = pytest.mark.django_db


@pytest.fixture
def issued(acme_bot: Bot, acme_server: AuthorizationServer, acme_hooks: Receiver) -> WebhookDelivery:
    """Return the delivery of one event, which waits."""
    acme_bot.challenge(context="planted-context")
    return WebhookDelivery.objects.get()


def kept(delivery: WebhookDelivery) -> tuple[str, bool, bool]:
    """Return the outcome, whether it is dead, and whether there is anything left of it."""
    delivery.refresh_from_db()
    return delivery.last_outcome, delivery.dead_at is not None, delivery.payload_ciphertext is not None


ERASED = ("switched off", True, False)


@pytest.mark.parametrize("off", ["endpoint", "brand"])
def test_closing_erases_what_waits_for_an_endpoint_that_is_off(
    issued: WebhookDelivery, acme_hooks: Receiver, acme_bot: Bot, acme: Brand, off: str
) -> None:
    """K6. The bug: the context stayed readable for a day, and went out when the endpoint was switched on."""
    if off == "endpoint":
        WebhookEndpoint.objects.update(is_active=False)
        acme_bot.in_chat("DELETE")
        assert kept(issued) == ERASED
    else:  # nobody can close a chat of such a brand: it was switched off afterwards
        acme_bot.in_chat("DELETE")
        Brand.objects.update(is_active=False)
        worker.run_once()
        assert kept(issued) == ERASED
    WebhookEndpoint.objects.update(is_active=True)
    Brand.objects.update(is_active=True)
    worker.run_once()
    assert "challenge.issued" not in acme_hooks.types
    assert not replay(issued, issued.created_at)


def test_what_waits_for_an_open_chat_stays(issued: WebhookDelivery, acme_bot: Bot, acme_hooks: Receiver) -> None:
    """Only what was closed is erased, and only what can hold context or purpose."""
    Bot(acme_bot.key, "web:another").challenge()
    acme_bot.in_chat("DELETE")
    WebhookEndpoint.objects.update(is_active=False)
    worker.run_once()
    left = WebhookDelivery.objects.filter(payload_ciphertext__isnull=False).order_by("id")
    assert list(left.values_list("event", "conversation__external_id", "dead_at")) == [
        ("challenge.issued", "web:another", None),
        ("conversation.closed", acme_bot.chat, None),
    ]


def test_an_endpoint_that_is_switched_on_gets_nothing_of_a_chat_that_was_closed_meanwhile(
    issued: WebhookDelivery, acme_hooks: Receiver, acme_bot: Bot, acme_admin: Any
) -> None:
    """The bug again, closed while it was on, off and on within the minute that the sweep needs."""
    acme_bot.in_chat("DELETE")
    WebhookEndpoint.objects.update(is_active=False)
    page = address(WebhookEndpoint, "change", acme_hooks.endpoint)
    assert AdminBrowser(acme_admin).send_changed(page, is_active="on").status_code == 302
    assert WebhookEndpoint.objects.get().is_active
    assert kept(issued) == ERASED
    worker.run_once()
    assert acme_hooks.types == ["conversation.closed"]


def test_closing_erases_what_would_still_say_how_somebody_signed_in(paying: Caller, acme: Brand) -> None:
    """P34, K6. The bug: the row of the token forgot it, and the event that was given up kept it for seven days."""
    events = ["token.issued", "token.ended", "conversation.closed"]
    create_webhook_endpoint(WebhookEndpoint(brand=acme, url="https://hooks.acme.example/", events=events))
    sign_in_with(paying, challenge := paying.bot.challenge(), acr="urn:acme:loa:2", amr=["hwk"])
    paying.bot.complete(paying.ada.read_code(challenge["url"]))
    WebhookDelivery.objects.update(dead_at=timezone.now())
    assert paying.bot.in_chat("DELETE")[0] == 200
    WebhookEndpoint.objects.update(is_active=False)
    worker.run_once()
    left = WebhookDelivery.objects.filter(payload_ciphertext__isnull=False)
    assert list(left.values_list("event", flat=True)) == ["conversation.closed"]
