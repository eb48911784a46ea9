"""Acme's authorization server as the standing health check meets it, and what the brand was told."""

import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from django.core import mail
from pytest_django import Settings

from brands.doctor import bounded, health_check
from brands.models import AuthorizationServer, Brand, ServerHealth
from conversations.models import AuditEvent, WebhookDelivery
from conversations.outbox.health_checks import attempt_check, lease_checks, watch
from tests.cast import make_server
from tests.https_authorization_server import HttpsAuthorizationServer, running
from tests.tls import Authority
from tests.webhook_receiver import Receiver

# Long enough ago that what is written at the later checks of a test is due by now.
NOW: Final = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=12)
MINUTE: Final = timedelta(minutes=1)
DAY: Final = timedelta(days=1)
FAILING, RECOVERED = "authorization_server.failing", "authorization_server.recovered"
PROBLEM: Final = [{"code": "no_answer", "label": "Token endpoint", "meaning": "No answer.", "remedy": "Check."}]
ONE_SENTENCE: Final = "No answer. The address is wrong, or its host has no public address"


@pytest.fixture(autouse=True)
def quick(settings: Settings, tls_authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    settings.ALLOW_LOCAL_ENDPOINTS = True
    settings.OUTBOUND_CA_FILE = str(tls_authority.ca_file)
    monkeypatch.setattr(bounded, "SECONDS_UNTIL_NO", 1.5)
    monkeypatch.setattr(health_check, "SECONDS", 4.0)
    yield
    for thread in threading.enumerate():
        if thread.name.startswith("doctor"):
            thread.join(20)


@pytest.fixture
def login(tls_authority: Authority) -> Iterator[HttpsAuthorizationServer]:
    """Acme's authorization server."""
    with running(tls_authority.issue()) as server:
        yield server


@pytest.fixture
def server(acme: Brand, acme_admin: Any, login: HttpsAuthorizationServer) -> AuthorizationServer:
    """Acme's registration there, with an admin who gets mail."""
    acme_admin.email = "ada@acme.example"
    acme_admin.save()
    return make_server(acme, **login.fields())


@pytest.fixture
def no_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the resolver know no name of an invented host."""
    real = socket.getaddrinfo

    def resolve(host: str, *arguments: Any, **options: Any) -> Any:
        if host.endswith(".example"):
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return real(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


@pytest.fixture
def logins() -> None:
    """Mount no fake server: calls go where they really lead, but those to acme-bot's receiver."""


@pytest.fixture
def hooks(acme_hooks: Receiver) -> Receiver:
    """acme-bot's receiver."""
    return acme_hooks


def check(now: datetime) -> None:
    """Let a worker check every server that is due, and do the minute's part."""
    watch(now)
    for health in lease_checks(now, 8):
        attempt_check(health)()


def check_again(times: int = 1, after: timedelta = timedelta()) -> datetime:
    """Make every server due, and check it; each time an hour later than before."""
    now = (ServerHealth.objects.get().checked_at or NOW) + after if ServerHealth.objects.exists() else NOW
    for _ in range(times):
        now += 60 * MINUTE
        watch(now)
        ServerHealth.objects.update(next_attempt_at=now)
        check(now)
    return now


def told() -> list[str]:
    """Return what the brand was told: audit rows. Webhook events and mails have to agree."""
    kinds = [FAILING, RECOVERED]
    audited = list(AuditEvent.objects.filter(kind__in=kinds).order_by("id").values_list("kind", flat=True))
    sent = WebhookDelivery.objects.filter(event__in=kinds).order_by("id").values_list("event", flat=True)
    assert list(sent) == audited
    assert [FAILING if "is failing" in message.subject else RECOVERED for message in mails()] == audited
    return audited


def mails() -> list[Any]:
    """Return the mails about servers; the one about the new webhook endpoint is left out."""
    return [message for message in mail.outbox if "authorization server" in message.subject]


def problems() -> list[str]:
    return [problem["code"] for problem in ServerHealth.objects.get().problems]
