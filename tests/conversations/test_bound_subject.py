"""A7, A12: whom a conversation belongs to, and which sign-ins say nothing of it."""

import pytest

from brands.models import AuthorizationServer
from conversations.models import AccessToken
from tests.cast import Bot, Browser, code_on, heading_of, make_server, use_openid
from tests.fake_authorization_server import FakeAuthorizationServer

pytestmark = pytest.mark.django_db

SIGNED_IN = "You're signed in"


@pytest.fixture(autouse=True)
def openid(acme_server: AuthorizationServer, acme_login: FakeAuthorizationServer) -> None:
    """Let the brand say who signs in."""
    use_openid(acme_server, acme_login)


def sign_in(bot: Bot, browser: Browser, login: FakeAuthorizationServer, subject: str, server: str = "orders") -> str:
    """Sign in as somebody with a challenge of its own; return the completion code."""
    login.subject = subject
    challenge = bot.challenge(authorization_server=server, replace=True)
    return code_on(browser.sign_in(challenge["url"], login))


def confirm(bot: Bot, code: str, server: str = "orders") -> None:
    assert bot.in_chat("POST", "/completion", {"code": code, "authorization_server": server})[0] == 200


def test_a_sign_in_that_nobody_confirmed_binds_nobody(
    acme_bot: Bot, ada: Browser, rita: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """A7: a forwarded link's, whose code never came into the chat."""
    sign_in(acme_bot, rita, acme_login, "rita")
    confirm(acme_bot, sign_in(acme_bot, ada, acme_login, "ada"))
    assert acme_bot.status() == ("authorized", None)


def test_a_sign_in_from_before_openid_binds_nobody(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, acme_server: AuthorizationServer
) -> None:
    """A7: it does not say who it was; the first that says so binds."""
    AuthorizationServer.objects.update(scope="orders.read")
    acme_login.openid = False
    confirm(acme_bot, sign_in(acme_bot, ada, acme_login, "ada"))
    use_openid(acme_server, acme_login)
    confirm(acme_bot, sign_in(acme_bot, ada, acme_login, "ada"))
    assert acme_bot.status() == ("authorized", None)


def test_who_signed_in_at_another_server_says_nothing_of_this_one(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, acme_server: AuthorizationServer
) -> None:
    """A7: each server numbers its accounts in its own way."""
    confirm(acme_bot, sign_in(acme_bot, ada, acme_login, "ada"))
    loyalty = make_server(acme_server.brand, "loyalty")
    use_openid(loyalty, acme_login)
    acme_login.redirect_uri = loyalty.redirect_uri
    confirm(acme_bot, sign_in(acme_bot, ada, acme_login, "4711", "loyalty"), "loyalty")
    assert AccessToken.objects.filter(ended_at=None).count() == 2


def test_without_an_id_token_nobody_is_the_customer_that_was_expected(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """A12: also where openid was taken out of the scope by SQL; the admin refuses that."""
    AuthorizationServer.objects.update(same_person_checks=["expected_subject"], scope="orders.read")
    acme_login.openid = False
    challenge = acme_bot.challenge(expected_subject="ada")
    assert heading_of(ada.sign_in(challenge["url"], acme_login)) == "Acme cannot sign you in right now"
    assert acme_bot.read_challenge(challenge)["last_error"] == "claim_unusable"
    assert not AccessToken.objects.exists()


def test_a_token_that_was_asked_for_of_anybody_is_not_handed_out_for_one_customer(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """A12: nobody compared whose it is, also where it is hers."""
    confirm(acme_bot, sign_in(acme_bot, ada, acme_login, "ada"))
    AuthorizationServer.objects.update(same_person_checks=["expected_subject"])
    status, challenge = acme_bot.in_chat("POST", "/authorize", {"expected_subject": "ada"})
    assert (status, challenge["status"]) == (202, "issued")
