"""How much one key, conversation, link and address may do, as bots and consumers see it (G8)."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.test import Client
from django.utils import timezone

from brands.models import AuthorizationServer
from conversations.models import AuthorizationRequest, Challenge, Conversation
from infrastructure import rate_limits
from infrastructure.models import RateCounter
from tests.cast import HOST, Bot, Browser, code_on, heading_of
from tests.concurrency import at_once
from tests.fake_authorization_server import FakeAuthorizationServer

pytestmark = pytest.mark.django_db


def limit_to(monkeypatch: pytest.MonkeyPatch, name: str, times: int) -> None:
    """Make a limit small; how many it allows in the product is asserted below."""
    monkeypatch.setattr(rate_limits, name, replace(getattr(rate_limits, name), times=times))


def check_problem(response: Any) -> None:
    assert (response.status_code, response["Content-Type"]) == (429, "application/problem+json")
    assert 1 <= int(response["Retry-After"]) <= 600
    problem = response.json()
    again = problem.pop("next")
    assert (again["method"], again["path"]) == (response.request["REQUEST_METHOD"], response.request["PATH_INFO"])
    assert (problem.pop("detail") != "", problem) == (
        True,
        {
            "type": "urn:consumer-delegation:problem:rate_limited",
            "title": "Rate limited",
            "status": 429,
            "code": "rate_limited",
        },
    )


def check_page(response: Any) -> None:
    assert (response.status_code, heading_of(response)) == (429, "Too many tries in a short time")
    assert 1 <= int(response["Retry-After"]) <= 60
    assert response["Cache-Control"] == "no-store"


def test_the_limits_are_as_wide_as_they_are_meant_to_be() -> None:
    """G8: pages 60 a minute for each link; keys generously; addresses wide enough for a mobile network."""
    limits = [value for value in vars(rate_limits).values() if isinstance(value, rate_limits.Limit)]
    assert {(limit.name, limit.times, limit.seconds) for limit in limits} == {
        ("calls-per-key", 6_000, 60),
        ("token-reads-per-key", 30_000, 60),
        ("looks-per-address", 1_200, 60),
        ("failed-keys-per-address", 30, 60),
        ("pages-per-link", 60, 60),
        ("pages-per-address", 600, 60),
        ("sign-ins-per-address", 20, 600),
        ("connection-tests-per-admin", 10, 600),
        ("metadata-lookups-per-admin", 10, 600),
        ("password-changes-per-admin", 5, 600),
        ("health-mails-per-brand", 20, 24 * 60 * 60),
    }


def test_a_sixth_new_challenge_within_ten_minutes_is_refused(acme_bot: Bot, acme_server: AuthorizationServer) -> None:
    """G8: new ones are counted, handing the live one out again is free, and a refusal leaves it as it was."""
    with time_machine.travel(timezone.now(), tick=False) as clock:
        challenges = []
        for _ in range(5):
            challenges.append(acme_bot.challenge(replace=True)["challenge_id"])
            clock.shift(timedelta(seconds=30))
        refused = acme_bot.send("POST", f"/conversations/{acme_bot.chat}/challenges", {"replace": True})
        check_problem(refused)
        assert refused["Retry-After"] == "450"
        assert acme_bot.in_chat("POST", "/challenges")[1]["challenge_id"] == challenges[-1]
        assert acme_bot.in_chat("POST", "/authorize")[1]["challenge_id"] == challenges[-1]
        assert Challenge.objects.count() == 5
        clock.shift(timedelta(seconds=449))
        check_problem(acme_bot.send("POST", f"/conversations/{acme_bot.chat}/authorize", {"replace": True}))
        clock.shift(timedelta(seconds=1))
        acme_bot.challenge(replace=True)


def test_one_conversations_limit_is_no_other_ones(acme_bot: Bot, acme_server: AuthorizationServer) -> None:
    """G8: per conversation."""
    for _ in range(5):
        acme_bot.challenge(replace=True)
    assert acme_bot.in_chat("POST", "/challenges", {"replace": True})[0] == 429
    acme_bot.chat = "another"
    acme_bot.challenge()
    assert Conversation.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_of_twelve_new_challenges_at_once_exactly_five_are_made(
    acme_bot: Bot, acme_server: AuthorizationServer
) -> None:
    """G8: under the conversation's lock, so that nobody slips through between counting and inserting."""
    answers = at_once(12, lambda _: acme_bot.in_chat("POST", "/challenges", {"replace": True})[0])
    assert sorted(answers) == [201] * 5 + [429] * 7
    assert Challenge.objects.count() == 5


@pytest.mark.usefixtures("one_window")
def test_calls_of_one_key_are_counted_in_the_shared_store(
    acme_bot: Bot, rival_bot: Bot, acme_server: AuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G8: a bot gone wild stops itself and no other."""
    limit_to(monkeypatch, "CALLS_PER_KEY", 3)
    path = f"/conversations/{acme_bot.chat}"
    assert [acme_bot.send("GET", path).status_code for _ in range(3)] == [404] * 3
    check_problem(acme_bot.send("GET", path))
    assert rival_bot.send("GET", path).status_code == 404
    assert sorted(RateCounter.objects.values_list("times", flat=True)) == [1, 4]


@pytest.mark.usefixtures("one_window")
def test_token_reads_are_limited_without_a_write(
    acme_bot: Bot, acme_server: AuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G8, G6: in process, since reading a token writes nothing."""
    limit_to(monkeypatch, "TOKEN_READS_PER_KEY", 3)
    path = f"/conversations/{acme_bot.chat}/token"
    assert [acme_bot.send("GET", path).status_code for _ in range(3)] == [404] * 3
    check_problem(acme_bot.send("GET", path))
    assert RateCounter.objects.count() == 0


def test_authorize_counts_as_a_token_read_and_writes_only_where_it_issues(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G8, G6: with a token there it is a read."""
    challenge = acme_bot.challenge()
    acme_bot.complete(code_on(ada.sign_in(challenge["url"], acme_login)))
    before = list(RateCounter.objects.order_by("key").values())
    assert acme_bot.in_chat("POST", "/authorize")[0] == 200
    assert list(RateCounter.objects.order_by("key").values()) == before
    limit_to(monkeypatch, "CALLS_PER_KEY", 0)
    check_problem(Bot(acme_bot.key, "another").send("POST", "/conversations/another/authorize", {}))


@pytest.mark.usefixtures("one_window")
def test_wrong_keys_are_refused_by_address_and_right_ones_work_on(
    acme_bot: Bot, acme_server: AuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G8, G1: a stranger's noise does not lock out a bot behind the same address."""
    limit_to(monkeypatch, "FAILED_KEYS_PER_ADDRESS", 3)
    wrong = Bot("cdk_wrong")
    assert [wrong.send("GET", "/conversations/x").status_code for _ in range(3)] == [401] * 3
    check_problem(wrong.send("GET", "/conversations/x"))
    assert acme_bot.send("GET", "/conversations/x").status_code == 404


def test_a_link_shows_sixty_pages_a_minute(acme_bot: Bot, ada: Browser, acme_server: AuthorizationServer) -> None:
    """G8: whatever page of it; another link of the same address works on."""
    with time_machine.travel(timezone.now(), tick=False) as clock:
        url = acme_bot.challenge()["url"]
        pages = ["", "/done", "/other-browser"] * 20
        assert 429 not in {ada.get(url + page).status_code for page in pages}
        limited = ada.get(url)
        check_page(limited)
        acme_bot.chat = "another"
        assert ada.get(acme_bot.challenge()["url"]).status_code == 200
        clock.shift(timedelta(seconds=int(limited["Retry-After"])))
        assert ada.get(url).status_code == 200


def test_an_address_is_limited_on_links_and_callbacks_together(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G8: made-up links count too; a callback that is refused has spent nothing and works a minute later."""
    with time_machine.travel(timezone.now(), tick=False) as clock:
        authorization_url = ada.begin(acme_bot.challenge()["url"])
        limit_to(monkeypatch, "PAGES_PER_ADDRESS", 4)
        assert [ada.get(f"https://{HOST}/c/made-up-{number}").status_code for number in range(2)] == [404] * 2
        returned = f"{acme_login.redirect_uri}?{acme_login.authorize(authorization_url)}"
        limited = ada.get(returned)
        check_page(limited)
        assert AuthorizationRequest.objects.get().claimed_at is None
        clock.shift(timedelta(seconds=int(limited["Retry-After"])))
        assert ada.get(returned).status_code == 303
        assert AuthorizationRequest.objects.get().claimed_at is not None


@pytest.mark.usefixtures("one_window")
def test_a_claimed_address_is_not_believed(acme_server: AuthorizationServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """G8: a new X-Forwarded-For each time does not get around the limit where no proxy is trusted."""
    limit_to(monkeypatch, "PAGES_PER_ADDRESS", 2)
    answers = [
        Client(SERVER_NAME=HOST)
        .get("/c/x", secure=True, headers={"X-Forwarded-For": f"203.0.113.{number}"})
        .status_code
        for number in range(4)
    ]
    assert answers == [404, 404, 429, 429]


@pytest.mark.usefixtures("one_window")
def test_behind_a_trusted_proxy_each_client_has_its_own_limit(
    acme_server: AuthorizationServer, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    """G8: the entry that our proxy wrote, whatever stands left of it."""
    settings.TRUSTED_PROXY_COUNT = 1
    limit_to(monkeypatch, "PAGES_PER_ADDRESS", 1)
    seen = [("203.0.113.1", 404), ("203.0.113.2", 404), ("9.9.9.9, 203.0.113.1", 429), ("203.0.113.3", 404)]
    for forwarded, status in seen:
        response = Client(SERVER_NAME=HOST).get("/c/x", secure=True, headers={"X-Forwarded-For": forwarded})
        assert response.status_code == status, forwarded
