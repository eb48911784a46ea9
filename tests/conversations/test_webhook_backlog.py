"""The alarm for webhooks that wait too long: the worker raises it, and readiness if no worker runs."""

from datetime import timedelta
from threading import Event
from typing import Any

import pytest
from django.utils import timezone

from brands.models import Brand, WebhookEndpoint
from conversations.flow.events import TOO_LONG_A_WAIT, longest_wait, publish_test
from conversations.models import WebhookDelivery
from conversations.outbox import worker
from delegation_site import health
from tests.cast import client_of_ours
from tests.webhook_receiver import make_endpoint

NOW = timezone.now()
SECOND = timedelta(seconds=1)
pytestmark = pytest.mark.django_db


@pytest.fixture
def endpoint(acme: Brand) -> WebhookEndpoint:
    return make_endpoint(acme)[0]


def waits(endpoint: WebhookEndpoint, since: timedelta) -> None:
    """Store one event that has been due for so long."""
    publish_test(endpoint, timezone.now() - since)


def wait_of_all() -> timedelta | None:
    found = longest_wait(timezone.now())
    return found[0] if found else None


def test_the_oldest_due_delivery_counts(endpoint: WebhookEndpoint, rival: Brand) -> None:
    waits(make_endpoint(rival)[0], TOO_LONG_A_WAIT + SECOND)
    waits(endpoint, 2 * TOO_LONG_A_WAIT)
    waits(endpoint, TOO_LONG_A_WAIT)
    found = longest_wait(timezone.now())
    assert found is not None
    assert found[1] == endpoint
    assert found[0] >= 2 * TOO_LONG_A_WAIT


def test_a_short_wait_is_no_alarm(endpoint: WebhookEndpoint) -> None:
    waits(endpoint, TOO_LONG_A_WAIT - timedelta(minutes=1))
    assert wait_of_all() is None


@pytest.mark.parametrize("state", [{"failing_since": NOW}, {"is_active": False}], ids=["failing", "switched off"])
def test_what_an_endpoint_does_not_take_is_not_our_backlog(endpoint: WebhookEndpoint, state: dict[str, Any]) -> None:
    waits(endpoint, 2 * TOO_LONG_A_WAIT)
    WebhookEndpoint.objects.update(**state)
    assert wait_of_all() is None


@pytest.mark.parametrize("ended", ["delivered_at", "dead_at"])
def test_what_has_ended_does_not_wait(endpoint: WebhookEndpoint, ended: str) -> None:
    waits(endpoint, 2 * TOO_LONG_A_WAIT)
    WebhookDelivery.objects.update(**{ended: NOW})
    assert wait_of_all() is None


def test_the_worker_says_once_that_deliveries_wait_and_once_that_it_is_over(
    endpoint: WebhookEndpoint, caplog: pytest.LogCaptureFixture
) -> None:
    """The bug: an endpoint got 24 events a second, a backlog grew for hours, and nothing said so."""
    caplog.set_level("INFO", "consumer_delegation.worker")
    loop = worker._Worker(Event())
    waits(endpoint, 2 * TOO_LONG_A_WAIT)
    for _ in range(2):
        loop._watch_parts(timezone.now())
    WebhookDelivery.objects.update(delivered_at=NOW)
    loop._watch_parts(timezone.now())
    lines = [record for record in caplog.records if record.name == "consumer_delegation.worker"]
    assert [line.getMessage() for line in lines] == [
        "webhook deliveries wait too long",
        "webhook deliveries no longer wait too long",
    ]
    assert str(endpoint.uuid) in lines[0].error  # type: ignore[attr-defined]  # our own field


def test_readiness_logs_what_a_worker_that_does_not_run_cannot_say(
    endpoint: WebhookEndpoint, caplog: pytest.LogCaptureFixture
) -> None:
    waits(endpoint, 2 * TOO_LONG_A_WAIT)
    health.reset_in_process()
    assert client_of_ours().get("/health/ready", secure=True).status_code == 200
    (line,) = [record for record in caplog.records if record.name == "consumer_delegation.webhooks"]
    assert (line.levelname, line.endpoint) == ("ERROR", str(endpoint.uuid))  # type: ignore[attr-defined]
