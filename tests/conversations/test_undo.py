"""Undo: what the consumer allowed she can take back, from the browser that allowed it."""

import pytest

from conversations.models import AccessToken, AuditEvent, AuthorizationRequest
from tests.cast import Bot, Browser, code_on, heading_of
from tests.fake_authorization_server import FakeAuthorizationServer

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("confirmed", [False, True])
def test_undo_wipes_the_token_before_and_after_the_completion(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, *, confirmed: bool
) -> None:
    """A9."""
    challenge = acme_bot.challenge()
    page = ada.sign_in(challenge["url"], acme_login)
    if confirmed:
        acme_bot.complete(code_on(page))
    answer = ada.press(f"{challenge['url']}/done", "/undo")
    assert (answer.status_code, answer["Location"].endswith("/done")) == (303, True)
    assert heading_of(ada.get(answer["Location"])) == "Undone"
    assert acme_bot.challenge_facts(challenge)["status"] == "cancelled"
    token = AccessToken.objects.get()
    assert (token.ciphertext, token.end_reason) == (None, "undone")
    expected = ("rechallenge_required", "undone") if confirmed else ("unchallenged", None)
    assert acme_bot.status() == expected
    assert AuditEvent.objects.filter(kind="token.ended", outcome="undone", actor="consumer").count() == 1


def test_undo_stays_possible_for_as_long_as_the_token_lives(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    challenge = acme_bot.challenge()
    acme_bot.complete(code_on(ada.sign_in(challenge["url"], acme_login)))
    cookie = ada.client.cookies[AuthorizationRequest.objects.get().cookie_name]
    assert 3500 <= cookie["max-age"] <= 3600


def test_undoing_an_older_sign_in_does_not_claim_to_have_ended_a_newer_one(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """A9: a result page left open, whose token another one has replaced."""
    first = acme_bot.challenge()
    acme_bot.complete(code_on(ada.sign_in(first["url"], acme_login)))
    acme_bot.complete(code_on(ada.sign_in(acme_bot.challenge()["url"], acme_login)))
    ada.press(f"{first['url']}/done", "/undo")
    assert heading_of(ada.get(f"{first['url']}/done")) == "This is over"
    assert acme_bot.challenge_facts(first)["status"] == "completed"
    assert acme_bot.token()[0] == 200
