"""The standing health check: checks that harm nothing, twice before anybody is woken, and each thing told once."""

import logging
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
import time_machine
from django.core import mail
from pytest_django import Settings

from brands.doctor import CheckResult, bounded, health_check
from brands.models import AuthorizationServer, Brand, ServerHealth
from conversations.flow.server_health import keep_rows, store_check
from conversations.models import AuditEvent, WebhookDelivery
from conversations.outbox import worker
from conversations.outbox.health_checks import attempt_check, lease_checks, watch
from infrastructure import rate_limits
from tests.admin_pages import AdminBrowser
from tests.cast import make_server
from tests.concurrency import at_once
from tests.https_authorization_server import KEY, HttpsAuthorizationServer, running
from tests.tls import Authority
from tests.webhook_receiver import Receiver

pytestmark = pytest.mark.django_db(transaction=True)

# Long enough ago that what is written at the later checks of a test is due by now.
NOW: Final = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=12)
MINUTE: Final = timedelta(minutes=1)
DAY: Final = timedelta(days=1)
FAILING, RECOVERED = "authorization_server.failing", "authorization_server.recovered"
PROBLEM: Final = [{"code": "no_answer", "label": "Token endpoint", "meaning": "No answer.", "remedy": "CheckResult."}]
ONE_SENTENCE: Final = "No answer. The address is wrong, or its host has no public address"


@pytest.fixture(autouse=True)
def _quick(settings: Settings, tls_authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    settings.ALLOW_LOCAL_ENDPOINTS = True
    settings.OUTBOUND_CA_FILE = str(tls_authority.ca_file)
    monkeypatch.setattr(bounded, "SECONDS_UNTIL_NO", 0.6)
    monkeypatch.setattr(health_check, "SECONDS", 2.0)
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


# What a check sends, and when.


def test_a_check_sends_no_token_request_no_authorization_request_and_no_secret(
    server: AuthorizationServer, login: HttpsAuthorizationServer
) -> None:
    """N13."""
    AuthorizationServer.objects.update(client_secret_ciphertext=b"unreadable")  # nothing is decrypted
    check_again()
    assert sorted(login.requests) == [("GET", "/.well-known/openid-configuration"), ("GET", "/jwks"), ("HEAD", "/")]
    assert ServerHealth.objects.get().checked_at is not None


def test_each_server_is_checked_once_a_day_at_a_time_of_its_own(
    acme: Brand, login: HttpsAuthorizationServer, settings: Settings
) -> None:
    for number in range(30):
        make_server(acme, f"orders-{number}", **login.fields())
    keep_rows(NOW)
    times = list(ServerHealth.objects.values_list("next_attempt_at", flat=True))
    assert len(set(times)) > 20
    assert all(NOW <= time < NOW + DAY for time in times)
    first = ServerHealth.objects.order_by("next_attempt_at").first()
    assert first is not None
    ServerHealth.objects.exclude(pk=first.pk).delete()
    check(first.next_attempt_at)
    ServerHealth.objects.exclude(pk=first.pk).delete()
    assert ServerHealth.objects.get().next_attempt_at == first.next_attempt_at + DAY


def test_another_interval_holds_at_once(server: AuthorizationServer, settings: Settings) -> None:
    settings.HEALTH_CHECK_INTERVAL_HOURS = 168
    keep_rows(NOW)
    ServerHealth.objects.update(next_attempt_at=NOW + 6 * DAY)
    settings.HEALTH_CHECK_INTERVAL_HOURS = 1
    keep_rows(NOW)
    assert ServerHealth.objects.get().next_attempt_at <= NOW + 60 * MINUTE


def test_the_switch_turns_checks_and_marks_off(
    server: AuthorizationServer, login: HttpsAuthorizationServer, hooks: Receiver, settings: Settings
) -> None:
    login.stop()
    check_again(2)
    settings.HEALTH_CHECK_INTERVAL_HOURS = 0
    worker.run_once()
    assert not ServerHealth.objects.exists()


@pytest.mark.parametrize("whose", ["server", "brand"])
def test_what_is_switched_off_is_not_checked_and_loses_its_mark(
    server: AuthorizationServer, login: HttpsAuthorizationServer, hooks: Receiver, acme_admin: Any, whose: str
) -> None:
    login.stop()
    check_again(2)
    browser = AdminBrowser(acme_admin)
    assert "is failing since" in browser.get("/admin/").content.decode()
    (AuthorizationServer if whose == "server" else Brand).objects.update(is_active=False)
    page = f"/admin/brands/authorizationserver/{server.pk}/change/"
    assert "is failing since" not in "".join(browser.get(path).content.decode() for path in ("/admin/", page))
    ServerHealth.objects.update(next_attempt_at=NOW)
    assert lease_checks(NOW + DAY, 8) == []
    watch(NOW + DAY)
    assert not ServerHealth.objects.exists()
    assert told() == [FAILING]


# Twice, and then once.


def test_one_failed_check_wakes_nobody(
    server: AuthorizationServer, login: HttpsAuthorizationServer, hooks: Receiver
) -> None:
    login.hangs_for = 1.0
    now = check_again()
    assert (told(), problems()) == ([], [])
    assert ServerHealth.objects.get().next_attempt_at == now + 5 * MINUTE
    login.hangs_for = 0.0
    check_again()
    login.hangs_for = 1.0
    check_again()
    assert told() == []


def test_a_broken_server_is_told_of_once_and_again_when_it_works(
    server: AuthorizationServer, login: HttpsAuthorizationServer, hooks: Receiver
) -> None:
    login.stop()
    began = check_again()
    check_again(4)
    assert told() == [FAILING]
    login.start()
    login.keys = []
    check_again(2)
    assert (told(), problems()) == ([FAILING], ["keys_missing"])
    login.keys = [KEY]
    recovered = check_again(3) - 120 * MINUTE
    assert told() == [FAILING, RECOVERED]
    worker.run_once()
    failing, again = [message.payload for message in hooks.messages]
    since = failing["data"]["failing_since"]
    assert datetime.fromisoformat(since) == began
    assert failing["data"] == {"authorization_server": "orders", "failing_since": since, "problems": ["no_answer"]}
    assert datetime.fromisoformat(again["data"].pop("recovered_at")) == recovered
    assert again["data"] == {"authorization_server": "orders", "failing_since": since}


def test_workers_at_once_check_once_and_tell_once(
    server: AuthorizationServer, login: HttpsAuthorizationServer, hooks: Receiver
) -> None:
    """N13."""
    login.stop()
    now = check_again()
    for round_ in range(2):
        now += 60 * MINUTE
        ServerHealth.objects.update(next_attempt_at=now)
        at_once(2 + round_, lambda _, now=now: check(now))  # type: ignore[misc]
    assert told() == [FAILING]
    assert ServerHealth.objects.get().attempts == 3


def test_workers_that_store_the_same_check_tell_once(server: AuthorizationServer, hooks: Receiver) -> None:
    """A worker that hung longer than its lease stores nothing over what another has stored."""
    keep_rows(NOW)
    ServerHealth.objects.update(next_attempt_at=NOW, suspected_at=NOW - MINUTE)
    (health,) = lease_checks(NOW, 8)
    at_once(3, lambda _: store_check(health, CheckResult(PROBLEM, is_finished=True)))  # type: ignore[arg-type]
    (again,) = [lease for lease in [ServerHealth.objects.get()] if lease.lease_until is None]
    assert again.failing_since == NOW - MINUTE
    assert told() == [FAILING]


def test_a_mail_server_that_is_down_stops_nothing(
    server: AuthorizationServer, login: HttpsAuthorizationServer, hooks: Receiver, settings: Settings
) -> None:
    settings.EMAIL_BACKEND, settings.EMAIL_PORT = "django.core.mail.backends.smtp.EmailBackend", 1
    login.stop()
    check_again(2)
    worker.run_once()
    assert hooks.types == [FAILING]


# What is found, and in which words.


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"keys": []}, "keys_missing"),
        ({"status_of_keys": 404}, "keys_unreadable"),
        ({"status_of_keys": 503}, "keys_busy"),
        ({"clock_ahead": 600.0}, "clock_differs"),
    ],
)
def test_each_cause_is_named(
    server: AuthorizationServer, login: HttpsAuthorizationServer, hooks: Receiver, change: dict[str, Any], code: str
) -> None:
    for name, value in change.items():
        setattr(login, name, value)
    check_again(2)
    assert problems() == [code]
    assert told() == [FAILING]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"clock_ahead": 600.0, "further_headers": {"Age": "600"}}, id="an old date from a cache"),
        pytest.param({"clock_ahead": -600.0}, id="a clock behind ours, whose ID tokens are accepted"),
    ],
)
def test_no_problem_is_invented(
    server: AuthorizationServer, login: HttpsAuthorizationServer, change: dict[str, Any]
) -> None:
    for name, value in change.items():
        setattr(login, name, value)
    check_again(2)
    assert problems() == []


def test_an_expired_certificate_is_named(
    acme: Brand, login: HttpsAuthorizationServer, server: AuthorizationServer, tls_authority: Authority
) -> None:
    login.stop()
    login.certificate = tls_authority.issue("localhost", expired_at=datetime.now(UTC) - DAY)
    login.start()
    check_again(2)
    assert set(problems()) == {"certificate_expired"}
    assert "The TLS certificate has expired. Have it renewed." in mails()[0].body.replace("\nWhat to do:", "")


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        pytest.param("https://nowhere.example/token", "could not be reached", id="no DNS entry"),
        pytest.param("https://127.0.0.1:1/token", "could not be reached", id="refused"),
        pytest.param("https://169.254.169.254/token", "is not allowed", id="blocked"),
    ],
)
def test_the_brand_reads_one_sentence_whatever_the_reason_and_the_operator_more(
    server: AuthorizationServer,
    hooks: Receiver,
    acme_admin: Any,
    caplog: Any,
    no_names: None,
    address: str,
    reason: str,
) -> None:
    """N9, N13. The attack: the check as a scanner of our network."""
    AuthorizationServer.objects.update(token_endpoint=address, scope="", jwks_uri="", issuer="")
    check_again(2)
    pages = ["/admin/", "/admin/brands/authorizationserver/", f"/admin/brands/authorizationserver/{server.pk}/change/"]
    shown = [AdminBrowser(acme_admin).get(page).content.decode() for page in pages]
    (message,) = mails()
    worker.run_once()
    assert ONE_SENTENCE in shown[-1]
    assert ONE_SENTENCE in message.body
    assert hooks.messages[0].payload["data"]["problems"] == ["no_answer"]
    assert reason not in "".join([*shown, message.body, hooks.messages[0].body])
    logged = [vars(line)["error"] for line in caplog.records if line.name == "consumer_delegation.doctor"]
    assert len(logged) >= 2
    assert all(reason in line for line in logged)


def test_the_mail_says_what_is_wrong_since_when_and_what_to_do_and_no_secret(
    server: AuthorizationServer, login: HttpsAuthorizationServer, hooks: Receiver
) -> None:
    """N13: a path of an endpoint may hold a secret."""
    AuthorizationServer.objects.update(token_endpoint=f"{login.issuer}/planted-path")
    login.stop()
    began = check_again(2) - 60 * MINUTE
    (message,) = mails()
    assert (message.subject, message.to) == ("Acme: authorization server orders is failing", ["ada@acme.example"])
    assert f"since {began:%Y-%m-%d %H:%M} UTC" in message.body
    assert "What to do: Compare the address with your server's." in message.body
    assert f"https://delegation.test/admin/brands/authorizationserver/{server.pk}/doctor/" in message.body
    assert "planted" not in message.subject + message.body


def test_only_admins_of_the_brand_are_mailed(
    server: AuthorizationServer, login: HttpsAuthorizationServer, hooks: Receiver, rival_admin: Any, acme: Brand
) -> None:
    """J15: a viewer gets no mail that asks an admin to act."""
    rival_admin.email = "rita@rival.example"
    rival_admin.save()
    acme.viewers.add(rival_admin)
    login.stop()
    check_again(2)
    assert [message.to for message in mails()] == [["ada@acme.example"]]


def test_a_brand_gets_only_so_many_mails_a_day(
    acme: Brand, server: AuthorizationServer, hooks: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """N13. The attack: an admin has many servers fail and recover, to bury a colleague in mails."""
    monkeypatch.setattr(rate_limits, "HEALTH_MAILS_PER_BRAND", rate_limits.Limit("health-mails-per-brand", 3, 86_400))
    for number in range(4):
        make_server(acme, f"orders-{number}")
    keep_rows(NOW)
    ServerHealth.objects.update(next_attempt_at=NOW, suspected_at=NOW - MINUTE)
    for _ in range(3):
        for health in lease_checks(NOW, 8):
            store_check(health, CheckResult(PROBLEM, is_finished=True))  # type: ignore[arg-type]
    assert ServerHealth.objects.failing().count() == 5
    assert WebhookDelivery.objects.filter(event=FAILING).count() == 5
    assert len(mails()) == 3


# The admin.


def test_the_mark_is_on_the_home_page_in_the_list_and_on_the_servers_page(
    server: AuthorizationServer, login: HttpsAuthorizationServer, acme_admin: Any, rival_admin: Any
) -> None:
    login.stop()
    began = check_again(2) - 60 * MINUTE
    ada, rita = AdminBrowser(acme_admin), AdminBrowser(rival_admin)
    pages = ["/admin/", "/admin/brands/authorizationserver/", f"/admin/brands/authorizationserver/{server.pk}/change/"]
    home, listed, page = (ada.get(path).content.decode() for path in pages)
    doctor = f"/admin/brands/authorizationserver/{server.pk}/doctor/"
    assert f"is failing since {began:%Y-%m-%d %H:%M} UTC" in home
    assert f"is failing since {began:%Y-%m-%d %H:%M} UTC" in page
    assert all(f'href="{doctor}"' in html for html in (home, page))
    assert 'class="field-failing_since' in listed
    assert "failing since" not in rita.get("/admin/").content.decode()


def test_a_viewer_sees_the_mark_without_the_button_that_is_refused_to_viewers(
    server: AuthorizationServer, login: HttpsAuthorizationServer, rival_admin: Any, rival: Brand, acme: Brand
) -> None:
    """J15."""
    acme.viewers.add(rival_admin)
    rival.admins.remove(rival_admin)
    login.stop()
    check_again(2)
    home = AdminBrowser(rival_admin).get("/admin/").content.decode()
    assert ("is failing since" in home, "/doctor/" in home) == (True, False)


def test_a_broken_pass_stops_nothing_else_and_is_logged(
    server: AuthorizationServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_now: datetime) -> None:
        raise RuntimeError("planted fault")

    monkeypatch.setattr(worker, "watch", fail)
    with time_machine.travel(NOW, tick=False), pytest.raises(worker.RunIncomplete, match="health cannot be watched"):
        worker.run_once()
    assert [line for line in caplog.records if line.levelno == logging.ERROR]
