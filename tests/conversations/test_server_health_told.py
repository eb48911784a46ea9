"""What the standing health check finds, and the words in which admin, mail and webhook say it."""

import logging
import time
from datetime import UTC, datetime
from typing import Any

import pytest
import time_machine

from brands.doctor import CheckResult, bounded, run_health_check
from brands.models import AuthorizationServer, Brand, ServerHealth
from conversations.flow.server_health import keep_rows, store_check
from conversations.models import WebhookDelivery
from conversations.outbox import worker
from conversations.outbox.health_checks import lease_checks
from infrastructure import rate_limits
from tests.admin_pages import AdminBrowser
from tests.cast import make_server
from tests.conversations.checked_server import (
    DAY,
    FAILING,
    MINUTE,
    NOW,
    ONE_SENTENCE,
    PROBLEM,
    check_again,
    hooks,
    login,
    logins,
    mails,
    no_names,
    problems,
    quick,
    server,
    told,
)
from tests.https_authorization_server import HttpsAuthorizationServer
from tests.tls import Authority
from tests.webhook_receiver import Receiver

# The fixtures, by their names.
__all__ = ["hooks", "login", "logins", "no_names", "quick", "server"]

pytestmark = pytest.mark.django_db(transaction=True)


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
    assert f"Since {began:%Y-%m-%d %H:%M} UTC" in message.body
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
    assert f"has been failing since {began:%Y-%m-%d %H:%M} UTC" in home
    assert f"has been failing since {began:%Y-%m-%d %H:%M} UTC" in page
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
    assert ("has been failing since" in home, "/doctor/" in home) == (True, False)


def test_a_broken_pass_stops_nothing_else_and_is_logged(
    server: AuthorizationServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_now: datetime) -> None:
        raise RuntimeError("planted fault")

    monkeypatch.setattr(worker, "watch", fail)
    with time_machine.travel(NOW, tick=False), pytest.raises(worker.RunIncomplete, match="health cannot be watched"):
        worker.run_once()
    assert [line for line in caplog.records if line.levelno == logging.ERROR]


@pytest.mark.parametrize("address", ["https://169.254.169.254/", "https://127.0.0.1:1/", "https://nowhere.example/"])
def test_no_answer_comes_sooner_than_a_time_out(server: AuthorizationServer, no_names: None, address: str) -> None:
    """N9, N13. The attack: an admin learns from the moment of the mail whether an address is there."""
    server.token_endpoint = f"{address}token"
    began = time.monotonic()
    assert [problem["code"] for problem in run_health_check(server).problems] == ["no_answer"]
    assert time.monotonic() - began >= bounded.SECONDS_UNTIL_NO
