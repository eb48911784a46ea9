"""A browser that has signed in often, or tried often: its cookies stay few, and none is lost that is still of use."""

from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from conversations.flow.authorization_requests import MAX_COOKIES, MAX_PENDING_REQUESTS
from conversations.models import AuthorizationRequest
from tests.cast import Bot, Browser, code_on, heading_of
from tests.fake_authorization_server import FakeAuthorizationServer

pytestmark = pytest.mark.django_db

MANY = 25


class CountedBrowser(Browser):
    """Tells which of our cookies it holds."""

    def authorization_requests(self) -> set[str]:
        """Return the names of the authorization requests' cookies that it holds."""
        return {name for name in self.client.cookies if name.startswith("__Host-attempt-")}


@pytest.fixture
def ada() -> CountedBrowser:
    return CountedBrowser()


def another_chat(bot: Bot, number: int) -> Bot:
    return Bot(bot.key, f"chat-{number}")


def signed_in(bot: Bot, ada: Browser, login: FakeAuthorizationServer, number: int) -> str:
    """Sign in for a chat of its own, whose token lives on; return the link."""
    chat = another_chat(bot, number)
    url = str(chat.challenge()["url"])
    assert chat.complete(code_on(ada.sign_in(url, login)))[0] == 200
    return url


def test_a_regular_customers_next_sign_in_shows_its_code_and_her_first_can_be_undone(
    acme_bot: Bot, ada: CountedBrowser, acme_login: FakeAuthorizationServer
) -> None:
    """B3: the bug: of the names, which come oldest first, 20 were read: "this link no longer works"."""
    links = [signed_in(acme_bot, ada, acme_login, number) for number in range(MANY)]
    assert len(ada.authorization_requests()) == MANY
    assert heading_of(ada.get(f"{links[0]}/done")) == "You're signed in"
    assert "Keep a receipt" in ada.get(f"{links[-1]}/done").content.decode()
    ada.press(f"{links[0]}/done", "/undo")
    assert another_chat(acme_bot, 0).token()[0] == 409
    assert another_chat(acme_bot, 1).token()[0] == 200


def test_whoever_tries_again_and_again_during_an_outage_signs_in_after_it(
    acme_bot: Bot, ada: CountedBrowser, acme_login: FakeAuthorizationServer
) -> None:
    """B3: the same bug.

    A failed authorization request's cookie goes when the next one begins; the newest says what happened.
    """
    with time_machine.travel(timezone.now(), tick=False) as clock:
        url = acme_bot.challenge()["url"]
        for _ in range(MANY):
            clock.shift(timedelta(seconds=20))
            acme_login.next_token_answer = (503, {}, b"")
            assert heading_of(ada.sign_in(url, acme_login)) == "Acme is not answering right now"
            assert len(ada.authorization_requests()) == 1
            assert heading_of(ada.get(f"{url}/done")) == "Acme is not answering right now"
        assert acme_bot.complete(code_on(ada.sign_in(url, acme_login)))[0] == 200
    assert len(ada.authorization_requests()) == 1


def test_tries_that_never_came_back_are_dropped_with_their_cookies(
    acme_bot: Bot, ada: CountedBrowser, acme_server: Any
) -> None:
    """B8: an outage of the sign-in page itself. Ten can come back; of the rest neither row nor cookie is of any use."""
    url = acme_bot.challenge()["url"]
    for _ in range(MANY):
        ada.begin(url)
    unfinished = AuthorizationRequest.objects.filter(finished_at=None)
    assert ada.authorization_requests() == {authorization_request.cookie_name for authorization_request in unfinished}
    assert len(ada.authorization_requests()) == MAX_PENDING_REQUESTS


def test_the_cookies_of_ended_tokens_and_closed_links_go_at_the_next_press_and_live_ones_stay(
    acme_bot: Bot, ada: CountedBrowser, acme_login: FakeAuthorizationServer
) -> None:
    live = signed_in(acme_bot, ada, acme_login, 1)
    kept = ada.authorization_requests()
    signed_in(acme_bot, ada, acme_login, 2)
    another_chat(acme_bot, 2).in_chat("DELETE", "/token")
    withdrawn = another_chat(acme_bot, 3).challenge()
    ada.begin(withdrawn["url"])
    acme_bot.call("DELETE", f"/challenges/{withdrawn['challenge_id']}")
    waiting = another_chat(acme_bot, 4)
    page = ada.sign_in(waiting.challenge()["url"], acme_login)
    waits = {AuthorizationRequest.objects.first().cookie_name}  # type: ignore[union-attr]  # there is one
    ada.begin(another_chat(acme_bot, 5).challenge()["url"])
    newest = {AuthorizationRequest.objects.first().cookie_name}  # type: ignore[union-attr]
    assert ada.authorization_requests() == kept | waits | newest
    assert heading_of(ada.get(f"{live}/done")) == "You're signed in"
    assert waiting.complete(code_on(page))[0] == 200


def test_an_exchange_that_runs_keeps_its_cookie(
    acme_bot: Bot, ada: CountedBrowser, acme_login: FakeAuthorizationServer
) -> None:
    """A second tab is pressed while the first one's code is on its way."""
    url = acme_bot.challenge()["url"]
    authorization_url = ada.begin(url)
    first = ada.authorization_requests()
    seen: list[bool] = []

    def press_meanwhile(_: object) -> None:
        ada.begin(url)
        seen.append(first <= ada.authorization_requests())

    acme_login.on_token_request = press_meanwhile
    assert code_on(ada.get(ada.come_back(authorization_url, acme_login)["Location"]))
    assert seen == [True]


def test_a_browser_never_has_more_cookies_than_a_header_holds(
    acme_bot: Bot, ada: CountedBrowser, acme_login: FakeAuthorizationServer
) -> None:
    """The bug: at 88 of them every page was a bare 431. What was only begun goes before what can be undone."""
    begun = another_chat(acme_bot, 0).challenge()["url"]
    ada.begin(begun)
    only_begun = ada.authorization_requests()
    links = [signed_in(acme_bot, ada, acme_login, number) for number in range(1, MAX_COOKIES + 3)]
    assert len(ada.authorization_requests()) == MAX_COOKIES
    assert not only_begun & ada.authorization_requests()
    sent = "; ".join(f"{name}={cookie.value}" for name, cookie in ada.client.cookies.items())
    assert len(sent) < 4096
    headings = [heading_of(ada.get(f"{url}/done")) for url in links]
    assert headings == ["This link no longer works"] * 2 + ["You're signed in"] * MAX_COOKIES


def test_an_answer_tells_a_browser_to_forget_no_more_than_a_proxy_reads(
    acme_bot: Bot, ada: CountedBrowser, acme_server: Any
) -> None:
    """A proxy answers 502 to headers over 4 KB; made-up names cost one query, however many they are."""
    for number in range(500):
        ada.client.cookies[f"__Host-attempt-{number:032x}"] = "made up"
    ada.client.cookies["__Host-attempt-"] = ada.client.cookies["other"] = "not ours"
    answer = ada.press(acme_bot.challenge()["url"])
    forgotten = [name for name, cookie in answer.cookies.items() if cookie["max-age"] == 0]
    assert forgotten == [f"__Host-attempt-{number:032x}" for number in range(10)]
    assert sum(len(cookie.OutputString()) for cookie in answer.cookies.values()) < 2048
    expired = answer.cookies[forgotten[0]]
    assert (expired["path"], expired["secure"], expired["samesite"], expired.value) == ("/", True, "Lax", "")


def test_knowing_an_authorization_requests_name_tells_nothing_of_it(
    acme_bot: Bot, ada: CountedBrowser, rita: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """G9: with another value than its own, a live authorization request's cookie is forgotten as one that never was."""
    url = signed_in(acme_bot, ada, acme_login, 1)
    (name,) = ada.authorization_requests()
    rita.client.cookies[name] = "made up"
    answer = rita.press(another_chat(acme_bot, 2).challenge()["url"])
    assert answer.cookies[name]["max-age"] == 0
    assert heading_of(rita.get(f"{url}/done")) == "This link no longer works"


def test_without_a_cookie_of_ours_an_ended_link_costs_what_an_unknown_one_costs(
    acme_bot: Bot, rita: Browser, acme_server: Any
) -> None:
    """G9: the same page, byte for byte but for the form token, and the same statements."""
    challenge = acme_bot.challenge()
    acme_bot.call("DELETE", f"/challenges/{challenge['challenge_id']}")
    seen = []
    for url in (challenge["url"], f"/c/{'A' * 27}"):
        with CaptureQueriesContext(connection) as queries:
            answer = rita.get(url)
        seen.append((answer.status_code, answer.content, len(queries)))
    assert seen[0] == seen[1]
