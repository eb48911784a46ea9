"""Each scenario of the sample brand's sign-in page, by what comes of it at the product and at the brand's API."""

import sqlite3
from datetime import UTC, datetime

import pytest

from demo.bot_api import Answer, BotApi
from demo.browser import Page
from demo.sample_brand.scenarios import Scenario
from demo.story import STILL_ME
from tests.demo.stage import Consumer, Stage, new_chat


@pytest.fixture
def bot(stage: Stage) -> BotApi:
    return stage.bot()


@pytest.fixture
def ada(stage: Stage) -> Consumer:
    return stage.consumer()


def signed_in(bot: BotApi, consumer: Consumer, login: str = "ada", **picked: str) -> Answer:
    """Play a whole sign-in in a new chat; return what the bot reads at its end."""
    chat = new_chat()
    challenge = bot.challenge(chat).body
    page = consumer.allows(challenge["url"], login, **picked)
    assert bot.complete(chat, page.parsed.data["data-completion-code"]).status == 200
    return bot.token(chat)


def allows_again(ada: Consumer, link: str) -> Page:
    """Go through the same link once more, in a browser that is signed in at the brand by now."""
    still_me = ada.browser.press(ada.goes_to_brand(link), STILL_ME, password=ada.demo.customers["ada"])
    return ada.browser.press(still_me, "Allow")


def expiry_at_brand(stage: Stage) -> datetime:
    """Return when the brand's latest token ends, by the brand's own books."""
    with sqlite3.connect(stage.demo.folder / "sample-brand.sqlite3") as books:
        (latest,) = books.execute("SELECT expires_at FROM allauth_idp_oidc_token ORDER BY id DESC LIMIT 1").fetchone()
    return datetime.fromisoformat(latest).replace(tzinfo=UTC)


def test_without_a_choice_the_consumer_signs_in(stage: Stage, bot: BotApi, ada: Consumer) -> None:
    token = signed_in(bot, ada).body
    assert stage.orders(token["access_token"]).body["customer"] == "ada"
    assert (token["lifetime_assumed"], token["expires_in"] > 500) == (False, True)


@pytest.mark.parametrize(
    ("scenario", "status", "last_error", "words"),
    [
        ("deny", "denied", None, "You are not signed in"),
        ("server-error", "started", "server_error", "not answering"),
    ],
)
def test_an_error_comes_back_without_the_page_that_asks(
    bot: BotApi, ada: Consumer, scenario: str, status: str, last_error: str | None, words: str
) -> None:
    challenge = bot.challenge(new_chat()).body
    page = ada.signs_in(challenge["url"], f"ada+{scenario}")
    facts = bot.read_challenge(challenge["challenge_id"]).body
    assert (facts["status"], facts["last_error"]) == (status, last_error)
    assert words in page.parsed.text


@pytest.mark.parametrize(
    ("scenario", "last_error", "words"),
    [
        ("slow", "token_endpoint_timeout", "Acme is not answering"),
        ("html-error", "server_error", "Acme is not answering"),
        ("narrower-scope", "insufficient_scope", "permission"),
    ],
)
def test_an_authorization_request_fails_and_the_next_one_of_the_same_link_works(
    bot: BotApi, ada: Consumer, scenario: str, last_error: str, words: str
) -> None:
    challenge = bot.challenge(new_chat()).body
    page = ada.allows(challenge["url"], f"ada+{scenario}")
    facts = bot.read_challenge(challenge["challenge_id"]).body
    assert (facts["status"], facts["last_error"]) == ("started", last_error)
    assert words in page.parsed.text
    assert "data-completion-code" in allows_again(ada, challenge["url"]).parsed.data


def test_somebody_else_signs_in_and_the_chats_own_person_is_asked_for_again(
    stage: Stage, bot: BotApi, ada: Consumer
) -> None:
    chat = new_chat()
    page = ada.allows(bot.challenge(chat).body["url"], "ada+other-person")
    bot.complete(chat, page.parsed.data["data-completion-code"])
    token = bot.token(chat).body["access_token"]
    assert stage.orders(token).body["customer"] == "rita"
    bot.end_token(chat, "rejected")
    again = bot.challenge(chat).body
    allows_again(ada, again["url"])
    facts = bot.read_challenge(again["challenge_id"]).body
    assert (facts["status"], facts["error"]) == ("failed", "subject_mismatch")


def test_a_token_that_tells_no_lifetime_gets_an_assumed_one(bot: BotApi, ada: Consumer) -> None:
    token = signed_in(bot, ada, "ada+no-expires-in").body
    assert (token["lifetime_assumed"], token["expires_in"] > 3500) == (True, True)


def test_a_token_of_ten_seconds_is_one_at_the_brand_too(stage: Stage, bot: BotApi, ada: Consumer) -> None:
    token = signed_in(bot, ada, "ada+expires-in-10").body
    assert 0 < token["expires_in"] <= 10
    assert (expiry_at_brand(stage) - datetime.now(UTC)).total_seconds() < 10


def test_a_token_that_is_revoked_at_once_looks_good_until_the_brand_refuses_it(
    stage: Stage, bot: BotApi, ada: Consumer
) -> None:
    token = signed_in(bot, ada, "ada+revoked").body
    assert token["expires_in"] > 500
    assert stage.orders(token["access_token"]).status == 401


def test_a_scenario_is_picked_on_the_page_and_holds_for_this_one_request(bot: BotApi, ada: Consumer) -> None:
    challenge = bot.challenge(new_chat()).body
    page = ada.goes_to_brand(challenge["url"])
    assert "What should happen?" in page.parsed.text
    password = ada.demo.customers["ada"]
    ada.browser.press(page, "Sign in", login="ada", password=password, scenario="server-error")
    assert bot.read_challenge(challenge["challenge_id"]).body["last_error"] == "server_error"
    page = ada.goes_to_brand(challenge["url"])
    assert "What should happen?" in page.parsed.text
    assert "Allow" in ada.browser.press(page, STILL_ME, password=password).parsed.text


def test_who_is_signed_in_may_pick_one_too(bot: BotApi, ada: Consumer) -> None:
    signed_in(bot, ada)
    challenge = bot.challenge(new_chat()).body
    page = ada.goes_to_brand(challenge["url"])
    ada.browser.press(page, STILL_ME, password=ada.demo.customers["ada"], scenario="deny")
    assert bot.read_challenge(challenge["challenge_id"]).body["status"] == "denied"


def test_a_scenario_that_there_is_not_is_told_with_those_there_are(bot: BotApi, ada: Consumer) -> None:
    page = ada.signs_in(bot.challenge(new_chat()).body["url"], "ada+sleep")
    assert all(f"+{scenario.value}" in page.parsed.text for scenario in Scenario)


def test_acmes_own_sign_in_page_has_no_picker(stage: Stage, ada: Consumer) -> None:
    page = ada.browser.open(f"{stage.addresses.brand}/accounts/login/")
    assert "What should happen?" not in page.parsed.text
