"""Two real workers, one of them killed and started again: a server that fails and recovers is told of once each."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.https_authorization_server import HttpsAuthorizationServer, running
from tests.installation import ROOT, Installation
from tests.tls import Authority

SET_UP = """
from django.contrib.auth import get_user_model
from brands.models import AuthorizationServer, Brand, WebhookEndpoint
from brands.webhooks import create_webhook_endpoint
brand = Brand.objects.create(name="Acme", slug="acme")
brand.admins.add(get_user_model().objects.create_user("ada", "ada@acme.example", is_staff=True))
AuthorizationServer(brand=brand, key="orders", client_id="x", **{fields}).save()
create_webhook_endpoint(WebhookEndpoint(brand=brand, url="https://localhost:1/hooks"))
"""
# A check that is running would store its own next time.
MAKE_DUE = """
import time
from django.utils import timezone
from brands.models import ServerHealth
while not ServerHealth.objects.filter(lease_until=None).update(next_attempt_at=timezone.now(){changes}):
    time.sleep(0.1)
"""
ATTEMPTS = "from brands.models import ServerHealth\nprint(*ServerHealth.objects.values_list('attempts', flat=True))"
TOLD = """
from conversations.models import AuditEvent, WebhookDelivery
events = ("authorization_server.failing", "authorization_server.recovered")
print(*(AuditEvent.objects.filter(kind=event).count() for event in events))
print(*(WebhookDelivery.objects.filter(event=event).count() for event in events))
"""


@dataclass
class Workers:
    """Worker processes of an installation. What they print is in files; mails are printed, too."""

    installation: Installation
    processes: dict[str, "subprocess.Popen[Any]"] = field(default_factory=dict)

    def start(self, name: str) -> None:
        """Start a worker."""
        with (self.installation.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "manage.py", "worker"],
                cwd=ROOT, env=self.installation.environment | {"PYTHONUNBUFFERED": "1"}, stdout=log, stderr=log,
            )  # fmt: skip

    def kill(self, name: str) -> None:
        """End a worker without a chance to tidy up."""
        self.processes[name].kill()
        self.processes[name].wait()

    def printed(self, text: str) -> int:
        """Count a text in what all of them printed."""
        return sum(file.read_text().count(text) for file in self.installation.folder.glob("*.log"))

    def told(self) -> list[str]:
        """Return how often a failure and a recovery were told: in the audit log, and as webhook events."""
        return self.installation.python(TOLD).splitlines()


@pytest.fixture
def login(tls_authority: Authority) -> Iterator[HttpsAuthorizationServer]:
    with running(tls_authority.issue()) as server:
        yield server


@pytest.fixture
def workers(tmp_path: Path, login: HttpsAuthorizationServer, tls_authority: Authority) -> Iterator[Workers]:
    """Return two workers of an installation that knows Acme's server."""
    settings = {
        "PUBLIC_BASE_URL": "https://delegation.test",
        "ALLOW_LOCAL_ENDPOINTS": "1",
        "OUTBOUND_CA_FILE": str(tls_authority.ca_file),
    }
    workers = Workers(Installation(tmp_path, "only:9l8GIbXrL3uWnxkKcEgT1nKk1jC1s0pNqQv3y0m0c5A=", settings))
    workers.installation.migrate()
    workers.installation.python(SET_UP.format(fields=login.fields()))
    for name in ("one", "two"):
        workers.start(name)
    yield workers
    for name in workers.processes:
        workers.kill(name)


def wait_until(happened: Callable[[], bool]) -> None:
    while not happened():
        time.sleep(0.2)


@pytest.mark.timeout(120)
@pytest.mark.full
def test_workers_that_are_killed_and_started_again_tell_once(workers: Workers, login: HttpsAuthorizationServer) -> None:
    """N13."""
    wait_until(lambda: workers.installation.python(ATTEMPTS) == "0")
    login.stop()
    workers.installation.python(MAKE_DUE.format(changes=", suspected_at=timezone.now()"))
    wait_until(lambda: workers.printed("Subject: Acme: authorization server orders is failing") > 0)
    workers.kill("one")
    workers.start("one")
    requests = len(login.requests)
    workers.installation.python(MAKE_DUE.format(changes=""))
    wait_until(lambda: workers.installation.python(ATTEMPTS) == "2")
    login.start()
    workers.installation.python(MAKE_DUE.format(changes=""))
    wait_until(lambda: workers.printed("Subject: Acme: authorization server orders works again") > 0)
    assert workers.told() == ["1 1", "1 1"]
    assert workers.printed("Subject: Acme: authorization server") == 2
    assert len(login.requests) - requests == 3  # one worker checked it, once
