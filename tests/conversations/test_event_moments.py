"""The moments that events name, the order they are told in, and what is noted where one cannot be told in full."""

import logging
from datetime import UTC, datetime, timedelta

import pytest
import time_machine

from brands.models import AuthorizationServer
from conversations.flow.events import publish_test
from conversations.models import AccessToken, Challenge, WebhookDelivery
from tests.cast import Bot, Browser, code_on
from tests.fake_authorization_server import FakeAuthorizationServer
from tests.webhook_receiver import Receiver

pytestmark = pytest.mark.django_db

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
MILLISECONDS_AT_NOON = 1_893_499_200_000


@pytest.mark.parametrize(
    ("ends_after", "told"),
    [
        (timedelta(minutes=10), ("expired", "2030-01-01T12:10:00Z")),
        (timedelta(days=1), ("rejected", "2030-01-01T12:30:00Z")),
    ],
)
def test_a_token_ended_when_the_clock_or_the_bot_ended_it_whenever_that_was_written_down(
    acme_bot: Bot,
    ada: Browser,
    acme_login: FakeAuthorizationServer,
    acme_hooks: Receiver,
    ends_after: timedelta,
    told: tuple[str, str],
) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        acme_bot.complete(code_on(ada.sign_in(acme_bot.challenge()["url"], acme_login)))
        AccessToken.objects.update(expires_at=NOON + ends_after)
        clock.shift(timedelta(minutes=30))
        acme_bot.in_chat("DELETE", "/token")
        acme_hooks.deliver()
    (ended,) = (message.payload for message in acme_hooks.messages if message.type == "token.ended")
    assert (ended["data"]["end_reason"], ended["data"]["ended_at"]) == told
    assert ended["timestamp"] == "2030-01-01T12:30:00Z"


def test_the_sequence_is_the_moment_in_milliseconds_and_goes_on_by_one_where_the_clock_stands_still(
    acme_bot: Bot, acme_server: AuthorizationServer, acme_hooks: Receiver
) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        acme_bot.challenge()
        acme_bot.challenge(replace=True)
        clock.shift(timedelta(seconds=2))
        acme_bot.challenge(replace=True)
        assert acme_hooks.deliver() == [
            "challenge.issued",
            *("challenge.superseded", "challenge.issued"),
            *("challenge.superseded", "challenge.issued"),
        ]
    sequences = sorted(message.payload["sequence"] - MILLISECONDS_AT_NOON for message in acme_hooks.messages)
    assert sequences == [0, 1, 2, 2000, 2001]


def test_a_delivery_is_due_at_once_and_for_a_day_from_the_moment_of_its_event(acme_hooks: Receiver) -> None:
    publish_test(acme_hooks.endpoint, NOON)
    delivery = WebhookDelivery.objects.get()
    moments = (delivery.created_at, delivery.next_attempt_at, delivery.give_up_at)
    assert moments == (NOON, NOON, NOON + timedelta(days=1))


def test_an_event_without_its_unreadable_context_is_noted_with_the_challenge_alone(
    acme_bot: Bot, acme_server: AuthorizationServer, acme_hooks: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    """K2."""
    challenge = acme_bot.challenge(context="resume here")
    Challenge.objects.update(context_ciphertext=b"tampered with")
    acme_bot.call("DELETE", f"/challenges/{challenge['challenge_id']}")
    (noted,) = [line for line in caplog.records if line.name == "consumer_delegation.webhooks"]
    assert (noted.levelno, noted.getMessage(), vars(noted)["challenge"]) == (
        logging.WARNING,
        "an event lacks its context, which cannot be decrypted",
        challenge["challenge_id"],
    )
