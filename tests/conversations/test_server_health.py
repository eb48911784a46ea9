"""The standing health check: checks that harm nothing, twice before anybody is woken, and each thing told once."""

from datetime import datetime
from typing import Any

import pytest
from pytest_django import Settings

from brands.doctor import CheckResult
from brands.models import AuthorizationServer, Brand, ServerHealth
from conversations.flow.server_health import keep_rows, store_check
from conversations.outbox import worker
from conversations.outbox.health_checks import lease_checks, watch
from tests.admin_pages import AdminBrowser
from tests.cast import make_server
from tests.concurrency import at_once
from tests.conversations.checked_server import (
    DAY,
    FAILING,
    MINUTE,
    NOW,
    PROBLEM,
    RECOVERED,
    check,
    check_again,
    hooks,
    login,
    logins,
    problems,
    quick,
    server,
    told,
)
from tests.https_authorization_server import KEY, HttpsAuthorizationServer
from tests.webhook_receiver import Receiver

# The fixtures, by their names.
__all__ = ["hooks", "login", "logins", "quick", "server"]

pytestmark = pytest.mark.django_db(transaction=True)


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
    assert "has been failing since" in browser.get("/admin/").content.decode()
    (AuthorizationServer if whose == "server" else Brand).objects.update(is_active=False)
    page = f"/admin/brands/authorizationserver/{server.pk}/change/"
    assert "has been failing since" not in "".join(browser.get(path).content.decode() for path in ("/admin/", page))
    ServerHealth.objects.update(next_attempt_at=NOW)
    assert lease_checks(NOW + DAY, 8) == []
    watch(NOW + DAY)
    assert not ServerHealth.objects.exists()
    assert told() == [FAILING]


# Twice, and then once.


def test_one_failed_check_wakes_nobody(
    server: AuthorizationServer, login: HttpsAuthorizationServer, hooks: Receiver
) -> None:
    login.hangs_for = 2.5
    now = check_again()
    assert (told(), problems()) == ([], [])
    assert ServerHealth.objects.get().next_attempt_at == now + 5 * MINUTE
    login.hangs_for = 0.0
    check_again()
    login.hangs_for = 2.5
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


def test_a_worker_that_hung_stores_nothing_over_a_later_check(server: AuthorizationServer, hooks: Receiver) -> None:
    """N13."""
    keep_rows(NOW)
    ServerHealth.objects.update(next_attempt_at=NOW, suspected_at=NOW - MINUTE)
    (hung,) = lease_checks(NOW, 8)
    (in_time,) = lease_checks(NOW + 2 * MINUTE, 8)
    store_check(in_time, CheckResult([], is_finished=True))
    store_check(hung, CheckResult(PROBLEM, is_finished=True))  # type: ignore[arg-type]
    health = ServerHealth.objects.get()
    assert (health.suspected_at, health.problems, told()) == (None, [], [])


def test_workers_that_store_the_same_check_tell_once(server: AuthorizationServer, hooks: Receiver) -> None:
    keep_rows(NOW)
    ServerHealth.objects.update(next_attempt_at=NOW, suspected_at=NOW - MINUTE)
    (health,) = lease_checks(NOW, 8)
    at_once(3, lambda _: store_check(health, CheckResult(PROBLEM, is_finished=True)))  # type: ignore[arg-type]
    again = ServerHealth.objects.get()
    assert (again.failing_since, again.lease_until) == (NOW - MINUTE, None)
    assert told() == [FAILING]


def test_a_mail_server_that_is_down_stops_nothing(
    server: AuthorizationServer, login: HttpsAuthorizationServer, hooks: Receiver, settings: Settings
) -> None:
    settings.EMAIL_BACKEND, settings.EMAIL_PORT = "django.core.mail.backends.smtp.EmailBackend", 1
    login.stop()
    check_again(2)
    worker.run_once()
    assert hooks.types == [FAILING]
