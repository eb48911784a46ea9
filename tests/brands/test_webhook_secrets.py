"""Signing secrets and event patterns: which are accepted and which refused."""

import base64
from datetime import timedelta

import pytest
from django.core.exceptions import ValidationError
from django.utils import timezone

from brands.models import EVENT_PATTERNS, Brand, WebhookEndpoint, WebhookEvent
from brands.models.webhook_endpoint import validate_events
from brands.webhooks import forget_previous_secrets, new_secret, rotate_secret, validate_secret
from infrastructure.crypto import DecryptionError, Secret
from tests.webhook_receiver import make_endpoint


def whsec(size: int) -> str:
    return "whsec_" + base64.b64encode(b"x" * size).decode()


def test_a_new_secret_is_256_random_bits_in_the_specifications_form() -> None:
    secrets = {new_secret().reveal() for _ in range(20)}
    assert len(secrets) == 20
    for secret in secrets:
        assert secret.startswith("whsec_")
        assert len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) == 32


@pytest.mark.parametrize("size", [24, 32, 64])
def test_a_secret_of_24_to_64_bytes_is_taken(size: int) -> None:
    validate_secret(Secret(whsec(size)))


@pytest.mark.parametrize(
    "value", ["", "whsec_", whsec(23), whsec(65), whsec(32)[6:], "whsec_not base64 but long enough!!"]
)
def test_what_is_no_secret_is_refused_without_being_quoted(value: str) -> None:
    with pytest.raises(ValidationError) as raised:
        validate_secret(Secret(value))
    assert raised.value.code == "invalid_secret"
    typed = value.removeprefix("whsec_")
    assert not typed or typed not in raised.value.message


@pytest.mark.parametrize(
    ("patterns", "heard"),
    [
        (["*"], set(WebhookEvent)),
        (["challenge.*"], {event for event in WebhookEvent if event.startswith("challenge.")}),
        (["token.*"], {WebhookEvent.TOKEN_ISSUED, WebhookEvent.TOKEN_ENDED, WebhookEvent.TOKEN_READS_UNUSUAL}),
        (["token.ended", "conversation.closed"], {WebhookEvent.TOKEN_ENDED, WebhookEvent.CONVERSATION_CLOSED}),
    ],
)
def test_an_endpoint_wants_what_its_patterns_say(patterns: list[str], heard: set[WebhookEvent]) -> None:
    endpoint = WebhookEndpoint(events=patterns)
    assert {event for event in WebhookEvent if endpoint.wants(event)} == heard


@pytest.mark.parametrize("value", [[], "*", None, ["challenge.complete"], ["challenge"], [["*"]], ["*", "*"], {"*": 1}])
def test_a_pattern_that_no_event_matches_is_refused(value: object) -> None:
    """A typing error would be silence."""
    with pytest.raises(ValidationError):
        validate_events(value)


def test_every_pattern_that_is_offered_is_taken() -> None:
    validate_events(list(EVENT_PATTERNS))
    assert "webhook.test" not in EVENT_PATTERNS


@pytest.mark.django_db
def test_a_secret_moved_to_another_endpoint_by_sql_cannot_be_read_there(acme: Brand, rival: Brand) -> None:
    """K1."""
    mine, _ = make_endpoint(acme)
    theirs, _ = make_endpoint(rival)
    WebhookEndpoint.objects.filter(pk=theirs.pk).update(secret_ciphertext=mine.secret_ciphertext)
    with pytest.raises(DecryptionError):
        WebhookEndpoint.objects.get(pk=theirs.pk).reveal_secret()


@pytest.mark.django_db
def test_an_unreadable_secret_can_be_replaced(acme: Brand) -> None:
    """K2: its key is gone; there is nothing that it could sign."""
    endpoint, _ = make_endpoint(acme)
    WebhookEndpoint.objects.update(secret_ciphertext=b"of a key that is gone")
    now = timezone.now()
    secret = rotate_secret(endpoint, now=now)
    assert [signing.reveal() for signing in WebhookEndpoint.objects.get().reveal_signing_secrets(now)] == [
        secret.reveal()
    ]


@pytest.mark.django_db
def test_the_old_secret_is_erased_when_its_day_is_over(acme: Brand) -> None:
    endpoint, _ = make_endpoint(acme)
    now = timezone.now()
    rotate_secret(endpoint, now=now)
    assert forget_previous_secrets(now + timedelta(hours=23, minutes=59)) == 0
    late = now + timedelta(hours=24)
    assert len(WebhookEndpoint.objects.get().reveal_signing_secrets(late)) == 1
    assert forget_previous_secrets(late) == 1
    assert WebhookEndpoint.objects.get().previous_secret_ciphertext is None
