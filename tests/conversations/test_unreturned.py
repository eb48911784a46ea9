"""Sign-ins that left for a server and never came back: no error reaches us if it shows a page of its own."""

from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from brands.models import AuthorizationServer
from conversations.failures_in_words import unreturned_sign_ins
from tests.admin_pages import AdminBrowser, address
from tests.cast import Bot, Browser
from tests.fake_authorization_server import FakeAuthorizationServer

pytestmark = pytest.mark.django_db

LATER = timedelta(minutes=6)


def leave(bot: Bot, times: int) -> str:
    """Have consumers leave for the server; return where the last one was sent."""
    url = ""
    for number in range(times):
        url = Browser().begin(Bot(bot.key, f"chat-{number}").challenge()["url"])
    return url


def unreturned(server: AuthorizationServer, later: timedelta = LATER) -> int:
    return unreturned_sign_ins(server, timezone.now() + later)


@pytest.mark.parametrize(("times", "counted"), [(2, 0), (3, 3), (10, 10), (12, 10)])
def test_a_few_closed_windows_say_nothing_and_a_row_of_them_does(
    acme_bot: Bot, acme_server: AuthorizationServer, times: int, counted: int
) -> None:
    leave(acme_bot, times)
    assert unreturned(acme_server) == counted


def test_whoever_left_a_moment_ago_may_still_come_back(acme_bot: Bot, acme_server: AuthorizationServer) -> None:
    leave(acme_bot, 5)
    assert unreturned(acme_server, timedelta(minutes=4)) == 0
    assert unreturned(acme_server, timedelta(days=2)) == 0


@pytest.mark.parametrize("denies", [True, False])
def test_one_that_came_back_shows_that_the_redirect_uri_is_registered(
    acme_bot: Bot, acme_login: FakeAuthorizationServer, acme_server: AuthorizationServer, denies: bool
) -> None:
    """Also one that was refused or came a moment ago."""
    acme_login.denies = denies
    leave(acme_bot, 4)
    browser = Browser()
    browser.come_back(browser.begin(acme_bot.challenge()["url"]), acme_login)
    assert unreturned(acme_server) == 0
    assert unreturned(acme_server, timedelta(0)) == 0


def test_a_push_that_failed_did_not_leave(
    acme_bot: Bot, acme_login: FakeAuthorizationServer, acme_server: AuthorizationServer
) -> None:
    """Its error is known, and is another one."""
    AuthorizationServer.objects.update(pushed_authorization_request_endpoint=f"{acme_login.issuer}/none")
    for number in range(4):
        Browser().press(Bot(acme_bot.key, f"chat-{number}").challenge()["url"])
    assert unreturned(acme_server) == 0


def test_another_servers_sign_ins_do_not_count(
    acme_bot: Bot, acme_server: AuthorizationServer, rival_server: AuthorizationServer
) -> None:
    """J1."""
    leave(acme_bot, 4)
    assert (unreturned(acme_server), unreturned(rival_server)) == (4, 0)


def test_the_servers_page_says_so_with_the_redirect_uri(
    acme_bot: Bot, acme_admin: Any, acme_server: AuthorizationServer
) -> None:
    leave(acme_bot, 4)
    admin = AdminBrowser(acme_admin)
    page = address(AuthorizationServer, "change", acme_server)
    said = "The last 4 sign-ins left for this server, and none came back."
    assert said not in admin.get(page).content.decode()
    with time_machine.travel(timezone.now() + LATER):
        admin.sign_in_again()
        with CaptureQueriesContext(connection) as queries:
            text = admin.get(page).content.decode()
    assert said in text
    assert f"<code>{acme_server.redirect_uri}</code>" in text
    assert len(queries) <= 15
    assert len([query for query in queries if "authorizationrequest" in query["sql"]]) == 1
    assert admin.get(address(AuthorizationServer, "add")).status_code == 200
