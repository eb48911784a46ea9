"""What is stored of a batch of webhooks: each event's own result, with one statement, whatever else goes wrong."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from threading import Event
from typing import Any

import pytest
import time_machine
from django.db import OperationalError, connection, connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from brands.models import Brand, WebhookEndpoint
from conversations.flow.events import publish_test
from conversations.models import WebhookDelivery
from conversations.outbox import batches, worker
from conversations.outbox.batches import Store, work_on
from conversations.outbox.webhooks import attempt_delivery, lease_deliveries
from tests.webhook_receiver import Receiver, make_endpoint

pytestmark = pytest.mark.django_db

NOW = timezone.now()


@pytest.fixture(autouse=True)
def one_connection_and_enough_time(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.WEBHOOK_CONNECTIONS = 1
    monkeypatch.setattr(batches, "BATCH_SECONDS", 60.0)  # a busy machine may need more than the second


def batch_of(endpoint: WebhookEndpoint, number: int) -> list[WebhookDelivery]:
    for _ in range(number):
        publish_test(endpoint, timezone.now())
    (batch,) = lease_deliveries(timezone.now(), 1)
    assert len(batch) == number
    return batch


def stored(batch: list[WebhookDelivery]) -> list[dict[str, Any]]:
    columns = ("delivered_at", "last_outcome", "lease_until", "attempts", "dead_at")
    found = WebhookDelivery.objects.in_bulk([row.pk for row in batch])
    return [{name: getattr(found[row.pk], name) for name in columns} for row in batch]


def kept_payloads(batch: list[WebhookDelivery]) -> list[bool]:
    found = WebhookDelivery.objects.in_bulk([row.pk for row in batch])
    return [found[row.pk].payload_ciphertext is not None for row in batch]


def delivered(outcome: str, at: datetime = NOW) -> dict[str, Any]:
    ended = {"delivered_at": at, "last_outcome": outcome, "attempts": 1}
    return ended | dict.fromkeys(("lease_until", "dead_at"))


def statements(work: Callable[[], object]) -> int:
    with CaptureQueriesContext(connection) as captured:
        work()
    return len(captured)


def test_thirty_results_take_as_many_statements_as_one(acme_hooks: Receiver) -> None:
    """The bug: each event cost an UPDATE and a commit, as much as the call itself."""
    for number in (1, 30):
        batch = batch_of(acme_hooks.endpoint, number)
        assert statements(partial(worker._process_batch, attempt_delivery, batch)) == 1
    assert len(acme_hooks.messages) == WebhookDelivery.objects.exclude(delivered_at=None).count() == 31


def test_a_lease_of_thirty_takes_as_many_statements_as_one_of_one(acme_hooks: Receiver) -> None:
    """The endpoint, its brand and its secrets are read once, and not with each row."""
    publish_test(acme_hooks.endpoint, timezone.now())
    one = statements(lambda: lease_deliveries(timezone.now(), 1))
    WebhookDelivery.objects.update(delivered_at=NOW, lease_until=None)
    for _ in range(30):
        publish_test(acme_hooks.endpoint, timezone.now())
    assert statements(lambda: lease_deliveries(timezone.now(), 1)) == one


@time_machine.travel(NOW, tick=False)
def test_each_event_keeps_its_own_answer(acme_hooks: Receiver) -> None:
    acme_hooks.next_answers = [204, 200, 204, 202]
    batch = batch_of(acme_hooks.endpoint, 4)
    worker._process_batch(attempt_delivery, batch)
    assert stored(batch) == [delivered(f"answered {status}") for status in (204, 200, 204, 202)]
    assert kept_payloads(batch) == [False] * 4


@time_machine.travel(NOW, tick=False)
def test_what_worked_before_a_failure_is_delivered_and_the_rest_is_due_as_before(acme_hooks: Receiver) -> None:
    batch = batch_of(acme_hooks.endpoint, 4)
    acme_hooks.next_answers = [204, 204, 500]
    worker._process_batch(attempt_delivery, batch)
    waiting = {"delivered_at": None, "lease_until": None, "dead_at": None}
    failed = waiting | {"last_outcome": "answered 500", "attempts": 1}
    rest = waiting | {"last_outcome": "", "attempts": 0}
    assert stored(batch) == [delivered("answered 204"), delivered("answered 204"), failed, rest]
    assert kept_payloads(batch) == [False, False, True, True]
    assert WebhookEndpoint.objects.get().failing_since == NOW


def test_a_fault_of_ours_loses_no_result_of_the_events_before_it(
    acme_hooks: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    batch = batch_of(acme_hooks.endpoint, 3)

    def call(row: WebhookDelivery) -> Any:
        if row is batch[1]:
            raise RuntimeError("planted fault")
        return attempt_delivery(row)

    assert worker._process_batch(call, batch) == (2, [batch[1]])
    assert [row["delivered_at"] is not None for row in stored(batch)] == [True, False, False]
    assert [row["attempts"] for row in stored(batch)] == [1, 1, 0]
    assert [vars(record)["entry"] for record in caplog.records] == [str(batch[1].uuid)]


def test_results_of_a_batch_wait_for_a_database_that_is_away_and_no_event_is_sent_again(
    acme_hooks: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event would otherwise go out a second time, a minute later."""
    batch, loop = batch_of(acme_hooks.endpoint, 3), worker._Worker(Event())
    monkeypatch.setattr(connections, "close_all", lambda: None)  # the test's own connection
    is_away = [True]

    def away_at_first(store: Store) -> Store:
        def run() -> object:
            if is_away[0]:
                raise OperationalError("planted")
            return store()

        return run

    for store in work_on(batch, attempt_delivery).stores:
        loop._store(away_at_first(store))
    assert [row["delivered_at"] for row in stored(batch)] == [None] * 3
    is_away[0] = False
    loop._store_kept()
    assert [row["last_outcome"] for row in stored(batch)] == ["answered 204"] * 3
    worker.run_once()
    assert len(acme_hooks.messages) == 3


def test_a_worker_that_stops_ends_its_batch_and_gives_back_the_rest(acme_hooks: Receiver) -> None:
    batch = batch_of(acme_hooks.endpoint, 3)
    for store in work_on(batch, attempt_delivery, lambda: True).stores:
        store()
    assert [row["attempts"] for row in stored(batch)] == [1, 0, 0]
    assert [row["lease_until"] for row in stored(batch)] == [None] * 3


def test_an_endpoint_of_another_brand_is_loaded_with_its_own_brand(acme: Brand, rival: Brand) -> None:
    """N14, K1: private networks and the place of a ciphertext are those of the endpoint's brand."""
    for brand in (acme, rival):
        publish_test(make_endpoint(brand)[0], timezone.now())
    leases = lease_deliveries(timezone.now(), 8)
    assert [(row.endpoint.brand.slug, row.endpoint.url) for (row,) in leases] == [
        ("acme", "https://bot.acme.example/hooks"), ("rival", "https://bot.rival.example/hooks")
    ]  # fmt: skip
    assert [row.reveal_payload().reveal().count(str(row.endpoint.uuid)) for (row,) in leases] == [1, 1]


def test_the_database_is_asked_once_a_second_and_when_a_call_has_ended() -> None:
    """The bug: after each batch a worker asked for all kinds of work, and then once more, before it waited."""
    asked: list[int] = []

    def lease(_now: datetime, most: int) -> list[list[Any]]:
        asked.append(most)
        return []

    queue = worker._Queue("webhook delivery", lease, attempt_delivery, lambda: 2)
    assert [queue.take(), queue.take()] == [[], []]
    assert asked == [2]
    with ThreadPoolExecutor(1) as threads:
        queue.busy = {threads.submit(lambda: None)}
    queue.take()
    queue.take()
    assert asked == [2, 2]
    queue.looks_at = 0.0
    queue.take()
    assert asked == [2, 2, 2]
