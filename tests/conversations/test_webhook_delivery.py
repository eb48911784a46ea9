"""Delivery by the worker: signed, retried for a day, dead in the end, and replayed."""

import socket
from datetime import datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.core.management import call_command
from django.utils import timezone
from standardwebhooks import Webhook, WebhookVerificationError

from brands.models import AuthorizationServer, Brand, WebhookEndpoint
from brands.webhooks import rotate_secret
from conversations.flow.events import publish_test, replay
from conversations.flow.retention import sweep
from conversations.models import AuditEvent, Challenge, Conversation, WebhookDelivery
from conversations.outbox import worker
from conversations.outbox.webhooks import FIRST_PAUSE, LONGEST_PAUSE, deliver, lease_deliveries
from infrastructure.leases import LEASE
from infrastructure.outbox import pause_after
from oauth_client import transport
from tests.cast import Bot
from tests.webhook_receiver import Receiver, make_endpoint

pytestmark = pytest.mark.django_db

NO_ANSWER = transport.EndpointTimeout("the server did not answer in time")


@pytest.fixture
def issued(acme_bot: Bot, acme_server: AuthorizationServer, acme_hooks: Receiver) -> WebhookDelivery:
    """Return the delivery of one event, which waits; its challenge ends long after it."""
    acme_bot.challenge(context="planted-context")
    Challenge.objects.update(expires_at=timezone.now() + timedelta(days=20))
    return WebhookDelivery.objects.get()


def state(delivery: WebhookDelivery) -> tuple[str, str]:
    delivery.refresh_from_db()
    where = "delivered" if delivery.delivered_at else "dead" if delivery.dead_at else "waiting"
    return where, delivery.last_outcome


def try_until_dead(delivery: WebhookDelivery) -> list[datetime]:
    """Let the worker come exactly when the next attempt is due; return the moments."""
    moments: list[datetime] = []
    while state(delivery)[0] == "waiting":
        moments.append(delivery.next_attempt_at)
        with time_machine.travel(delivery.next_attempt_at, tick=False):
            worker.run_once()
    return moments


def test_a_message_is_signed_as_the_specification_says(issued: WebhookDelivery, acme_hooks: Receiver) -> None:
    """The receiver has verified it by the specification's own package; another body or id is refused."""
    worker.run_once()
    (message,) = acme_hooks.messages
    assert message.id == str(issued.event_uuid)
    assert message.headers["content-type"] == "application/json"
    assert "authorization" not in message.headers
    verifier = Webhook(acme_hooks.secret)
    for body, headers in (
        (message.body.replace("issued", "failed"), message.headers),
        (message.body, message.headers | {"webhook-id": "another"}),
        (message.body, message.headers | {"webhook-timestamp": "1"}),
    ):
        with pytest.raises(WebhookVerificationError):
            verifier.verify(body, headers)
    assert state(issued) == ("delivered", "answered 204")


def test_a_delivered_event_leaves_no_payload_behind_and_is_deleted_after_a_week(issued: WebhookDelivery) -> None:
    worker.run_once()
    issued.refresh_from_db()
    assert issued.payload_ciphertext is None
    for days, left in ((6, 1), (8, 0)):
        sweep(timezone.now() + timedelta(days=days))
        assert WebhookDelivery.objects.count() == left


def test_a_replaced_secret_signs_along_for_a_day(issued: WebhookDelivery, acme_hooks: Receiver) -> None:
    """Nobody has to change at the same moment: within the day either secret verifies, afterwards the new one alone."""
    now, old = timezone.now(), acme_hooks.secret
    new = rotate_secret(acme_hooks.endpoint, now=now).reveal()
    worker.run_once()
    (message,) = acme_hooks.messages
    assert len(message.headers["webhook-signature"].split(" ")) == 2
    for secret in (old, new):
        assert Webhook(secret).verify(message.body, message.headers) == message.payload
    acme_hooks.secret = new
    with time_machine.travel(now + timedelta(hours=25)):
        publish_test(WebhookEndpoint.objects.get(), timezone.now())
        worker.run_once()
        with pytest.raises(WebhookVerificationError):
            Webhook(old).verify(acme_hooks.messages[1].body, acme_hooks.messages[1].headers)
    assert WebhookEndpoint.objects.get().previous_secret_ciphertext is None


def test_every_attempt_has_the_same_id_and_a_time_of_its_own(issued: WebhookDelivery, acme_hooks: Receiver) -> None:
    acme_hooks.next_answers = [500, NO_ANSWER]
    for _ in range(3):
        issued.refresh_from_db()
        with time_machine.travel(issued.next_attempt_at, tick=False):
            worker.run_once()
    first, second, third = acme_hooks.messages
    assert {message.id for message in acme_hooks.messages} == {str(issued.event_uuid)}
    assert first.body == second.body == third.body
    stamps = [int(message.headers["webhook-timestamp"]) for message in acme_hooks.messages]
    assert stamps == sorted(set(stamps))
    assert state(issued) == ("delivered", "answered 204")


@pytest.mark.parametrize("answer", [NO_ANSWER, 301, 307, 400, 401, 404, 429, 500, 503, 199])
def test_whatever_is_no_success_is_tried_again(
    issued: WebhookDelivery, acme_hooks: Receiver, answer: int | transport.OutboundError
) -> None:
    """N4: a redirect is not followed, and no success either."""
    acme_hooks.next_answers = [answer]
    worker.run_once()
    issued.refresh_from_db()
    outcome = "no answer" if isinstance(answer, Exception) else f"answered {answer}"
    assert (state(issued), issued.attempts) == (("waiting", outcome), 1)
    assert timedelta(seconds=3) < issued.next_attempt_at - timezone.now() < timedelta(seconds=7)
    assert WebhookEndpoint.objects.get().failing_since is not None


def test_pauses_double_to_four_hours_with_a_random_part() -> None:
    pauses = [pause_after(attempts, FIRST_PAUSE, LONGEST_PAUSE).total_seconds() for attempts in range(1, 40)]
    for number, pause in enumerate(pauses):
        full = min(5 * 2**number, 4 * 3600)
        assert 0.75 * full <= pause <= 1.25 * full
    assert len({pause_after(1, FIRST_PAUSE, LONGEST_PAUSE) for _ in range(20)}) > 1


def test_after_24_hours_it_is_dead_and_keeps_its_payload(issued: WebhookDelivery, acme_hooks: Receiver) -> None:
    acme_hooks.next_answers = [503] * 100
    moments = try_until_dead(issued)
    assert state(issued) == ("dead", "answered 503")
    assert moments[-1] - moments[0] == timedelta(hours=24)
    assert 15 <= len(moments) == len(acme_hooks.messages) <= 25
    assert "planted-context" in issued.reveal_payload().reveal()


def test_a_dead_letter_is_replayed_under_its_old_id_for_another_day(
    issued: WebhookDelivery, acme_hooks: Receiver
) -> None:
    acme_hooks.next_answers = [503] * 100
    try_until_dead(issued)
    acme_hooks.next_answers = [503]
    later = timezone.now() + timedelta(days=2)
    with time_machine.travel(later, tick=False):
        assert replay(issued, later)
        worker.run_once()
        assert state(issued)[0] == "waiting"
        assert (issued.attempts, issued.give_up_at) == (1, later + timedelta(hours=24))
    with time_machine.travel(issued.next_attempt_at, tick=False):
        worker.run_once()
    assert state(issued) == ("delivered", "answered 204")
    assert {message.id for message in acme_hooks.messages} == {str(issued.event_uuid)}
    assert not replay(issued, later)


def test_an_event_that_waited_for_a_worker_for_days_is_tried_before_it_is_given_up(
    issued: WebhookDelivery, acme_hooks: Receiver
) -> None:
    with time_machine.travel(timezone.now() + timedelta(days=3)):
        worker.run_once()
        assert state(issued) == ("delivered", "answered 204")


def test_gone_ends_it_at_once_and_switches_the_endpoint_off(
    issued: WebhookDelivery, acme_hooks: Receiver, acme_bot: Bot
) -> None:
    acme_hooks.next_answers = [410]
    worker.run_once()
    assert state(issued) == ("dead", "answered 410")
    assert not WebhookEndpoint.objects.get().is_active
    event = AuditEvent.objects.get(kind="webhook_endpoint.changed")
    assert (event.actor, event.outcome, event.object_uuid) == ("system", "gone", acme_hooks.endpoint.uuid)
    acme_bot.challenge(replace=True)
    assert WebhookDelivery.objects.count() == 1


@pytest.mark.parametrize("off", ["endpoint", "brand"])
def test_what_waits_for_an_endpoint_that_is_off_waits_for_a_day(
    issued: WebhookDelivery, acme_hooks: Receiver, off: str
) -> None:
    """Switched on again in time, it gets everything; otherwise an admin sees a dead letter and no silence."""
    rows: Any = WebhookEndpoint.objects if off == "endpoint" else Brand.objects
    rows.update(is_active=False)
    worker.run_once()
    assert state(issued) == ("waiting", "")
    worker.run_once(timezone.now() + timedelta(hours=25))
    assert state(issued) == ("dead", "switched off")
    rows.update(is_active=True)
    assert acme_hooks.messages == []
    assert replay(issued, timezone.now())
    worker.run_once()
    assert state(issued) == ("delivered", "answered 204")


def test_a_closed_chats_events_still_go_out_and_what_is_given_up_there_is_forgotten(
    issued: WebhookDelivery, acme_hooks: Receiver, acme_bot: Bot
) -> None:
    """Closing erases: the bot's context lives on for a day at the most, on its way to the bot itself."""
    acme_bot.in_chat("DELETE")
    acme_hooks.next_answers = [503] * 100
    try_until_dead(issued)
    assert len(acme_hooks.messages) > 30
    closed = WebhookDelivery.objects.get(event="conversation.closed")
    try_until_dead(closed)
    sweep(timezone.now() + timedelta(hours=25))
    assert [state(issued)[0], state(closed)[0]] == ["dead", "dead"]
    assert issued.payload_ciphertext is None
    assert not replay(issued, timezone.now())
    assert replay(closed, timezone.now())


def test_closing_a_chat_erases_its_dead_letters_at_once(issued: WebhookDelivery, acme_bot: Bot) -> None:
    WebhookDelivery.objects.update(dead_at=timezone.now())
    acme_bot.in_chat("DELETE")
    issued.refresh_from_db()
    assert issued.payload_ciphertext is None


def test_a_chat_whose_events_wait_is_not_pruned(issued: WebhookDelivery, acme_hooks: Receiver) -> None:
    """No worker has run for a month: prune writes `challenge.expired`, and would delete it with its chat."""
    Challenge.objects.update(expires_at=timezone.now())
    with time_machine.travel(timezone.now() + timedelta(days=31), tick=False):
        call_command("prune")
        assert Conversation.objects.count() == 1
        worker.run_once()
        assert acme_hooks.types == ["challenge.issued", "challenge.expired"]


def test_an_unreadable_payload_holds_nothing_up_and_is_dead_after_a_day(
    issued: WebhookDelivery, acme_hooks: Receiver, acme_bot: Bot
) -> None:
    """K2. The endpoint is not to blame: it does not count as failing."""
    WebhookDelivery.objects.update(payload_ciphertext=b"tampered with")
    acme_bot.challenge(replace=True)
    worker.run_once()
    assert state(issued) == ("waiting", "unreadable")
    assert sorted(acme_hooks.types) == ["challenge.issued", "challenge.superseded"]
    assert WebhookEndpoint.objects.get().failing_since is None
    try_until_dead(issued)
    assert state(issued) == ("dead", "unreadable")
    assert str(issued.event_uuid) not in {message.id for message in acme_hooks.messages}


@pytest.mark.parametrize("url", ["http://10.0.0.8/hooks", "https://169.254.169.254/latest", "https://hooks.test:8443/"])
def test_an_address_that_leads_inside_is_not_called(acme: Brand, url: str) -> None:
    """N1, N9: also where the row was written by SQL; and the admin is not told what is there."""
    endpoint, _ = make_endpoint(acme)
    WebhookEndpoint.objects.update(url=url)
    publish_test(endpoint, timezone.now())
    worker.run_once()
    assert state(WebhookDelivery.objects.get()) == ("waiting", "no answer")


def test_a_name_that_resolves_inside_is_not_called(acme: Brand, monkeypatch: pytest.MonkeyPatch) -> None:
    """N2, N3: whatever the name, its address decides."""
    endpoint, _ = make_endpoint(acme)
    asked: list[str] = []

    def inside(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        return [(2, 1, 6, "", ("10.0.0.8", port))]

    monkeypatch.setattr(socket, "getaddrinfo", inside)
    publish_test(endpoint, timezone.now())
    worker.run_once()
    assert (asked, state(WebhookDelivery.objects.get())) == (["bot.acme.example"], ("waiting", "no answer"))


def test_an_endpoint_that_works_again_is_no_longer_failing(issued: WebhookDelivery, acme_hooks: Receiver) -> None:
    acme_hooks.next_answers = [503]
    worker.run_once()
    issued.refresh_from_db()
    worker.run_once(issued.next_attempt_at)
    assert state(issued) == ("delivered", "answered 204")
    assert WebhookEndpoint.objects.get().failing_since is None


def test_a_worker_that_was_slow_does_not_put_off_what_the_next_one_has_taken(
    issued: WebhookDelivery, acme_hooks: Receiver
) -> None:
    now = timezone.now()
    ((slow,),) = lease_deliveries(now, 1)
    ((next_one,),) = lease_deliveries(now + LEASE, 1)
    acme_hooks.next_answers = [503]
    deliver(slow)
    issued.refresh_from_db()
    assert (issued.lease_until, issued.attempts) == (next_one.lease_until, 2)
    deliver(next_one)
    assert state(issued) == ("delivered", "answered 204")
