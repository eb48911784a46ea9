"""The page with the digits asks how things stand: only its holder is told, cheaply, and nobody else is held up."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from infrastructure import rate_limits
from tests.cast import Bot, Browser, code_on, heading_of
from tests.fake_authorization_server import FakeAuthorizationServer
from tests.stored import everything_stored

pytestmark = pytest.mark.django_db


def waiting(bot: Bot, browser: Browser, login: FakeAuthorizationServer) -> tuple[str, Any]:
    """Sign in, as far as the digits. Returns the link and the page."""
    url = bot.challenge()["url"]
    return url, browser.sign_in(url, login)


def test_the_holder_hears_that_the_code_is_waited_for_and_that_it_has_arrived(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """B24: and for how long, by our clock."""
    with time_machine.travel(timezone.now(), tick=False) as clock:
        url, page = waiting(acme_bot, ada, acme_login)
        clock.shift(timedelta(seconds=61))
        assert ada.get(f"{url}/standing").json() == {"waiting": True, "seconds_left": 239}
        acme_bot.complete(code_on(page))
        assert ada.get(f"{url}/standing").json() == {"waiting": False, "seconds_left": 0}


ENDINGS: dict[str, Callable[[Bot, dict[str, Any]], Any]] = {
    "withdrawn": lambda bot, challenge: bot.call("DELETE", f"/challenges/{challenge['challenge_id']}"),
    "replaced": lambda bot, _: bot.challenge(replace=True),
    "too many codes": lambda bot, _: [bot.complete("000000") for _ in range(5)],
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_whatever_ends_the_waiting_is_no_waiting(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, ending: str
) -> None:
    challenge = acme_bot.challenge()
    ada.sign_in(challenge["url"], acme_login)
    ENDINGS[ending](acme_bot, challenge)
    assert ada.get(f"{challenge['url']}/standing").json() == {"waiting": False, "seconds_left": 0}


def test_the_waiting_ends_with_the_codes_life(acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer) -> None:
    url, _ = waiting(acme_bot, ada, acme_login)
    with time_machine.travel(timezone.now() + timedelta(minutes=5), tick=False):
        assert ada.get(f"{url}/standing").json() == {"waiting": False, "seconds_left": 0}


def test_a_wrong_code_changes_nothing_that_is_answered(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """B24: it is no oracle: of the code, of tries and of what the chat does it says nothing."""
    with time_machine.travel(timezone.now(), tick=False):
        url, page = waiting(acme_bot, ada, acme_login)
        before = ada.get(f"{url}/standing")
        acme_bot.complete(f"{(int(code_on(page)) + 1) % 1_000_000:06}")
        after = ada.get(f"{url}/standing")
    assert (before.content, before.status_code) == (after.content, after.status_code)


def test_all_others_get_the_page_of_an_unknown_link(
    acme_bot: Bot, ada: Browser, rita: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """B24, G9: Mallory's chat asked for the link, and Mallory began it as well; Victor's sign-in tells him nothing."""
    mallory = Browser()
    url = acme_bot.challenge()["url"]
    mallory.begin(url)
    ada.begin(url)
    asked = [mallory.get(f"{url}/standing"), ada.get(f"{url}/standing")]
    page = ada.sign_in(url, acme_login)
    asked += [mallory.get(f"{url}/standing"), rita.get(f"{url}/standing")]
    acme_bot.complete(code_on(page))
    asked += [mallory.get(f"{url}/standing"), rita.get(f"{url}/standing")]
    unknown = rita.get("https://delegation.test/c/no-such-link")
    assert {(answer.status_code, answer.content) for answer in asked} == {(404, unknown.content)}


def test_for_a_stranger_a_live_an_ended_and_an_unknown_link_cost_the_same(
    acme_bot: Bot, ada: Browser, rita: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """B24, G9."""
    url, _ = waiting(acme_bot, ada, acme_login)
    costs = [statements(rita, f"{link}/standing") for link in (url, f"/c/{'A' * 27}")]
    acme_bot.challenge(replace=True)
    assert costs == [statements(rita, f"{url}/standing")] * 2


def statements(browser: Browser, url: str) -> list[str]:
    """Ask, and return the kind of each statement that it cost."""
    with CaptureQueriesContext(connection) as queries:
        browser.get(url)
    kinds = [query["sql"].split()[0].lstrip("(") for query in queries]
    return [kind for kind in kinds if kind != "PREPARE"]


def test_looking_costs_two_reads_and_writes_nothing(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """B25: a page that waits for five minutes asks thirty times."""
    url, _ = waiting(acme_bot, ada, acme_login)
    ada.get(f"{url}/standing")
    before = everything_stored("brands_", "conversations_", "infrastructure_")
    with CaptureQueriesContext(connection) as queries:
        answer = ada.get(f"{url}/standing")
    assert len([query for query in queries if not query["sql"].startswith("PREPARE ")]) == 2
    assert everything_stored("brands_", "conversations_", "infrastructure_") == before
    assert (answer["Cache-Control"], answer.cookies) == ("no-store", {})


def test_thirty_consumers_behind_one_address_who_look_hold_up_no_callback(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """B25: five minutes of looking fit into no limit of the pages, and use none of it up."""
    with time_machine.travel(timezone.now(), tick=False):
        url, _ = waiting(acme_bot, ada, acme_login)
        authorization_url = Browser().begin(Bot(acme_bot.key, "another").challenge()["url"])
        looks = {ada.get(f"{url}/standing").status_code for _ in range(rate_limits.PAGES_PER_ADDRESS.times + 1)}
        returned = Browser().get(f"{acme_login.redirect_uri}?{acme_login.authorize(authorization_url)}")
    assert looks == {200}
    assert returned.status_code == 303


@pytest.mark.usefixtures("one_window")
def test_looking_has_a_limit_of_its_own_which_costs_no_statement(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B25, G8: made-up links count too, so nobody can make the database search without end."""
    monkeypatch.setattr(rate_limits, "LOOKS_PER_ADDRESS", rate_limits.Limit("few-looks", 3, 60))
    url, page = waiting(acme_bot, ada, acme_login)
    stranger = Browser()
    answers = [stranger.get(f"/c/{'A' * 27}/standing").status_code for _ in range(3)]
    assert (answers, statements(ada, f"{url}/standing")) == ([404] * 3, [])
    refused = ada.get(f"{url}/standing")
    assert (refused.status_code, refused.content) == (429, b"")
    assert 0 < int(refused["Retry-After"]) <= 60
    assert acme_bot.complete(code_on(page))[0] == 200
    assert heading_of(ada.get(f"{url}/done")) == "You're signed in"


def test_only_the_page_with_the_digits_may_ask_us(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """B24, B17: `connect-src` is no other page's, and no other origin's."""
    url = acme_bot.challenge()["url"]
    pages = [ada.get(url), ada.sign_in(url, acme_login)]
    acme_bot.complete(code_on(pages[1]))
    pages += [ada.get(f"{url}/done"), ada.get("/"), ada.get("/c/")]
    policies = [page["Content-Security-Policy"] for page in pages]
    assert ["connect-src" in policy for policy in policies] == [False, True, False, False, False]
    assert "connect-src 'self';" in f"{policies[1]};"


def test_the_page_leads_to_its_end_without_script_too(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    url, page = waiting(acme_bot, ada, acme_login)
    path = url.removeprefix("https://delegation.test")
    assert f'<a class="button" data-look href="{path}/done">I have sent the code</a>' in page.content.decode()
