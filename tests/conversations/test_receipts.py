"""The receipt: what was granted, in words, until when, and an end to it, without an account."""

import base64
import hashlib
import re
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.utils import timezone

from brands.models import AuthorizationServer, Brand
from conversations.models import AccessToken, AuditEvent, Conversation, Revocation
from infrastructure import rate_limits
from infrastructure.crypto import key_ring
from tests.cast import HOST, Bot, Browser, code_on, heading_of
from tests.fake_authorization_server import FakeAuthorizationServer
from tests.stored import everything_stored

pytestmark = pytest.mark.django_db

REFERER = {"Referer": f"https://{HOST}/"}


def receipt_of(bot: Bot, browser: Browser, login: FakeAuthorizationServer) -> str:
    """Go the whole way, and return the receipt's address as the signed-in page offers it."""
    challenge = bot.challenge()
    bot.complete(code_on(browser.sign_in(challenge["url"], login)))
    found = re.search(r'href="(/r/[A-Za-z0-9_-]{43})"', browser.get(f"{challenge['url']}/done").content.decode())
    assert found
    return f"https://{HOST}{found[1]}"


def end(browser: Browser, receipt: str) -> Any:
    """Open a receipt in a browser and press its button."""
    browser.get(receipt)
    data = {"csrfmiddlewaretoken": browser.client.cookies["__Host-csrf"].value}
    return browser.client.post(f"{receipt.removeprefix(f'https://{HOST}')}/end", data, secure=True, headers=REFERER)


def text_of(page: Any) -> str:
    return " ".join(page.content.decode().split())


def test_it_says_whose_assistant_may_do_what_in_which_chat_and_until_when(
    acme_bot: Bot, ada: Browser, rita: Browser, acme_login: FakeAuthorizationServer, acme_server: AuthorizationServer
) -> None:
    AuthorizationServer.objects.update(scope_descriptions={"orders.read": {"en": "see your <orders>"}})
    receipt = receipt_of(acme_bot, ada, acme_login)
    with time_machine.travel(timezone.now() + timedelta(minutes=4), tick=False):
        page = rita.get(receipt)  # any device of hers
    assert (page.status_code, heading_of(page)) == (200, "What Acme's assistant may do for you")
    assert "In the chat for which you signed in 4 minutes ago, it may:" in text_of(page)
    assert "<li>see your &lt;orders&gt;</li>" in text_of(page)
    assert "This ends by itself in 55 minutes, or at once if you end it here." in text_of(page)
    assert acme_bot.chat not in text_of(page)


def test_without_words_for_every_scope_none_are_made_up(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    page = ada.get(receipt_of(acme_bot, ada, acme_login))
    assert "<li>do what you allowed on Acme's own page</li>" in text_of(page)


def test_its_button_erases_the_token_revokes_it_and_tells_the_bot(
    acme_bot: Bot, ada: Browser, rita: Browser, acme_login: FakeAuthorizationServer, acme_server: AuthorizationServer
) -> None:
    """A9, K6: from another device, without a cookie of the sign-in."""
    AuthorizationServer.objects.update(revocation_endpoint="https://login.acme.example/revoke")
    receipt = receipt_of(acme_bot, ada, acme_login)
    answer = end(rita, receipt)
    assert (answer.status_code, answer["Location"]) == (303, receipt.removeprefix(f"https://{HOST}"))
    assert heading_of(rita.get(receipt)) == "This has ended"
    status, problem = acme_bot.token()
    assert (status, problem["code"], problem["reason"]) == (409, "rechallenge_required", "undone")
    token = AccessToken.objects.get()
    assert (token.ciphertext, token.end_reason) == (None, "undone")
    assert Revocation.objects.get().access_token_uuid == token.uuid
    assert AuditEvent.objects.filter(kind="token.ended", outcome="undone", actor="consumer").count() == 1
    assert end(ada, receipt_of(acme_bot, ada, acme_login)).status_code == 303  # a new sign-in has a receipt of its own


def test_opening_it_changes_nothing_and_a_form_of_another_origin_ends_nothing(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """B6, B22."""
    receipt = receipt_of(acme_bot, ada, acme_login)
    before = everything_stored("brands_", "conversations_", "infrastructure_auditevent")
    for method in (ada.client.get, ada.client.head):
        assert method(receipt, secure=True).status_code == 200
    for headers in ({"Origin": "https://evil.example"}, {}):
        assert ada.client.post(f"{receipt}/end", {}, secure=True, headers=headers).status_code == 403
    again = ada.client.get(f"{receipt}/end", secure=True)
    assert (again.status_code, f"https://{HOST}{again['Location']}") == (303, receipt)
    assert everything_stored("brands_", "conversations_", "infrastructure_auditevent") == before
    assert acme_bot.token()[0] == 200


def test_a_link_over_its_limit_keeps_nobody_from_ending_it(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G8, A9. The bug: the button was counted with the pages, and refused with them."""
    receipt = receipt_of(acme_bot, ada, acme_login)
    monkeypatch.setattr(rate_limits, "PAGES_PER_LINK", replace(rate_limits.PAGES_PER_LINK, times=0))
    assert ada.get(receipt).status_code == 429
    assert end(ada, receipt).status_code == 303
    assert acme_bot.status() == ("rechallenge_required", "undone")


@pytest.mark.parametrize("state", ["unknown", "pending", "closed", "closing", "inactive"])
def test_a_receipt_of_nothing_is_the_page_of_a_dead_link(
    acme_bot: Bot, ada: Browser, rita: Browser, acme_login: FakeAuthorizationServer, state: str
) -> None:
    """G9: it stops working with the conversation, byte for byte as if it had never been."""
    receipt = receipt_of(acme_bot, ada, acme_login)
    match state:
        case "unknown":
            receipt = receipt[:-5] + "xxxxx"
        case "pending":
            AccessToken.objects.update(confirmed_at=None)
        case "closed":
            acme_bot.in_chat("DELETE")
            assert AccessToken.objects.get().receipt_digest is None
        case "closing":
            Conversation.objects.update(closed_at=timezone.now())
        case "inactive":
            Brand.objects.update(is_active=False)
    page, unknown = rita.get(receipt), rita.get("/c/no-such-link")
    assert (page.status_code, page.content) == (404, unknown.content)


def test_the_button_of_a_receipt_whose_chat_was_closed_meanwhile_ends_nothing_more(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """A9."""
    receipt = receipt_of(acme_bot, ada, acme_login)
    ada.get(receipt)
    acme_bot.in_chat("DELETE")
    events = AuditEvent.objects.count()
    answer = end(ada, receipt)
    assert (answer.status_code, f"https://{HOST}{answer['Location']}") == (303, receipt)
    assert AuditEvent.objects.count() == events


def test_an_expired_token_is_over_on_its_receipt_too(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    receipt = receipt_of(acme_bot, ada, acme_login)
    with time_machine.travel(timezone.now() + timedelta(seconds=3601), tick=False):
        assert heading_of(ada.get(receipt)) == "This has ended"


def test_it_stands_nowhere_in_the_database_and_its_key_can_be_rotated(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, settings: Any
) -> None:
    """K4: the row has a digest alone, which is known under every key of the ring."""
    receipt = receipt_of(acme_bot, ada, acme_login)
    assert receipt.rsplit("/", 1)[1] not in everything_stored()
    new = base64.b64encode(hashlib.sha256(b"another key").digest()).decode()
    settings.ENCRYPTION_KEYS = f"new-key:{new},{settings.ENCRYPTION_KEYS}"
    assert key_ring().newest_id == "new-key"
    assert heading_of(ada.get(receipt)) == "What Acme's assistant may do for you"


def test_only_the_browser_that_signed_in_is_shown_it(
    acme_bot: Bot, ada: Browser, rita: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """G9: and never before the code was typed into the chat."""
    challenge = acme_bot.challenge()
    rita.begin(challenge["url"])
    page = ada.sign_in(challenge["url"], acme_login)
    assert "/r/" not in page.content.decode()
    acme_bot.complete(code_on(page))
    shown = [browser.get(f"{challenge['url']}/done").content.decode() for browser in (ada, rita)]
    assert ["/r/" in text for text in shown] == [True, False]
    assert heading_of(rita.get(f"{challenge['url']}/done")) == "You're signed in"
