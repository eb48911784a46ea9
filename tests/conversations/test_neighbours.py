"""What one chat does, the chat beside it does not notice: same brand, same bot, same server, same moment."""

import pytest

from brands.models import AuthorizationServer
from conversations.models import Challenge
from tests.cast import Bot, Browser, code_on, make_server
from tests.fake_authorization_server import FakeAuthorizationServer

pytestmark = pytest.mark.django_db


@pytest.fixture
def beside(acme_bot: Bot) -> Bot:
    """Return the same bot in the chat beside."""
    return Bot(acme_bot.key, "web:beside")


def test_closing_a_chat_closes_no_other(
    acme_bot: Bot, beside: Bot, ada: Browser, rita: Browser, acme_login: FakeAuthorizationServer
) -> None:
    for bot, browser in ((acme_bot, ada), (beside, rita)):
        bot.complete(code_on(browser.sign_in(bot.challenge()["url"], acme_login)))
    before = beside.token()[1]["access_token"]
    assert acme_bot.in_chat("DELETE")[0] == 200
    assert (acme_bot.status(), beside.status()) == (("closed", None), ("authorized", None))
    assert beside.token()[1]["access_token"] == before
    assert beside.challenge(replace=True)["status"] == "issued"


def test_a_code_is_tried_and_counted_in_the_chat_that_it_was_typed_into_alone(
    acme_bot: Bot, beside: Bot, ada: Browser, rita: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """A1: five wrong codes end the one challenge, and the right one of that chat opens nothing beside it."""
    codes = [
        code_on(browser.sign_in(bot.challenge()["url"], acme_login))
        for bot, browser in ((acme_bot, ada), (beside, rita))
    ]
    assert codes[0] != codes[1]
    answers = [acme_bot.complete(codes[1]) for _ in range(5)]
    assert [problem["code"] for _, problem in answers[:4]] == ["completion_code_incorrect"] * 4
    assert [problem.get("attempts_left") for _, problem in answers[:4]] == [4, 3, 2, 1]
    assert acme_bot.complete(codes[0])[0] == 409
    rows = Challenge.objects.order_by("pk").values_list("status", "error", "completion_attempts")
    assert list(rows) == [("failed", "too_many_codes", 5), ("confirmation_needed", "", 0)]
    assert beside.complete(codes[1])[0] == 200
    assert (acme_bot.status()[0], beside.status()) == ("unchallenged", ("authorized", None))


def test_a_code_of_one_authorization_server_confirms_nothing_at_another(
    acme_bot: Bot, ada: Browser, rita: Browser, acme_server: AuthorizationServer, acme_login: FakeAuthorizationServer
) -> None:
    loyalty = make_server(acme_server.brand, "loyalty")
    codes = {}
    for server, browser in ((acme_server, ada), (loyalty, rita)):
        acme_login.redirect_uri = server.redirect_uri
        challenge = acme_bot.challenge(authorization_server=server.key)
        codes[server.key] = code_on(browser.sign_in(challenge["url"], acme_login))
    assert len(set(codes.values())) == 2
    for key, other in (("loyalty", acme_server.key), (acme_server.key, "loyalty")):
        typed = {"code": codes[other], "authorization_server": key}
        assert acme_bot.in_chat("POST", "/completion", typed)[1]["code"] == "completion_code_incorrect"
        typed = {"code": codes[key], "authorization_server": key}
        assert acme_bot.in_chat("POST", "/completion", typed)[0] == 200


def test_a_try_that_failed_is_told_of_its_own_challenge_alone(
    acme_bot: Bot, beside: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    challenges = [bot.challenge() for bot in (acme_bot, beside)]
    acme_login.next_token_answer = (503, {}, b"")
    ada.sign_in(challenges[0]["url"], acme_login)
    told = [acme_bot.read_challenge(challenge)["last_error"] for challenge in challenges]
    assert told == ["temporarily_unavailable", None]


def test_a_token_of_one_authorization_server_replaces_none_of_another(
    acme_bot: Bot, ada: Browser, acme_server: AuthorizationServer, acme_login: FakeAuthorizationServer
) -> None:
    for server in (acme_server, make_server(acme_server.brand, "loyalty")):
        acme_login.redirect_uri = server.redirect_uri
        challenge = acme_bot.challenge(authorization_server=server.key)
        code = code_on(ada.sign_in(challenge["url"], acme_login))
        typed = {"code": code, "authorization_server": server.key}
        assert acme_bot.in_chat("POST", "/completion", typed)[0] == 200
    answers = [acme_bot.in_chat("GET", f"/token?authorization_server={key}")[1] for key in ("orders", "loyalty")]
    assert [answer["access_token"] for answer in answers] == acme_login.issued_access_tokens


def test_a_chat_that_asked_too_often_keeps_no_other_from_asking_again(
    acme_bot: Bot, beside: Bot, acme_server: AuthorizationServer
) -> None:
    """G8: the first challenge of a chat is not counted at all, a later one among its own."""
    beside.challenge()
    for _ in range(5):
        acme_bot.challenge(replace=True)
    answers = [bot.in_chat("POST", "/challenges", {"replace": True})[0] for bot in (acme_bot, beside)]
    assert answers == [429, 201]
