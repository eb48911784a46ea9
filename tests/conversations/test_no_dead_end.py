"""A link that is over keeps brand, colour and support for the browser that began it; for others nothing is there."""

from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from brands.models import Brand
from tests.cast import Bot, Browser, heading_of
from tests.fake_authorization_server import FakeAuthorizationServer

pytestmark = pytest.mark.django_db

SUPPORT = "mailto:help@acme.example"
STEPS = ("", "/done", "/other-browser", "/not-completed")
ENDED = {
    "expired": "This took too long",
    "replaced": "There is a newer link in your chat",
    "withdrawn": "The assistant no longer needs this",
    "closed": "This is over",
}


def end(bot: Bot, challenge: dict[str, Any], how: str) -> None:
    match how:
        case "replaced":
            bot.challenge(replace=True)
        case "withdrawn":
            bot.call("DELETE", f"/challenges/{challenge['challenge_id']}")
        case "closed":
            bot.in_chat("DELETE")


def followed(browser: Browser, url: str) -> Any:
    """Open a page, and the one that it redirects to."""
    answer = browser.get(url)
    return browser.get(answer["Location"]) if answer.status_code == 303 else answer


@pytest.mark.parametrize("how", ENDED)
@pytest.mark.parametrize("signed_in", [False, True])
@pytest.mark.parametrize("step", STEPS)
def test_the_browser_that_began_is_with_acme_to_the_end(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, how: str, signed_in: bool, step: str
) -> None:
    """G9. The bug: a closed chat, and a late page of another browser, had neither name, colour nor support."""
    Brand.objects.update(support_contact=SUPPORT, accent_colour="#0a7d55")
    challenge = acme_bot.challenge()
    if signed_in:
        ada.sign_in(challenge["url"], acme_login)
    else:
        ada.begin(challenge["url"])
    end(acme_bot, challenge, how)
    with time_machine.travel(timezone.now() + timedelta(hours=how == "expired"), tick=False):
        page = followed(ada, challenge["url"] + step)
    text = page.content.decode()
    assert (heading_of(page), page.status_code) == (ENDED[how], 200)
    assert f'href="{SUPPORT}"' in text
    assert "--fill:#0a7d55" in text


@pytest.mark.parametrize("how", ENDED)
def test_for_all_others_unknown_and_ended_stay_alike(
    acme_bot: Bot, ada: Browser, rita: Browser, acme_login: FakeAuthorizationServer, how: str
) -> None:
    """G9: also for a browser that holds the cookie of another sign-in."""
    other = Bot(acme_bot.key, "another-chat")
    rita.begin(other.challenge()["url"])
    challenge = acme_bot.challenge()
    ada.sign_in(challenge["url"], acme_login)
    end(acme_bot, challenge, how)
    stranger = Browser()
    with time_machine.travel(timezone.now() + timedelta(hours=how == "expired"), tick=False):
        pages = [browser.get(challenge["url"] + step) for browser in (stranger, rita) for step in STEPS]
    unknown = stranger.get("https://delegation.test/c/no-such-link")
    assert {(page.status_code, page.content) for page in pages} == {(404, unknown.content)}


def test_a_closed_link_and_an_unknown_one_cost_the_same_with_another_sign_ins_cookie(
    acme_bot: Bot, ada: Browser, rita: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """G9."""
    rita.begin(Bot(acme_bot.key, "another-chat").challenge()["url"])
    url = acme_bot.challenge()["url"]
    ada.begin(url)
    acme_bot.in_chat("DELETE")
    costs = []
    for link in (url, f"/c/{'A' * 27}"):
        with CaptureQueriesContext(connection) as queries:
            rita.get(f"{link}/done")
        costs.append(len([query for query in queries if not query["sql"].startswith("PREPARE ")]))
    assert costs[0] == costs[1]


def test_the_page_with_the_digits_of_a_chat_that_is_closed_turns_into_its_end(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """B24: to asking, a closed chat is an unknown link; what the page then shows is Acme's."""
    url = acme_bot.challenge()["url"]
    ada.sign_in(url, acme_login)
    acme_bot.in_chat("DELETE")
    assert ada.get(f"{url}/standing").status_code == 404
    assert heading_of(ada.get(f"{url}/done")) == "This is over"


@pytest.mark.parametrize("form", ["/undo", "/cancel", ""])
@pytest.mark.parametrize("how", ["closed", "withdrawn"])
def test_a_button_of_a_page_that_stayed_open_leads_to_its_end(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, how: str, form: str
) -> None:
    """G9. The bug: after the close, "This wasn't me" led to the page of an unknown link, without Acme's name."""
    challenge = acme_bot.challenge()
    url = challenge["url"]
    ada.sign_in(url, acme_login)
    end(acme_bot, challenge, how)
    answer = ada.press(f"{url}/done", form)
    while answer.status_code == 303:
        answer = ada.get(answer["Location"])
    assert (heading_of(answer), answer.status_code) == (ENDED[how], 200)
