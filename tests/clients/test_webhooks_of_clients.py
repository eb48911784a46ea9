"""Both clients verify what the product signs, and refuse everything else with one error."""

import base64
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import pytest
from standardwebhooks import Webhook

from brands.webhooks import new_secret
from consumer_delegation import WebhookRefused, verify_webhook
from tests.cast import Bot
from tests.webhook_receiver import Receiver

SECRET: Final = "whsec_" + base64.b64encode(b"planted webhook secret of Acme").decode()
BODY: Final = json.dumps({"type": "webhook.test", "timestamp": "2026-11-22T15:04:05Z", "data": {"x": "é"}}).encode()
Headers = dict[str, str]


def signed(body: bytes = BODY, secret: str = SECRET, at: float | None = None) -> Headers:
    """Sign as another library does."""
    moment = datetime.fromtimestamp(int(time.time() if at is None else at), tz=UTC)
    return {
        "Webhook-Id": "message-1",
        "webhook-timestamp": str(int(moment.timestamp())),
        "WEBHOOK-SIGNATURE": Webhook(secret).sign("message-1", moment, body.decode()),
    }


@pytest.mark.django_db
def test_what_the_product_sends_is_verified(acme_bot: Bot, acme_server: object, acme_hooks: Receiver) -> None:
    challenge = acme_bot.challenge()
    acme_hooks.deliver()
    (message,) = acme_hooks.messages
    event = verify_webhook(acme_hooks.secret, message.headers, message.body.encode())
    assert (event.type, event.data["challenge_id"]) == ("challenge.issued", challenge["challenge_id"])
    assert (event.id, event.sequence) == (message.headers["webhook-id"], message.payload["sequence"])


def test_any_of_several_secrets_and_signatures_is_enough() -> None:
    other = new_secret().reveal()
    headers = signed()
    both = {
        **headers,
        "WEBHOOK-SIGNATURE": f"{signed(secret=other)['WEBHOOK-SIGNATURE']} {headers['WEBHOOK-SIGNATURE']}",
    }
    assert verify_webhook(SECRET, both, BODY).type == "webhook.test"
    assert verify_webhook([other, SECRET], headers, BODY).sequence is None


def change(**changes: str | None) -> Callable[[Headers], Headers]:
    """Return what replaces some headers, by the end of their name, or takes them away."""

    def changed(headers: Headers) -> Headers:
        lower = {name.lower(): value for name, value in headers.items()}
        given = lower | {f"webhook-{name}": value for name, value in changes.items() if value is not None}
        return {
            name: value for name, value in given.items() if changes.get(name.removeprefix("webhook-"), "") is not None
        }

    return changed


REFUSED: Final = {
    "no id": change(id=None),
    "no timestamp": change(timestamp=None),
    "no signature": change(signature=None),
    "another id": change(id="message-2"),
    "an empty signature": change(signature=""),
    "a signature without version": change(signature="abc"),
    "a signature of three parts": change(signature="v1,a,b"),
    "a version without signature": change(signature="v1,"),
    "a signature that is no base64": change(signature="v1,é€"),
    "another version": change(signature="v1a,abc v2,abc"),
    "a wrong signature": change(signature="v1,AAAA"),
    "a timestamp that is no number": change(timestamp="soon"),
    "a negative timestamp": change(timestamp="-1"),
    "a timestamp in other digits": change(timestamp="١٢٣"),
    "a fraction": change(timestamp="1.5"),
    "a huge timestamp": change(timestamp="9" * 400),
    "not a number": change(timestamp="NaN"),
}


@pytest.mark.parametrize("changed", REFUSED.values(), ids=REFUSED)
def test_a_damaged_message_is_refused(changed: Callable[[Headers], Headers]) -> None:
    """The bug, in standardwebhooks 1.1.0: a malformed signature header is a ValueError, so a stranger gets a 500."""
    with pytest.raises(WebhookRefused):
        verify_webhook(SECRET, changed(signed()), BODY)


def test_another_body_secret_or_time_is_refused() -> None:
    for headers, body in (
        (signed(), BODY + b" "),
        (signed(secret=new_secret().reveal()), BODY),
        (signed(at=time.time() - 301), BODY),
        (signed(at=time.time() + 302), BODY),
    ):
        with pytest.raises(WebhookRefused):
            verify_webhook(SECRET, headers, body)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'"x"', b"1", b'{"type": "x"}'])
def test_what_is_signed_and_no_event_is_refused(body: bytes) -> None:
    with pytest.raises(WebhookRefused):
        verify_webhook(SECRET, signed(body), body)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_!", "é", " "])
def test_a_secret_that_is_none_is_refused(secret: str) -> None:
    """With an empty key everybody could sign."""
    with pytest.raises(ValueError, match="whsec_"):
        verify_webhook(secret, signed(), BODY)


def test_the_events_data_is_in_no_repr() -> None:
    body: dict[str, Any] = {"type": "challenge.issued", "timestamp": "", "data": {"context": "planted context"}}
    raw = json.dumps(body).encode()
    assert "planted" not in repr(verify_webhook(SECRET, signed(raw), raw))
