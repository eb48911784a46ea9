"""Who waits for whom: a slow or dead endpoint, or one with a thousand events, delays nobody else."""

import pytest
from django.utils import timezone

from brands import transport
from brands.models import AuthorizationServer, Brand, WebhookEndpoint
from conversations.flow.events import publish_test
from conversations.models import WebhookDelivery
from conversations.outbox import worker
from conversations.outbox.webhooks import lease_deliveries
from tests.cast import Bot
from tests.concurrency import at_once
from tests.webhook_receiver import Receiver, Receivers, make_endpoint

pytestmark = pytest.mark.django_db

NO_ANSWER = transport.EndpointTimeout("the server did not answer in time")


def waiting(endpoint: WebhookEndpoint, number: int) -> None:
    for _ in range(number):
        publish_test(endpoint, timezone.now())


def test_a_thousand_events_of_one_endpoint_delay_nobody_elses(acme: Brand, rival: Brand) -> None:
    busy, quiet = make_endpoint(acme)[0], make_endpoint(rival)[0]
    waiting(busy, 50)
    waiting(quiet, 1)
    leased = [row.endpoint_id for row in lease_deliveries(timezone.now(), 8)]
    assert leased == [busy.pk, busy.pk, quiet.pk]


def test_endpoints_that_fail_come_last_and_never_take_all_threads(acme: Brand, rival: Brand) -> None:
    """However many of them hang for ten seconds each, what goes to the others does not wait."""
    dead = [make_endpoint(acme, f"dead-{number}.acme.example")[0] for number in range(6)]
    WebhookEndpoint.objects.update(failing_since=timezone.now())
    alive = make_endpoint(rival)[0]
    for endpoint in dead:
        waiting(endpoint, 3)
    now = timezone.now()
    first = lease_deliveries(now, 8)
    assert [row.endpoint_id for row in first] == [dead[0].pk] * 2 + [dead[1].pk] * 2
    waiting(alive, 1)
    assert [row.endpoint_id for row in lease_deliveries(timezone.now(), 4)] == [alive.pk]


@pytest.mark.django_db(transaction=True)
def test_two_of_an_endpoint_at_once_holds_between_workers(acme: Brand) -> None:
    waiting(make_endpoint(acme)[0], 40)
    now = timezone.now()
    leased = [row.pk for rows in at_once(4, lambda _: lease_deliveries(now, 8)) for row in rows]
    assert (len(leased), len(set(leased))) == (2, 2)


def test_one_endpoint_being_dead_keeps_nothing_from_another(
    acme_bot: Bot, acme_server: AuthorizationServer, acme: Brand, acme_hooks: Receiver, receivers: Receivers
) -> None:
    dead = receivers.add(acme, "dead.acme.example")
    dead.next_answers = [NO_ANSWER] * 100
    for _ in range(3):
        acme_bot.challenge(replace=True)
    worker.run_once()
    assert len(acme_hooks.messages) == 5
    assert WebhookDelivery.objects.waiting().filter(endpoint=dead.endpoint).count() == 5
