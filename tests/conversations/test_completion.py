"""The completion code: shown to one browser, typed into one chat, tried five times."""

from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.utils import timezone

from conversations.models import AccessToken, AuditEvent, Challenge
from tests.cast import Bot, Browser, code_on, heading_of
from tests.concurrency import at_once
from tests.fake_authorization_server import FakeAuthorizationServer

pytestmark = pytest.mark.django_db


@pytest.fixture
def challenge(acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer) -> dict[str, Any]:
    """Return a challenge at which Ada has signed in: her page shows a code."""
    challenge = acme_bot.challenge()
    ada.sign_in(challenge["url"], acme_login)
    return challenge


def wrong(code: str, by: int = 1) -> str:
    return f"{(int(code) + by) % 1_000_000:06d}"


def test_the_code_is_shown_again_to_the_browser_that_finished_and_to_no_other(
    challenge: dict[str, Any], ada: Browser, rita: Browser
) -> None:
    """A3, G9."""
    code = ada.read_code(challenge["url"])
    assert ada.read_code(challenge["url"]) == code
    page = rita.get(f"{challenge['url']}/done")
    assert (page.status_code, heading_of(page)) == (404, "This link no longer works")
    page = rita.get(challenge["url"])
    assert (page.status_code, heading_of(page)) == (404, "This link no longer works")
    assert ada.get(challenge["url"])["Location"].endswith("/done")


@pytest.mark.django_db(transaction=True)
def test_the_code_stands_nowhere_but_on_the_page(
    challenge: dict[str, Any], acme_bot: Bot, ada: Browser, caplog: pytest.LogCaptureFixture
) -> None:
    """A3: not in the API, the audit, the log or the database."""
    code = ada.read_code(challenge["url"])
    answers = [acme_bot.read_challenge(challenge), acme_bot.in_chat("GET"), acme_bot.in_chat("POST", "/authorize")]
    rows = [list(Challenge.objects.values()), list(AuditEvent.objects.values()), list(AccessToken.objects.values())]
    assert code not in repr(answers) + repr(rows) + caplog.text


@pytest.mark.parametrize("separator", ["", " ", "-", " · "])
def test_the_code_is_taken_as_it_was_typed(
    challenge: dict[str, Any], acme_bot: Bot, ada: Browser, separator: str
) -> None:
    code = ada.read_code(challenge["url"])
    assert acme_bot.complete(f" {code[:3]}{separator}{code[3:]} ")[0] == 200


def test_a_wrong_code_says_how_many_tries_are_left_and_the_right_one_still_works(
    challenge: dict[str, Any], acme_bot: Bot, ada: Browser
) -> None:
    """A2."""
    code = ada.read_code(challenge["url"])
    for left in (4, 3, 2, 1):
        status, problem = acme_bot.complete(wrong(code))
        assert (status, problem["code"], problem["attempts_left"]) == (422, "completion_code_incorrect", left)
    assert acme_bot.complete(code)[0] == 200


def test_a_right_code_after_five_wrong_ones_fails_and_the_token_is_wiped(
    challenge: dict[str, Any], acme_bot: Bot, ada: Browser
) -> None:
    """A2."""
    code = ada.read_code(challenge["url"])
    answers = [acme_bot.complete(wrong(code))[1]["attempts_left"] for _ in range(5)]
    assert answers == [4, 3, 2, 1, 0]
    status, problem = acme_bot.complete(code)
    assert (status, problem["code"]) == (409, "unchallenged")
    facts = acme_bot.read_challenge(challenge)
    assert (facts["status"], facts["error"]) == ("failed", "too_many_codes")
    token = AccessToken.objects.get()
    assert (token.ciphertext, token.end_reason, token.confirmed_at) == (None, "unconfirmed", None)
    assert heading_of(ada.get(f"{challenge['url']}/done")) == "Too many wrong codes"


@pytest.mark.django_db(transaction=True)
def test_twenty_concurrent_tries_are_counted_one_by_one(challenge: dict[str, Any], acme_bot: Bot, ada: Browser) -> None:
    """A2: five are compared, however many come at once."""
    code = ada.read_code(challenge["url"])
    answers = at_once(20, lambda number: acme_bot.complete(wrong(code, number + 1)))
    left = sorted(body["attempts_left"] for status, body in answers if status == 422)
    assert left == [0, 1, 2, 3, 4]
    assert [body["code"] for status, body in answers if status != 422] == ["unchallenged"] * 15
    assert Challenge.objects.get().completion_attempts == 5
    assert acme_bot.complete(code)[1]["code"] == "unchallenged"


@pytest.mark.django_db(transaction=True)
def test_of_concurrent_right_codes_one_confirms_and_the_rest_find_it_confirmed(
    challenge: dict[str, Any], acme_bot: Bot, ada: Browser
) -> None:
    code = ada.read_code(challenge["url"])
    answers = at_once(8, lambda _: acme_bot.complete(code))
    assert sorted(status for status, _ in answers) == [200] + [409] * 7
    assert {body["code"] for status, body in answers if status == 409} == {"authorized"}
    assert AuditEvent.objects.filter(kind="token.issued").count() == 1


@pytest.mark.parametrize(
    "typed", ["", " ", "hello", "12345", "1234567", "my code is 123456", "½23456", "I see none " * 372]
)
def test_what_cannot_be_a_code_is_not_counted(challenge: dict[str, Any], acme_bot: Bot, typed: str) -> None:
    """A bot may post whatever the consumer types without burning the tries.

    The bug: an empty or long reply was `invalid_request_body`, which only the bot's developer can mend.
    """
    status, problem = acme_bot.complete(typed)
    assert (status, problem["code"]) == (422, "completion_code_malformed")
    assert Challenge.objects.get().completion_attempts == 0


@pytest.mark.usefixtures("acme_server")
@pytest.mark.parametrize("typed", ["", "hello", "123456"])
def test_nobody_is_asked_for_a_code_that_no_sign_in_waits_for(acme_bot: Bot, typed: str) -> None:
    """The bug: after a refusal each reply that is no code was answered with "ask the consumer for the code again"."""
    challenge = acme_bot.challenge()
    status, problem = acme_bot.complete(typed)
    assert (status, problem["code"], problem["next"]["operation"]) == (409, "challenged", "readChallenge")
    acme_bot.send("DELETE", f"/challenges/{challenge['challenge_id']}")
    assert acme_bot.complete(typed)[1]["code"] == "unchallenged"


def test_the_code_works_for_five_minutes(challenge: dict[str, Any], acme_bot: Bot, ada: Browser) -> None:
    """A2: until then the token is pending; after that it is wiped."""
    code = ada.read_code(challenge["url"])
    assert 295 <= acme_bot.read_challenge(challenge)["expires_in"] <= 300
    with time_machine.travel(timezone.now() + timedelta(seconds=301), tick=False):
        assert acme_bot.read_challenge(challenge)["status"] == "expired"
        assert acme_bot.complete(code)[1]["code"] == "unchallenged"
        assert heading_of(ada.get(f"{challenge['url']}/done")) == "This took too long"
        acme_bot.challenge()
        assert AccessToken.objects.get().ciphertext is None


def test_a_code_does_not_outlive_its_token(acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer) -> None:
    acme_login.expires_in = 10
    challenge = acme_bot.challenge()
    ada.sign_in(challenge["url"], acme_login)
    assert acme_bot.read_challenge(challenge)["expires_in"] <= 9


@pytest.mark.parametrize("when", ["before any challenge", "before the sign-in", "after the completion"])
def test_a_code_that_nobody_waits_for_answers_with_the_status(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, when: str
) -> None:
    if when == "before any challenge":
        assert acme_bot.complete("123456")[1]["code"] == "conversation_unknown"
        return
    challenge = acme_bot.challenge()
    if when == "before the sign-in":
        status, problem = acme_bot.complete("123456")
        assert (status, problem["code"], problem["challenge_id"]) == (409, "challenged", challenge["challenge_id"])
        return
    acme_bot.complete(code_on(ada.sign_in(challenge["url"], acme_login)))
    assert acme_bot.complete("123456")[1]["code"] == "authorized"


def test_a_forwarded_link_brings_the_forwarder_nothing(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """A1: Mallory's chat, Ada's sign-in. Without the code from Ada's page there is no token, ever."""
    mallory = Browser()
    challenge = acme_bot.challenge()
    mallory.begin(challenge["url"])
    ada.sign_in(challenge["url"], acme_login)
    assert acme_bot.token()[1]["code"] == "confirmation_needed"
    assert heading_of(mallory.get(f"{challenge['url']}/done")) == "You're already signing in elsewhere"
    assert [acme_bot.complete(f"{guess:06d}")[0] for guess in range(5)].count(200) == 0
    assert acme_bot.token()[1]["code"] == "unchallenged"
