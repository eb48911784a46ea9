"""How a delivery ends where two workers have it, or something else ended it meanwhile; and how it begins again."""

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
import time_machine
from django.utils import timezone

from brands.models import AuthorizationServer, WebhookEndpoint
from conversations.flow.events import replay
from conversations.flow.retention import sweep
from conversations.models import WebhookDelivery
from conversations.outbox.webhooks import deliver, lease_deliveries
from infrastructure.leases import LEASE
from tests.cast import Bot
from tests.webhook_receiver import Receiver

pytestmark = pytest.mark.django_db


@pytest.fixture
def leased(acme_bot: Bot, acme_server: AuthorizationServer, acme_hooks: Receiver) -> WebhookDelivery:
    """Return the delivery of one event, which a worker has just taken."""
    acme_bot.challenge()
    ((delivery,),) = lease_deliveries(timezone.now(), 1)
    return delivery


def ending(delivery: WebhookDelivery) -> tuple[datetime | None, datetime | None, str]:
    """Return when it was delivered, when it was given up, and the outcome that is shown."""
    row = WebhookDelivery.objects.get(pk=delivery.pk)
    return row.delivered_at, row.dead_at, row.last_outcome


def test_what_two_workers_delivered_was_delivered_when_the_first_one_did(
    leased: WebhookDelivery, acme_hooks: Receiver
) -> None:
    """At least once: the slower worker's post arrives, too, and changes nothing."""
    second = timezone.now() + LEASE
    ((next_one,),) = lease_deliveries(second, 1)
    acme_hooks.next_answers = [202, 200]
    with time_machine.travel(second, tick=False):
        deliver(next_one)
    first_word = ending(leased)
    deliver(leased)
    assert (len(acme_hooks.messages), ending(leased)) == (2, first_word)
    assert first_word[1:] == (None, "answered 202")


def test_what_the_next_worker_gave_up_is_no_dead_letter_once_it_was_delivered(
    leased: WebhookDelivery, acme_hooks: Receiver
) -> None:
    """The admin would be shown a dead letter that arrived."""
    acme_hooks.next_answers = [503]
    with time_machine.travel(leased.give_up_at, tick=False):
        ((next_one,),) = lease_deliveries(timezone.now(), 1)
        deliver(next_one)
        assert ending(next_one) == (None, timezone.now(), "answered 503")
        deliver(leased)
        assert ending(leased) == (timezone.now(), None, "answered 204")


@pytest.mark.parametrize("answer", [503, 410])
def test_a_failure_is_that_of_one_delivery_and_not_of_all_that_were_leased_with_it(
    acme_bot: Bot, acme_server: AuthorizationServer, acme_hooks: Receiver, answer: int
) -> None:
    """A worker takes several at one moment: they have one lease's end."""
    acme_bot.challenge()
    acme_bot.challenge(replace=True)
    (first, *_), (second, *_) = lease_deliveries(timezone.now(), 2)
    before = WebhookDelivery.objects.values().get(pk=second.pk)
    acme_hooks.next_answers = [answer]
    deliver(first)
    assert ending(first)[2] == f"answered {answer}"
    assert WebhookDelivery.objects.values().get(pk=second.pk) == before


def delivered(delivery: WebhookDelivery, _: Bot) -> None:
    deliver(delivery)


def given_up(delivery: WebhookDelivery, _: Bot) -> None:
    with time_machine.travel(delivery.give_up_at):
        delivery.payload_ciphertext = b"unreadable"
        deliver(delivery)


def switched_off(delivery: WebhookDelivery, _: Bot) -> None:
    WebhookEndpoint.objects.update(is_active=False)
    sweep(delivery.give_up_at)


def closed_while_it_was_off(_: WebhookDelivery, bot: Bot) -> None:
    WebhookEndpoint.objects.update(is_active=False)
    bot.in_chat("DELETE")


@pytest.mark.parametrize("end", [delivered, given_up, switched_off, closed_while_it_was_off])
def test_what_is_over_is_leased_by_nobody(
    leased: WebhookDelivery, acme_bot: Bot, end: Callable[[WebhookDelivery, Bot], None]
) -> None:
    """The index of leased rows holds what is under way, and nothing of the week that ended rows are kept."""
    end(leased, acme_bot)
    over = WebhookDelivery.objects.exclude(delivered_at=None, dead_at=None)
    assert over.get(event="challenge.issued").lease_until is None


def test_a_replayed_letter_begins_its_day_anew(leased: WebhookDelivery, acme_bot: Bot) -> None:
    """Its attempts and pauses begin at the first again, and its id and payload are the old ones."""
    switched_off(leased, acme_bot)
    before = WebhookDelivery.objects.values().get()
    now = leased.give_up_at + timedelta(days=3)
    assert replay(leased, now)
    begun_anew = {"attempts": 0, "next_attempt_at": now, "give_up_at": now + timedelta(days=1), "dead_at": None}
    assert WebhookDelivery.objects.values().get() == before | begun_anew
