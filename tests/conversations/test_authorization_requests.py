"""A browser's authorization requests at a link: their cookies' lives, beginning again, and which one counts."""

from datetime import timedelta

import pytest
import time_machine
from django.utils import timezone

from brands.models import AuthorizationServer
from conversations.flow.authorization_requests import MAX_PENDING_REQUESTS, begin_authorization_request
from conversations.models import AuditEvent, AuthorizationRequest, Challenge
from tests.cast import Bot, Browser, code_on, heading_of
from tests.fake_authorization_server import FakeAuthorizationServer
from tests.webhook_receiver import Receiver

pytestmark = pytest.mark.django_db


def test_the_cookie_lives_five_minutes_however_soon_challenge_and_token_end(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """B3: begun in the link's last minute, for a token of one minute."""
    acme_login.expires_in = 60
    with time_machine.travel(timezone.now(), tick=False) as clock:
        url = acme_bot.challenge()["url"]
        clock.shift(timedelta(minutes=14))
        authorization_url = ada.begin(url)
        name = AuthorizationRequest.objects.get().cookie_name
        lifetimes = [ada.client.cookies[name]["max-age"]]
        ada.come_back(authorization_url, acme_login)
        lifetimes.append(ada.client.cookies[name]["max-age"])
    assert lifetimes == [300, 300]


def test_a_link_that_is_begun_again_was_started_once(
    acme_bot: Bot, ada: Browser, rita: Browser, acme_server: AuthorizationServer, acme_hooks: Receiver
) -> None:
    """Each browser and each tab has an authorization request of its own; the bot is told of the first."""
    challenge = acme_bot.challenge()
    ada.begin(challenge["url"])
    started_at = acme_bot.read_challenge(challenge)["started_at"]
    with time_machine.travel(timezone.now() + timedelta(minutes=1)):
        for browser in (ada, rita):
            browser.begin(challenge["url"])
        assert acme_bot.read_challenge(challenge)["started_at"] == started_at
    assert AuthorizationRequest.objects.count() == 3
    assert acme_hooks.deliver() == ["challenge.issued", "challenge.started"]
    assert AuditEvent.objects.filter(outcome="started").count() == 1


def test_of_two_tries_that_failed_the_page_tells_of_the_newer(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    AuthorizationServer.objects.update(scope="orders.read profile", required_scope="orders.read")
    acme_login.scope, acme_login.granted_scope = "orders.read profile", "profile"
    acme_login.next_token_answer = (503, {}, b"")
    url = acme_bot.challenge()["url"]
    headings = [heading_of(ada.sign_in(url, acme_login)) for _ in range(2)]
    assert headings == ["Acme is not answering right now", "One permission was missing"]


def test_an_exchange_that_runs_is_not_pushed_out_by_those_who_begin_meanwhile(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """B8: a scanner that posts the form drops unused authorization requests, and none that was claimed."""
    url = acme_bot.challenge()["url"]
    authorization_url = ada.begin(url)
    seen: list[tuple[bool, str]] = []

    def begin_many(_: object) -> None:
        for _ in range(MAX_PENDING_REQUESTS + 1):
            begin_authorization_request(Challenge.objects.get(), timezone.now())
        rows = AuthorizationRequest.objects.order_by("id")
        seen.extend(
            (authorization_request.finished_at is None, authorization_request.error) for authorization_request in rows
        )

    acme_login.on_token_request = begin_many
    answer = ada.come_back(authorization_url, acme_login)
    assert seen == [(True, ""), (False, "dropped"), *[(True, "")] * MAX_PENDING_REQUESTS]
    assert code_on(ada.get(answer["Location"]))
