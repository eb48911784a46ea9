"""Undo: what the consumer allowed she can take back, from the browser that allowed it."""

from dataclasses import replace

import pytest

from conversations.models import AccessToken, AuditEvent, AuthorizationRequest
from infrastructure import rate_limits
from tests.cast import HOST, Bot, Browser, code_on, heading_of
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
    assert acme_bot.read_challenge(challenge)["status"] == "cancelled"
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
    assert acme_bot.read_challenge(first)["status"] == "completed"
    assert acme_bot.token()[0] == 200


def test_a_link_over_its_limit_keeps_nobody_from_undoing(
    acme_bot: Bot, ada: Browser, rita: Browser, acme_login: FakeAuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G8, A9. The bug: whoever had the link too could spend its 60 pages a minute, and undo was refused with them."""
    challenge = acme_bot.challenge()
    acme_bot.complete(code_on(ada.sign_in(challenge["url"], acme_login)))
    monkeypatch.setattr(rate_limits, "PAGES_PER_LINK", replace(rate_limits.PAGES_PER_LINK, times=0))
    assert (rita.get(challenge["url"]).status_code, acme_bot.token()[0]) == (429, 200)
    assert ada.press(f"{challenge['url']}/done", "/undo").status_code == 303
    assert acme_bot.status() == ("rechallenge_required", "undone")


def test_another_try_after_an_undo_that_failed_leads_to_its_button(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A9. The bug: "Try again" on the error page asked with GET, got an empty 405, and the token lived on."""
    challenge = acme_bot.challenge()
    acme_bot.complete(code_on(ada.sign_in(challenge["url"], acme_login)))
    with monkeypatch.context() as narrow:
        narrow.setattr(rate_limits, "PAGES_PER_ADDRESS", replace(rate_limits.PAGES_PER_ADDRESS, times=0))
        failed = ada.press(f"{challenge['url']}/done", "/undo")
    rate_limits.reset_in_process()
    assert (failed.status_code, '<a class="button" href="">Try again</a>' in failed.content.decode()) == (429, True)
    for method in (ada.client.get, ada.client.head):
        again = method(f"{challenge['url']}/undo", secure=True)
        assert (again.status_code, f"https://{HOST}{again['Location']}") == (303, f"{challenge['url']}/done")
    assert acme_bot.token()[0] == 200
    assert 'action="/c/' in ada.get(f"{challenge['url']}/done").content.decode()
    ada.press(f"{challenge['url']}/done", "/undo")
    assert acme_bot.status() == ("rechallenge_required", "undone")
