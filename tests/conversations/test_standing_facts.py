"""Where a conversation stands is told in the words of its challenge's and its token's own reads."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine

from brands.models import AuthorizationServer
from tests.cast import Bot, Browser, code_on
from tests.fake_authorization_server import FakeAuthorizationServer

pytestmark = pytest.mark.django_db

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


def authorization_of(bot: Bot) -> dict[str, Any]:
    """Return all that the status read says of the brand's one server."""
    (facts,) = bot.in_chat("GET")[1]["authorization_servers"]
    return dict(facts)


def test_a_conversation_tells_of_challenge_and_token_as_their_own_reads_do(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    with time_machine.travel(NOON, tick=False):
        first = acme_bot.challenge(context="order 7", purpose="to look up your order")
        nothing_yet = {"reason": None, "access_token": None, "last_challenge": None}
        open_one = {"authorization_server": "orders", "challenge": acme_bot.read_challenge(first)}
        assert authorization_of(acme_bot) == nothing_yet | open_one | {"status": "challenged"}
        acme_bot.complete(code_on(ada.sign_in(first["url"], acme_login)))
        second = acme_bot.challenge()
        token = acme_bot.token()[1]
        assert (token.pop("access_token"), token.pop("session")) == (acme_login.issued_access_tokens[0], 1)
        assert authorization_of(acme_bot) == {
            "authorization_server": "orders",
            "status": "authorized",
            "reason": None,
            "challenge": acme_bot.read_challenge(second),
            "access_token": token,
            "last_challenge": None,
        }


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(898.9, ("issued", 1)), (899.5, ("issued", 0)), (900, ("expired", 0)), (3600, ("expired", 0))],
)
def test_the_seconds_left_are_rounded_down_and_end_at_zero(
    acme_bot: Bot, acme_server: AuthorizationServer, seconds: float, told: tuple[str, int]
) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        challenge = acme_bot.challenge()
        clock.shift(timedelta(seconds=seconds))
        facts = acme_bot.read_challenge(challenge)
    assert (facts["status"], facts["expires_in"]) == told


def test_every_scope_that_was_asked_for_and_not_granted_is_named(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    AuthorizationServer.objects.update(scope="orders.read orders.write profile")
    acme_login.scope, acme_login.granted_scope = "orders.read orders.write profile", "orders.read"
    acme_bot.complete(code_on(ada.sign_in(acme_bot.challenge()["url"], acme_login)))
    _, token = acme_bot.token()
    assert (token["requested_scope"], token["scope"], token["missing_scope"]) == (
        "orders.read orders.write profile",
        "orders.read",
        "orders.write profile",
    )
