"""An admin ends tokens or a whole conversation: asked first, done once, told what was done, and written down."""

import html
import re
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from brands.models import AuthorizationServer
from conversations.models import AccessToken, AuditEvent, AuthorizationRequest, Challenge, Conversation, Revocation
from tests.admin_pages import AdminBrowser, House, address
from tests.cast import Bot, Browser, client_of_ours, code_on
from tests.fake_authorization_server import FakeAuthorizationServer
from tests.webhook_receiver import Receiver

pytestmark = pytest.mark.django_db

PAGES = ("end_tokens", "close_conversation")


@pytest.fixture
def admin(acme_admin: Any) -> AdminBrowser:
    return AdminBrowser(acme_admin)


@pytest.fixture
def token(acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer) -> AccessToken:
    """Return the live token of acme-bot's chat, at a server that revokes."""
    AuthorizationServer.objects.update(revocation_endpoint=f"{acme_login.issuer}/revoke")
    acme_bot.complete(code_on(ada.sign_in(acme_bot.challenge()["url"], acme_login)))
    return AccessToken.objects.get()


def page(name: str, conversation: Conversation | None = None) -> str:
    return reverse(name, args=[(conversation or Conversation.objects.get()).pk])


def receipt(answer: Any) -> list[str]:
    """Follow the redirect to the conversation and return what is said there."""
    assert (answer.status_code, answer["Location"]) == (
        302,
        address(Conversation, "change", Conversation.objects.get()),
    )
    messages = list(answer.wsgi_request._messages)
    return [str(message) for message in messages]


def audited(kind: str) -> list[tuple[str, str]]:
    return list(AuditEvent.objects.filter(kind=kind).values_list("outcome", "actor"))


def test_the_question_changes_nothing(admin: AdminBrowser, acme_bot: Bot, token: AccessToken) -> None:
    """B6 for admins: opening the page, or a prefetch of it, ends nothing."""
    for name in PAGES:
        assert admin.get(page(name)).status_code == 200
        assert admin.client.head(page(name), secure=True).status_code == 200
        assert admin.client.put(page(name), secure=True).status_code == 405
    assert acme_bot.token()[0] == 200


def test_an_ended_token_is_counted_revoked_and_audited(
    admin: AdminBrowser, acme_bot: Bot, token: AccessToken, acme_hooks: Receiver
) -> None:
    """J12, K6."""
    answer = admin.post(page("end_tokens"), {"token": [token.pk]})
    assert receipt(answer) == ["1 access token ended. 1 revocation is sent to the server. 0 links no longer work."]
    assert acme_bot.token()[1]["reason"] == "revoked"
    assert audited("token.ended") == [("revoked", f"admin:{admin.user.pk}")]
    assert Revocation.objects.get().access_token_uuid == token.uuid
    assert acme_hooks.deliver() == ["token.ended"]


def test_a_second_press_ends_nothing_more(admin: AdminBrowser, token: AccessToken) -> None:
    admin.post(page("end_tokens"), {"token": [token.pk]})
    said = receipt(admin.post(page("end_tokens"), {"token": [token.pk]}))[1:]
    assert said == ["No token was ended: none was chosen, or each had ended before."]
    assert len(audited("token.ended")) == 1
    assert "There is no access token to end" in admin.get(page("end_tokens")).content.decode()


def test_only_the_chosen_tokens_of_this_conversation_end(
    admin: AdminBrowser, acme_bot: Bot, token: AccessToken, acme_login: FakeAuthorizationServer
) -> None:
    """J6: a key of another chat in the form is no key of this one."""
    here = Conversation.objects.get()
    other = Bot(acme_bot.key, "another-chat")
    other.complete(code_on(Browser().sign_in(other.challenge()["url"], acme_login)))
    foreign = AccessToken.objects.exclude(pk=token.pk).get()
    for value in (foreign.pk, "", "x", "-1", "9" * 40, "9" * 5000, "\u0661"):
        assert admin.post(page("end_tokens", here), {"token": [value]}).status_code == 302
    assert (acme_bot.token()[0], other.token()[0]) == (200, 200)


def test_a_pending_token_takes_its_link_with_it(
    admin: AdminBrowser, acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    challenge = acme_bot.challenge()
    ada.sign_in(challenge["url"], acme_login)
    shown = " ".join(html.unescape(admin.get(page("end_tokens")).content.decode()).split())
    assert "pending: it waits for the same-person check" in shown
    answer = admin.post(page("end_tokens"), {"token": [AccessToken.objects.get().pk]})
    assert receipt(answer) == ["1 access token ended. 0 revocations are sent to the server. 1 link no longer works."]
    assert acme_bot.read_challenge(challenge)["status"] == "withdrawn"


def test_closing_erases_everything_and_says_how_much(
    admin: AdminBrowser, acme_bot: Bot, token: AccessToken, acme_hooks: Receiver
) -> None:
    """J12, K6."""
    link = acme_bot.challenge(replace=True)
    acme_hooks.deliver()
    shown = " ".join(re.sub(r"<[^>]+>", "", admin.get(page("close_conversation")).content.decode()).split())
    assert "This ends 1 access token and 1 open link" in shown
    said = receipt(admin.post(page("close_conversation")))
    counted = "1 access token ended. 1 revocation is sent to the server. 1 link no longer works."
    assert said == [f"The conversation is closed and erased. {counted}"]
    assert acme_bot.token()[1]["code"] == "conversation_closed"
    assert audited("conversation.closed") == [("", f"admin:{admin.user.pk}")]
    assert "conversation.closed" in acme_hooks.deliver()
    token.refresh_from_db()
    challenge = Challenge.objects.get(uuid=link["challenge_id"])
    assert (token.ciphertext, token.subject_ciphertext, challenge.link_token_ciphertext) == (None, None, None)
    assert set(AuthorizationRequest.objects.values_list("error_detail", flat=True)) == {""}


def test_what_has_expired_is_not_counted_as_live(admin: AdminBrowser, acme_bot: Bot, token: AccessToken) -> None:
    """The bug: until the sweep, the question named tokens and links that nobody could use any more."""
    acme_bot.challenge(replace=True)
    for model in (AccessToken, Challenge):
        model._default_manager.update(expires_at=timezone.now())
    shown = " ".join(re.sub(r"<[^>]+>", "", admin.get(page("close_conversation")).content.decode()).split())
    said = receipt(admin.post(page("close_conversation")))
    assert "This ends 0 access tokens and 0 open links" in shown
    counted = "0 access tokens ended. 0 revocations are sent to the server. 0 links no longer work."
    assert said == [f"The conversation is closed and erased. {counted}"]


def test_closing_twice_says_that_it_was_closed(admin: AdminBrowser, token: AccessToken) -> None:
    admin.post(page("close_conversation"))
    said = receipt(admin.post(page("close_conversation")))[1:]
    assert said == ["Nothing was done: the conversation was closed before."]
    assert len(audited("conversation.closed")) == 1
    for name in PAGES:
        assert "There is nothing to end." in admin.get(page(name)).content.decode()
    shown = admin.get(address(Conversation, "change", Conversation.objects.get())).content.decode()
    assert [name for name in PAGES if page(name) in shown] == []


@pytest.mark.parametrize("name", PAGES)
def test_another_brands_conversation_is_not_found(houses: tuple[House, House], name: str) -> None:
    """J1: neither asked about nor ended."""
    for owner, stranger in (houses, houses[::-1]):
        row, token = owner.row(Conversation), owner.row(AccessToken)
        for answer in (
            stranger.admin.get(page(name, row)),
            stranger.admin.post(page(name, row), {"token": [token.pk]}),
        ):
            assert answer.status_code == 404
            assert [mark for mark in owner.marks if mark in answer.content.decode()] == []
        assert owner.bot.token()[0] == 200


@pytest.mark.parametrize("name", PAGES)
def test_a_request_from_another_page_ends_nothing(
    admin: AdminBrowser, acme_bot: Bot, token: AccessToken, name: str
) -> None:
    """B22: without the form's token, and without a sign-in."""
    forged = client_of_ours(enforce_csrf_checks=True)
    forged.force_login(admin.user)
    assert forged.post(page(name), {"token": [token.pk]}, secure=True).status_code == 403
    visitor = client_of_ours().post(page(name), {"token": [token.pk]}, secure=True)
    assert (visitor.status_code, visitor["Location"].partition("?")[0]) == (302, "/admin/login/")
    assert acme_bot.token()[0] == 200


@pytest.mark.parametrize("name", PAGES)
def test_the_pages_cost_few_queries(admin: AdminBrowser, token: AccessToken, name: str) -> None:
    with CaptureQueriesContext(connection) as asked:
        admin.get(page(name))
    assert len(asked) <= 15
