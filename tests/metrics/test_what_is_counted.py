"""Which measure each thing that happens adds to, in the process where it happens."""

from collections.abc import Callable
from typing import Any

import prometheus_client
import pytest
from django.db import transaction
from django.test import RequestFactory
from django.urls import get_resolver

from conversations import before_django
from conversations.api import waiting
from conversations.flow.slots import ServerBusy, call_slot
from infrastructure import metrics, rate_limits
from tests.brand_api import Caller
from tests.cast import Bot, Browser, code_on
from tests.fake_authorization_server import FakeAuthorizationServer
from tests.hostile_token_endpoint import http_answer
from web.measured import measured

pytestmark = pytest.mark.django_db

Series = Callable[[], dict[str, float]]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Series:
    """Count in this process's memory. Returns a function for the series that are not zero, without times."""
    measures = metrics._Measures(prometheus_client)
    monkeypatch.setattr(metrics._Process, "measures", measures)

    def series() -> dict[str, float]:
        text = prometheus_client.generate_latest(measures.served).decode()
        pairs = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
        hidden = ("_bucket", "_sum", "_created")
        found = {name: float(value) for name, _, value in pairs if not any(word in name for word in hidden)}
        return {name.removeprefix("delegation_"): value for name, value in found.items() if value}

    return series


def of(measure: str, counted: Series) -> dict[str, float]:
    return {name: value for name, value in counted().items() if name.startswith(measure)}


def ask(method: str, path: str, **headers: Any) -> int:
    """Ask the application of `delegation_site/wsgi.py` with metrics."""
    statuses: list[str] = []
    environ = (
        RequestFactory(SERVER_NAME="delegation.test", HTTP_HOST="delegation.test")
        .generic(method, path, secure=True, **headers)
        .environ
    )
    application = measured(before_django.before)
    list(application(environ, lambda status, _: statuses.append(status)))
    return int(statuses[0][:3])


@pytest.mark.django_db(transaction=True)  # the handler closes connections, as in production
@pytest.mark.parametrize(
    ("method", "path", "status", "labels"),
    [
        ("GET", "/health/live", 200, 'method="GET",operation="live",status="200"'),
        ("PLANTED", "/api/v1/operations", 405, 'method="other",operation="operations",status="405"'),
        ("GET", "/PLANTED", 404, 'method="GET",operation="unmatched",status="404"'),
        ("GET", "/static/PLANTED.css", 404, 'method="GET",operation="static",status="404"'),
        ("GET", "/admin/PLANTED/", 302, 'method="GET",operation="admin",status="302"'),
        ("GET", "/api/v1/conversations/PLANTED/token", 401, 'method="GET",operation="token",status="401"'),
        ("POST", "/api/v1/conversations/PLANTED/calls/PLANTED", 401, 'method="POST",operation="call",status="401"'),
        ("GET", "/c/PLANTED", 404, 'method="GET",operation="damaged_link",status="404"'),
        ("GET", "/api/PLANTED", 404, 'method="GET",operation="unmatched",status="404"'),
    ],
)
def test_a_call_is_counted_by_the_name_of_its_route(
    counted: Series, method: str, path: str, status: int, labels: str
) -> None:
    """H12: a path holds ids, links and what a scanner makes up: each would be a series of its own."""
    assert ask(method, path) == status
    assert of("calls_total", counted) == {f"calls_total{{{labels}}}": 1}
    assert "PLANTED" not in str(counted())


def test_every_route_of_ours_but_the_admin_has_a_name() -> None:
    """Calls of routes without a name would all be one series."""
    unnamed = [str(one.pattern) for one in get_resolver().url_patterns if getattr(one, "name", "") is None]
    assert [route for route in unnamed if not route.startswith("admin")] == []


@pytest.mark.django_db(transaction=True)
def test_a_token_read_is_counted_with_its_brand(
    counted: Series, acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, acme: Any
) -> None:
    code = code_on(ada.sign_in(acme_bot.challenge()["url"], acme_login))
    acme_bot.in_chat("POST", "/completion", {"code": code})
    path = f"/api/v1/conversations/{acme_bot.chat}/token"
    assert ask("GET", path, HTTP_AUTHORIZATION=f"Bearer {acme_bot.key}") == 200
    assert of("token_reads", counted) == {f'token_reads_total{{brand="{acme.uuid}"}}': 1}
    assert of("calls_total", counted) == {'calls_total{method="GET",operation="token",status="200"}': 1}


def test_a_sign_in_counts_the_challenges_steps_and_the_exchange(
    counted: Series, acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, acme: Any,
    django_capture_on_commit_callbacks: Any,
) -> None:  # fmt: skip
    with django_capture_on_commit_callbacks(execute=True):
        ada.sign_in(acme_bot.challenge()["url"], acme_login)
    brand = f'brand="{acme.uuid}"'
    assert of("challenges", counted) == {
        f'challenges_total{{{brand},outcome="{status}"}}': 1 for status in ("issued", "started", "confirmation_needed")
    }
    assert of("exchange", counted) == {f"exchange_seconds_count{{{brand}}}": 1}


def test_what_is_rolled_back_is_not_counted(
    counted: Series, acme_bot: Bot, acme_login: FakeAuthorizationServer, django_capture_on_commit_callbacks: Any
) -> None:
    with django_capture_on_commit_callbacks(execute=True), transaction.atomic():
        acme_bot.challenge()
        transaction.set_rollback(True)
    assert of("challenges", counted) == {}


def test_a_refused_code_is_counted_by_our_code_for_it(
    counted: Series, acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """H12: not by the word of the brand's server."""
    acme_login.next_token_answer = (400, {"Content-Type": "application/json"}, b'{"error": "PLANTED"}')
    ada.sign_in(acme_bot.challenge()["url"], acme_login)
    found = of("exchange_errors", counted)
    assert list(found.values()) == [1]
    assert "PLANTED" not in str(found)


def test_a_call_of_an_api_is_counted_by_its_outcome(counted: Series, caller: Caller) -> None:
    caller.call()
    caller.api.play(http_answer(b"", status=503))
    caller.call()
    brand = f'brand="{caller.server.brand.uuid}"'
    assert of("api_calls", counted) == {
        f'api_calls_total{{{brand},outcome="2xx"}}': 1, f'api_calls_total{{{brand},outcome="5xx"}}': 1
    }  # fmt: skip
    assert of("api_call_seconds", counted) == {f"api_call_seconds_count{{{brand}}}": 2}


def test_places_are_counted_while_they_are_held(counted: Series, settings: Any) -> None:
    settings.THREADS = 4
    with call_slot(1):
        assert counted() == {'places_in_use{kind="call"}': 1}
        with pytest.raises(ServerBusy), call_slot(2):
            pass
    assert counted() == {'limits_hit_total{limit="call-places"}': 1}


def test_waiting_calls_are_counted_while_they_wait(counted: Series, settings: Any) -> None:
    settings.THREADS = 1
    waiter: Any = object()
    assert not waiting._waiters.add(waiter)
    assert counted() == {'limits_hit_total{limit="waiting-places"}': 1}


def test_a_limit_is_counted_by_its_name_each_time(counted: Series) -> None:
    limit = rate_limits.Limit("of-a-test", 1, 60)
    rate_limits.count(limit, "PLANTED")
    for _ in range(2):
        with pytest.raises(rate_limits.RateLimited):
            rate_limits.count(limit, "PLANTED")
    rate_limits.count_in_process(limit, "PLANTED")
    with pytest.raises(rate_limits.RateLimited):
        rate_limits.count_in_process(limit, "PLANTED")
    assert counted() == {'limits_hit_total{limit="of-a-test"}': 3}
