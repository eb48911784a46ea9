"""Who waits for whom: a slow or dead endpoint, or one with a thousand events, delays nobody else."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from brands.models import AuthorizationServer, Brand, WebhookEndpoint
from conversations.flow.events import publish_test
from conversations.models import WebhookDelivery
from conversations.outbox import batches, worker
from conversations.outbox.webhooks import BATCH, attempt_delivery, lease_deliveries, threads_for_deliveries
from infrastructure.leases import LEASE
from infrastructure.outbox import give_back_rest
from oauth_client import transport
from tests.cast import Bot
from tests.concurrency import at_once
from tests.webhook_receiver import Receiver, Receivers, make_endpoint

pytestmark = pytest.mark.django_db

NO_ANSWER = transport.EndpointTimeout("the server did not answer in time")


@pytest.fixture(autouse=True)
def two_connections(settings: Any) -> None:
    settings.WEBHOOK_CONNECTIONS = 2


def waiting(endpoint: WebhookEndpoint, number: int) -> None:
    for _ in range(number):
        publish_test(endpoint, timezone.now())


def leased(limit: int) -> list[int]:
    """Return the endpoints of the leases that a worker with so many free threads takes."""
    return [batch[0].endpoint_id for batch in lease_deliveries(timezone.now(), limit)]


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
    waiting(make_endpoint(acme)[0], 80)
    now = timezone.now()
    taken = [batch for leases in at_once(4, lambda _: lease_deliveries(now, 8)) for batch in leases]
    assert len(taken) == 2
    assert len({row.pk for batch in taken for row in batch}) == 2 * BATCH


@pytest.mark.parametrize("connections", [1, 3, 32])
def test_the_operator_decides_how_many_connections_an_endpoint_gets(
    settings: Any, acme: Brand, connections: int
) -> None:
    """The bug: two deliveries at once, however many workers ran: 9 a second at an endpoint that takes 100 ms."""
    settings.WEBHOOK_CONNECTIONS = connections
    waiting(make_endpoint(acme)[0], 40)
    assert len(lease_deliveries(timezone.now(), 100)) == connections


@pytest.mark.parametrize("connections", [1, 2, 4, 32])
def test_one_brand_never_has_more_than_half_of_a_workers_threads(settings: Any, acme: Brand, connections: int) -> None:
    settings.WEBHOOK_CONNECTIONS = connections
    for number in range(4):
        waiting(make_endpoint(acme, f"works-{number}.acme.example")[0], 40)
    waiting(make_endpoint(acme, "dead.acme.example")[0], 3)
    WebhookEndpoint.objects.filter(url__contains="dead").update(failing_since=timezone.now())
    assert len(lease_deliveries(timezone.now(), 1000)) == threads_for_deliveries() / 2


def test_a_few_events_are_dealt_out_over_the_connections(acme: Brand) -> None:
    """A slow endpoint would otherwise get them one after the other, while a connection is free."""
    waiting(make_endpoint(acme)[0], 3)
    assert [len(batch) for batch in lease_deliveries(timezone.now(), 8)] == [2, 1]


def test_a_batch_of_a_slow_endpoint_ends_early_and_the_rest_is_free_for_any_worker(
    acme: Brand, receivers: Receivers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "BATCH_SECONDS", 0.0)
    hooks = receivers.add(acme)
    waiting(hooks.endpoint, 4)
    batch, _ = lease_deliveries(timezone.now(), 2)
    worker._process_batch(attempt_delivery, batch)
    assert len(hooks.messages) == 1
    rest = WebhookDelivery.objects.get(pk=batch[1].pk)
    assert (rest.lease_until, rest.attempts, rest.next_attempt_at) == (None, 0, batch[1].next_attempt_at)


def test_the_leases_of_a_killed_worker_hold_its_endpoints_places_for_a_minute_and_no_longer(acme: Brand) -> None:
    """What the operators' page promises under "Drills". A newer event waits as well, while all places are held."""
    endpoint, now = make_endpoint(acme)[0], timezone.now()
    waiting(endpoint, 2)
    soon = now + timedelta(seconds=1)
    assert [len(batch) for batch in lease_deliveries(soon, 8)] == [1, 1]
    waiting(endpoint, 1)
    assert lease_deliveries(soon + LEASE - timedelta(seconds=1), 8) == []
    assert [len(batch) for batch in lease_deliveries(soon + LEASE + timedelta(seconds=1), 8)] == [2, 1]


@pytest.mark.parametrize("answer", [NO_ANSWER, 500, 410])
def test_a_failure_ends_its_batch(acme: Brand, receivers: Receivers, answer: int | transport.OutboundError) -> None:
    """An endpoint that hangs would have 32 threads' time, and one that is gone would get 31 events more."""
    hooks = receivers.add(acme)
    hooks.next_answers = [answer]
    waiting(hooks.endpoint, 4)
    (batch,) = lease_deliveries(timezone.now(), 1)
    worker._process_batch(attempt_delivery, batch)
    assert len(hooks.messages) == 1
    rest = WebhookDelivery.objects.filter(pk__in=[row.pk for row in batch[1:]])
    assert list(rest.values_list("lease_until", "attempts", "dead_at")) == [(None, 0, None)] * 3


def test_what_is_given_back_late_stays_with_the_worker_that_took_it_over(acme: Brand) -> None:
    waiting(make_endpoint(acme)[0], 2)
    now = timezone.now()
    (slow,) = lease_deliveries(now, 1)
    ((row, _),) = lease_deliveries(now + LEASE + timedelta(seconds=1), 1)
    give_back_rest(slow)
    stored = WebhookDelivery.objects.get(pk=row.pk)
    assert (stored.lease_until, stored.attempts) == (row.lease_until, 2)


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


@pytest.mark.parametrize(("connections", "threads"), [(1, 18), (2, 20), (4, 26), (32, 110)])
def test_the_operators_page_counts_the_threads_of_a_worker(settings: Any, connections: int, threads: int) -> None:
    """Each may have a database connection, and the main thread has one more."""
    settings.WEBHOOK_CONNECTIONS = connections
    assert worker.threads_of_worker() == threads
