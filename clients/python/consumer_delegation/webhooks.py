"""Verify a webhook by the Standard Webhooks specification, and read its event."""

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from consumer_delegation.problems import DelegationError

TOLERANCE = 300  # seconds: an older message may be a repeated one


class WebhookRefused(DelegationError):
    """Not from the service, damaged, or too old. Answer 401."""


@dataclass(frozen=True)
class Event:
    """One event. Ignore a `type` that you do not know, and an `id` that you have seen."""

    id: str
    type: str
    timestamp: str
    data: dict[str, Any] = field(repr=False)
    sequence: int | None = None  # events that belong to no conversation have none


def verify_webhook(secret: str | Iterable[str], headers: Mapping[str, str], body: bytes) -> Event:
    """Return the event of a message that was signed with this secret, or with one of several. Pass `body` as it came.

    Raises `WebhookRefused` for every other message, and `ValueError` for a secret that is none.
    """
    given = {name.lower(): value for name, value in headers.items()}
    try:
        message_id, sent_at, signatures = (given[f"webhook-{part}"] for part in ("id", "timestamp", "signature"))
    except KeyError as missing:
        raise WebhookRefused(f"no header {missing}") from None
    if not (
        sent_at.isascii() and sent_at.isdigit() and len(sent_at) < 16 and abs(time.time() - int(sent_at)) <= TOLERANCE
    ):
        raise WebhookRefused("too old, or the clocks differ")
    signed = f"{message_id}.{sent_at}.".encode() + body
    keys = [_key(each) for each in ([secret] if isinstance(secret, str) else secret)]
    ours = [base64.b64encode(hmac.digest(key, signed, hashlib.sha256)) for key in keys]
    # One signature, or two while a secret is being replaced. Others may be of later versions of the specification.
    theirs = [
        each.removeprefix("v1,").encode("utf-8", "replace") for each in signatures.split(" ") if each.startswith("v1,")
    ]
    if not any(hmac.compare_digest(own, other) for own in ours for other in theirs):
        raise WebhookRefused("no signature is right")
    return _event(message_id, body)


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.strip().removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:  # everybody can sign with an empty key
        raise ValueError("the secret of a webhook endpoint begins with whsec_")
    return key


def _event(message_id: str, body: bytes) -> Event:
    try:
        told = json.loads(body)
        return Event(message_id, told["type"], told["timestamp"], told["data"], told.get("sequence"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WebhookRefused("signed, but no event") from error
