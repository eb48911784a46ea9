"""Callbacks that come twice, at once, late, or after the end: one exchange at most, and the same answer."""

from datetime import timedelta
from urllib.parse import parse_qsl, urlencode

import pytest
import time_machine
from django.utils import timezone

from conversations.models import AccessToken, AuthorizationRequest
from tests.cast import Bot, Browser, code_on, heading_of
from tests.concurrency import at_once
from tests.fake_authorization_server import FakeAuthorizationServer

pytestmark = pytest.mark.django_db


def callback(login: FakeAuthorizationServer, query: str) -> str:
    return f"{login.redirect_uri}?{query}"


def with_changes(query: str, **changes: str | None) -> str:
    values = dict(parse_qsl(query)) | changes
    return urlencode({name: value for name, value in values.items() if value is not None})


def test_a_repeated_callback_gets_the_same_answer_and_no_second_exchange(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """B11: double click, back button, reload; before and after the completion."""
    challenge = acme_bot.challenge()
    query = acme_login.authorize(ada.begin(challenge["url"]))
    answers = [ada.get(callback(acme_login, query))["Location"] for _ in range(3)]
    code = ada.read_code(challenge["url"])
    acme_bot.complete(code)
    answers.append(ada.get(callback(acme_login, query))["Location"])
    assert answers == [f"/c/{challenge['url'][-27:]}/done"] * 4
    assert len(acme_login.token_requests) == 1
    assert acme_bot.token()[0] == 200


@pytest.mark.django_db(transaction=True)
def test_of_twenty_concurrent_callbacks_exactly_one_token_request_leaves(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """B10: an authorization server may revoke the good token when its code comes twice."""
    challenge = acme_bot.challenge()
    query = acme_login.authorize(ada.begin(challenge["url"]))
    browsers = [Browser() for _ in range(20)]
    for browser in browsers:
        browser.client.cookies = ada.client.cookies
    answers = at_once(20, lambda number: browsers[number].get(callback(acme_login, query)))
    assert {(answer.status_code, answer["Location"]) for answer in answers} == {
        (303, f"/c/{challenge['url'][-27:]}/done")
    }
    assert len(acme_login.token_requests) == 1
    assert AccessToken.objects.count() == 1
    assert code_on(ada.get(f"{challenge['url']}/done"))


def test_while_the_exchange_runs_the_page_says_one_moment_and_then_offers_another_try(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """B11: no timer (B7); an authorization request without a result after 30 s counts as failed."""
    challenge = acme_bot.challenge()
    ada.begin(challenge["url"])
    AuthorizationRequest.objects.update(claimed_at=timezone.now())
    assert heading_of(ada.get(f"{challenge['url']}/done")) == "Finishing your sign-in"
    with time_machine.travel(timezone.now() + timedelta(seconds=31), tick=False):
        assert heading_of(ada.get(f"{challenge['url']}/done")) == "Acme is not answering right now"
        assert code_on(ada.sign_in(challenge["url"], acme_login))


def test_two_tabs_each_finish_or_are_told_that_it_is_done(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """B12: start A, start B, finish A, finish B."""
    challenge = acme_bot.challenge()
    tab_a, tab_b = ada.begin(challenge["url"]), ada.begin(challenge["url"])
    code = code_on(ada.get(ada.come_back(tab_a, acme_login)["Location"]))
    assert code_on(ada.get(ada.come_back(tab_b, acme_login)["Location"])) == code
    assert len(acme_login.token_requests) == 1
    assert acme_bot.complete(code)[0] == 200


def test_a_second_browser_that_comes_later_is_told_that_it_is_done_elsewhere(
    acme_bot: Bot, ada: Browser, rita: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """A3: the code is on the page of the browser that finished, and nowhere else."""
    challenge = acme_bot.challenge()
    late = rita.begin(challenge["url"])
    ada.sign_in(challenge["url"], acme_login)
    page = rita.get(rita.come_back(late, acme_login)["Location"])
    assert heading_of(page) == "You're already signing in elsewhere"
    assert "data-completion-code" not in page.content.decode()


def test_a_superseded_challenges_authorization_request_can_no_longer_exchange(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """A10."""
    challenge = acme_bot.challenge()
    query = acme_login.authorize(ada.begin(challenge["url"]))
    acme_bot.challenge(replace=True)
    page = ada.get(ada.get(callback(acme_login, query))["Location"])
    assert heading_of(page) == "There is a newer link in your chat"
    assert acme_login.token_requests == []


def test_an_expired_challenges_authorization_request_can_no_longer_exchange(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """B13: expiry before everything that the brand sent."""
    challenge = acme_bot.challenge()
    query = acme_login.authorize(ada.begin(challenge["url"]))
    with time_machine.travel(timezone.now() + timedelta(seconds=899), tick=False):
        ada.client.cookies[AuthorizationRequest.objects.get().cookie_name]["expires"] = ""
    with time_machine.travel(timezone.now() + timedelta(seconds=901), tick=False):
        page = ada.get(ada.get(callback(acme_login, query))["Location"])
        assert heading_of(page) == "This took too long"
    assert acme_login.token_requests == []


@pytest.mark.parametrize("ending", ["closed", "withdrawn", "superseded"])
def test_what_ends_during_the_exchange_stores_nothing(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, ending: str
) -> None:
    """A8, A10: looked at again inside the storing transaction."""
    challenge = acme_bot.challenge()

    def end(_: object) -> None:
        match ending:
            case "closed":
                acme_bot.in_chat("DELETE")
            case "withdrawn":
                acme_bot.call("DELETE", f"/challenges/{challenge['challenge_id']}")
            case "superseded":
                acme_bot.challenge(replace=True)

    acme_login.on_token_request = end
    ada.come_back(ada.begin(challenge["url"]), acme_login)
    assert len(acme_login.token_requests) == 1
    assert not AccessToken.objects.exists()
