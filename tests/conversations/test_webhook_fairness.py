"""Who waits for whom: a slow or dead endpoint, or one with a thousand events, delays nobody else."""

import pytest
from django.utils import timezone

from brands.models import AuthorizationServer, Brand, WebhookEndpoint
from conversations.flow.events import publish_test
from conversations.models import WebhookDelivery
from conversations.outbox import worker
from conversations.outbox.webhooks import lease_deliveries
from oauth_client import transport
from tests.cast import Bot
from tests.concurrency import at_once
from tests.webhook_receiver import Receiver, Receivers, make_endpoint

pytestmark = pytest.mark.django_db

NO_ANSWER = transport.EndpointTimeout("the server did not answer in time")


def waiting(endpoint: WebhookEndpoint, number: int) -> None:
    for _ in range(number):
        publish_test(endpoint, timezone.now())


def leased(limit: int) -> list[int]:
    """Return the endpoints of what a worker with so many free threads takes."""
    return [row.endpoint_id for row in lease_deliveries(timezone.now(), limit)]


def test_a_thousand_events_of_one_endpoint_delay_nobody_elses(acme: Brand, rival: Brand) -> None:
    busy, quiet = make_endpoint(acme)[0], make_endpoint(rival)[0]
    waiting(busy, 50)
    waiting(quiet, 1)
    assert leased(8) == [busy.pk, quiet.pk, busy.pk]


def test_endpoints_that_fail_come_last_and_never_take_all_threads(acme: Brand, rival: Brand) -> None:
    """However many of them hang for ten seconds each, what goes to the others does not wait."""
    dead = [make_endpoint(acme, f"dead-{number}.acme.example")[0] for number in range(6)]
    WebhookEndpoint.objects.update(failing_since=timezone.now())
    alive = make_endpoint(rival)[0]
    for endpoint in dead:
        waiting(endpoint, 3)
    assert leased(8) == [dead[0].pk]
    waiting(alive, 1)
    assert leased(7) == [alive.pk]


def test_a_brand_with_many_slow_endpoints_has_three_places_and_the_rest_is_for_others(
    acme: Brand, rival: Brand
) -> None:
    """The bug: four endpoints that answered after nine seconds never failed, and their backlog held every thread."""
    slow = [make_endpoint(acme, f"slow-{number}.acme.example")[0] for number in range(6)]
    for endpoint in slow:
        waiting(endpoint, 10)
    quiet = make_endpoint(rival)[0]
    waiting(quiet, 1)
    assert leased(8) == [slow[0].pk, quiet.pk, slow[1].pk, slow[2].pk]
    assert leased(4) == []


def test_the_brand_with_the_fewest_under_way_comes_first(acme: Brand, rival: Brand) -> None:
    """The bug: whoever had waited longest came first, and that was always whoever had the largest backlog."""
    for number in range(2):
        waiting(make_endpoint(acme, f"slow-{number}.acme.example")[0], 10)
    assert len(leased(1)) == 1
    quiet = make_endpoint(rival)[0]
    waiting(quiet, 2)
    assert leased(1) == [quiet.pk]


def test_one_brands_dead_endpoints_leave_places_for_anothers_that_failed_once(acme: Brand, rival: Brand) -> None:
    """The bug: two endpoints that hung had all four places, those of all brands and all workers."""
    dead = [make_endpoint(acme, f"dead-{number}.acme.example")[0] for number in range(4)]
    stumbled = make_endpoint(rival)[0]
    for endpoint in (*dead, stumbled):
        waiting(endpoint, 5)
    WebhookEndpoint.objects.update(failing_since=timezone.now())
    assert leased(8) == [dead[0].pk, stumbled.pk]
    assert leased(8) == []


def test_a_brands_dead_endpoints_take_nothing_from_its_own_that_works(acme: Brand) -> None:
    dead = make_endpoint(acme, "dead.acme.example")[0]
    WebhookEndpoint.objects.update(failing_since=timezone.now())
    alive = make_endpoint(acme)[0]
    waiting(dead, 3)
    waiting(alive, 3)
    assert leased(8) == [alive.pk, alive.pk, dead.pk]


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
