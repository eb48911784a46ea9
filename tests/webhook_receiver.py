"""A bot's webhook receiver as a transport adapter. It sees what we really send, and verifies each signature."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

import pytest
import requests
from requests.adapters import BaseAdapter
from standardwebhooks import Webhook

from brands.models import Brand, WebhookEndpoint
from brands.webhooks import create_webhook_endpoint
from conversations.outbox import worker
from oauth_client import transport
from tests import contract


@dataclass(frozen=True)
class Message:
    """A request as it arrived."""

    headers: dict[str, str]
    body: str

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def payload(self) -> dict[str, Any]:
        return dict(json.loads(self.body))

    @property
    def type(self) -> str:
        return str(self.payload["type"])


@dataclass
class Receiver(BaseAdapter):
    """A bot's endpoint. It answers 204, or what `next_answers` says: a status, or an error to raise."""

    endpoint: WebhookEndpoint
    secret: str = field(repr=False)
    messages: list[Message] = field(default_factory=list)
    next_answers: list[int | transport.OutboundError] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def send(self, request: requests.PreparedRequest, *_arguments: Any, **_options: Any) -> requests.Response:
        """Verify the signature, check the message against the contract, store it, and answer."""
        assert (request.method, request.url) == ("POST", self.endpoint.url)
        assert isinstance(request.body, bytes)
        message = Message({name.lower(): str(value) for name, value in request.headers.items()}, request.body.decode())
        Webhook(self.secret).verify(message.body, message.headers)
        contract.check_webhook(message.payload, message.headers)
        self.messages.append(message)
        answer = self.next_answers.pop(0) if self.next_answers else 204
        if isinstance(answer, Exception):
            raise answer
        response = requests.Response()
        response.status_code, response.raw, response.request = answer, BytesIO(), request
        response.url = self.endpoint.url
        return response

    def close(self) -> None:
        """Nothing to close."""

    @property
    def types(self) -> list[str]:
        """The names of the events, in the order of arrival."""
        return [message.type for message in self.messages]

    def deliver(self) -> list[str]:
        """Let the worker do what is due. Returns the names of the delivered events, by sequence."""
        before = len(self.messages)
        worker.run_once()
        return [message.type for message in sorted(self.messages[before:], key=lambda m: m.payload["sequence"])]


def make_endpoint(brand: Brand, host: str = "", events: tuple[str, ...] = ("*",)) -> tuple[WebhookEndpoint, str]:
    """Save an endpoint. Returns it with its secret."""
    host = host or f"bot.{brand.slug}.example"
    endpoint = WebhookEndpoint(brand=brand, url=f"https://{host}/hooks", events=list(events))
    secret = create_webhook_endpoint(endpoint)
    return endpoint, secret.reveal()


class Receivers:
    """Receivers for outbound calls, by host. All other calls go where they went before."""

    def __init__(self) -> None:
        self._by_host: dict[str, Receiver] = {}

    def add(self, brand: Brand, host: str = "", events: tuple[str, ...] = ("*",)) -> Receiver:
        """Create an endpoint and its receiver."""
        receiver = Receiver(*make_endpoint(brand, host, events))
        self._by_host[urlsplit(receiver.endpoint.url).netloc] = receiver
        return receiver

    def of(self, url: str) -> Receiver | None:
        """The receiver of a URL."""
        return self._by_host.get(urlsplit(url).netloc)


@pytest.fixture
def receivers(logins: object) -> Iterator[Receivers]:
    """Where a test adds receivers, beside the brands' authorization servers."""
    mounted, others = Receivers(), transport.adapter_for
    with mock.patch.object(transport, "adapter_for", lambda url: mounted.of(url) or others(url)):
        yield mounted


@pytest.fixture
def acme_hooks(acme: Brand, receivers: Receivers) -> Receiver:
    """acme-bot's receiver. It wants every event."""
    return receivers.add(acme)
