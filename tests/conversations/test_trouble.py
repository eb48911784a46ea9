"""Trouble is of two kinds: another try may help, or Acme has to act, was told, and finds it by the page's reference."""

import html
import re
from typing import Any

import pytest

from conversations.models import AuditEvent, Challenge
from oauth_client import MEANINGS, ConsumerPage
from tests.cast import Bot, Browser, client_of_ours, heading_of
from tests.fake_authorization_server import FakeAuthorizationServer
from tests.webhook_receiver import Receiver

pytestmark = pytest.mark.django_db

TOLD = "We have told Acme; your chat can go on without it."
OF_ACME = ["invalid_client", "unauthorized_client", "invalid_scope", "unsupported_response_type", "invalid_request"]
PASSING = ["temporarily_unavailable", "server_error", "login_required", "17"]


def failed(bot: Bot, browser: Browser, login: FakeAuthorizationServer, error: str) -> Any:
    """Come back from Acme with this error. Returns the page."""
    state = dict(part.split("=") for part in browser.begin(bot.challenge()["url"]).partition("?")[2].split("&"))[
        "state"
    ]
    answer = browser.get(f"{login.redirect_uri}?error={error}&state={state}&iss={login.issuer}")
    return browser.get(answer["Location"])


def text_of(page: Any) -> str:
    return " ".join(html.unescape(page.content.decode()).split())


def admin_page(user: Any, path: str, **query: str) -> str:
    """A page of the admin, as this user sees it."""
    client = client_of_ours()
    client.force_login(user)
    answer = client.get(f"/admin/conversations/challenge/{path}", query, secure=True)
    assert answer.status_code == 200
    return str(answer.content.decode())


def reference_on(page: Any) -> str:
    found = re.search(r'<bdi class="reference">([^<]*)</bdi>', page.content.decode())
    return found[1] if found else ""


@pytest.mark.parametrize("error", OF_ACME)
def test_what_acme_has_to_mend_is_told_to_acme_and_found_by_the_reference(
    acme_bot: Bot,
    ada: Browser,
    acme_login: FakeAuthorizationServer,
    acme_hooks: Receiver,
    acme_admin: Any,
    error: str,
) -> None:
    """H11: audit log, webhook and the admin's page with the remedy; nobody has to send a mail for that to be true."""
    page = failed(acme_bot, ada, acme_login, error)
    assert heading_of(page) == "Acme cannot sign you in right now"
    assert TOLD in text_of(page)
    assert AuditEvent.objects.filter(kind="authorization_request.failed").count() == 1
    acme_hooks.deliver()
    assert [message.type for message in acme_hooks.messages][-1] == "authorization_request.failed"
    challenge = Challenge.objects.get()
    assert reference_on(page).replace(" ", "") == str(challenge.uuid)[:8]
    for term in (reference_on(page), str(challenge.uuid)[:8].upper()):
        listed = admin_page(acme_admin, "", q=term)
        assert f"/admin/conversations/challenge/{challenge.pk}/change/" in listed
    shown = admin_page(acme_admin, f"{challenge.pk}/change/")
    assert html.escape(MEANINGS[challenge.last_error].plain_remedy) in shown


@pytest.mark.parametrize("error", PASSING)
def test_what_passes_offers_another_try_and_tells_nobody_off(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, error: str
) -> None:
    page = failed(acme_bot, ada, acme_login, error)
    assert "Try again</button>" in page.content.decode()
    assert (TOLD in text_of(page), reference_on(page)) == (False, "")


def test_the_table_of_codes_knows_which_kind_each_trouble_is() -> None:
    """Each page of a failed sign-in either has the button that tries again, or says that Acme was told."""
    kinds = {meaning.page: meaning.another_try_helps for meaning in MEANINGS.values()}
    assert {page for page, helps in kinds.items() if helps} == {
        ConsumerPage.NOT_ANSWERING,
        ConsumerPage.NOT_COMPLETED,
        ConsumerPage.MISSING_PERMISSION,
    }
    assert kinds[ConsumerPage.CANNOT_SIGN_IN] is False


def test_rivals_admin_finds_nothing_by_acmes_reference(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, rival_admin: Any
) -> None:
    """J1, J5."""
    page = failed(acme_bot, ada, acme_login, "invalid_client")
    listed = admin_page(rival_admin, "", q=reference_on(page))
    assert f"/challenge/{Challenge.objects.get().pk}/" not in listed
