"""What changes between a read and the lock that follows it: the row as it stands under the lock decides."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from brands.models import AuthorizationServer
from conversations.flow.attempts import begin_attempt
from conversations.flow.challenges import cancel_challenge
from conversations.flow.completion import complete, shown_code
from conversations.flow.endings import close_conversation, end_live_token
from conversations.flow.errors import ConversationClosed
from conversations.flow.reading import readable_token
from conversations.flow.standing import AuthorizationStatus, Standing, standing
from conversations.flow.transitions import end_access_token
from conversations.models import AccessToken, AuditEvent, AuthorizationRequest, Challenge, Conversation, Revocation
from tests.cast import Bot, Browser, code_on, use_openid
from tests.fake_authorization_server import FakeAuthorizationServer

pytestmark = pytest.mark.django_db


@pytest.fixture
def authorized(acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer) -> AccessToken:
    """Return the live token of acme-bot's chat."""
    acme_bot.complete(code_on(ada.sign_in(acme_bot.challenge()["url"], acme_login)))
    return AccessToken.objects.select_related("challenge__conversation__brand", "conversation__brand").get()


def test_a_link_that_was_withdrawn_while_its_page_was_open_begins_nothing(
    acme_bot: Bot, acme_server: AuthorizationServer
) -> None:
    """B1: neither by the row that was read before nor by the one that says so itself."""
    issued = acme_bot.challenge()
    read_before = Challenge.objects.get()
    acme_bot.call("DELETE", f"/challenges/{issued['challenge_id']}")
    assert begin_attempt(read_before, timezone.now()) is None
    assert begin_attempt(Challenge.objects.get(), timezone.now()) is None
    assert not AuthorizationRequest.objects.exists()


def test_a_challenge_that_ended_meanwhile_is_not_cancelled(acme_bot: Bot, acme_server: AuthorizationServer) -> None:
    issued = acme_bot.challenge()
    read_before = Challenge.objects.get()
    acme_bot.call("DELETE", f"/challenges/{issued['challenge_id']}")
    assert cancel_challenge(read_before, now=timezone.now()) is False
    assert cancel_challenge(Challenge.objects.get(), now=timezone.now()) is False
    assert Challenge.objects.get().status == "withdrawn"


def test_a_code_typed_while_the_chat_was_being_closed_confirms_nothing(
    acme_bot: Bot, ada: Browser, acme_server: AuthorizationServer, acme_login: FakeAuthorizationServer
) -> None:
    """A2: the conversation that was read as open is closed under the lock."""
    code = code_on(ada.sign_in(acme_bot.challenge()["url"], acme_login))
    read_before = Conversation.objects.get()
    acme_bot.in_chat("DELETE")
    with pytest.raises(ConversationClosed):
        complete(read_before, acme_server, code, actor="bot:x", now=timezone.now())
    assert AccessToken.objects.get().confirmed_at is None


def test_a_code_is_shown_for_no_other_cookie(
    acme_bot: Bot, ada: Browser, acme_server: AuthorizationServer, acme_login: FakeAuthorizationServer
) -> None:
    """A3."""
    ada.sign_in(acme_bot.challenge()["url"], acme_login)
    assert shown_code(Challenge.objects.get(), "another cookie") is None


def test_a_token_of_a_chat_that_was_closed_between_two_queries_is_not_handed_out(
    acme_server: AuthorizationServer, authorized: AccessToken
) -> None:
    """G6: the conversation was read as open, its token as ended with it."""
    read_before = Conversation.objects.get()
    close_conversation(read_before, actor="bot:x", now=timezone.now())
    read_before.closed_at = None
    now = timezone.now()
    assert standing(read_before, acme_server, now) == Standing(AuthorizationStatus.CLOSED)
    with pytest.raises(ConversationClosed):
        readable_token(read_before, acme_server, 0, now)


def test_a_token_ends_once(authorized: AccessToken) -> None:
    """K6: whoever comes second changes neither reason nor moment, and schedules nothing."""
    now = timezone.now()
    reason = AccessToken.EndReason
    assert end_access_token(authorized, reason.REJECTED, now=now, actor="bot:x") is True
    assert end_access_token(authorized, reason.SIGNED_OUT, now=now + timedelta(seconds=1), actor="bot:x") is False
    ended = AccessToken.objects.get()
    assert (ended.end_reason, ended.ended_at, ended.ciphertext) == ("rejected", now, None)
    assert AuditEvent.objects.filter(kind="token.ended").count() == 1


def test_a_token_that_cannot_be_read_ends_all_the_same_and_is_not_presented(
    acme_server: AuthorizationServer, authorized: AccessToken, caplog: pytest.LogCaptureFixture
) -> None:
    """K2: erased; nothing is put into the outbox, and the log names the row alone."""
    AccessToken.objects.update(ciphertext=b"nonsense", revocation_endpoint="https://login.acme.example/revoke")
    end_live_token(
        Conversation.objects.get(), acme_server, AccessToken.EndReason.REJECTED, actor="bot:x", now=timezone.now()
    )
    ended = AccessToken.objects.get()
    assert (ended.end_reason, ended.ciphertext) == ("rejected", None)
    assert not Revocation.objects.exists()
    (warning,) = [found for found in caplog.records if found.name == "consumer_delegation.revocation"]
    assert warning.getMessage() == "an unreadable token was erased unrevoked"
    assert vars(warning)["access_token_uuid"] == str(ended.uuid)


def come_back(bot: Bot, ada: Browser, login: FakeAuthorizationServer) -> dict[str, Any]:
    """Sign in, and return the challenge after the callback."""
    challenge = bot.challenge()
    ada.come_back(ada.begin(challenge["url"]), login)
    return bot.challenge_facts(challenge)


def test_a_client_secret_that_cannot_be_read_ends_the_attempt_only(
    acme_bot: Bot, ada: Browser, acme_server: AuthorizationServer, acme_login: FakeAuthorizationServer
) -> None:
    """K2: the challenge stays open, and nothing was sent."""
    AuthorizationServer.objects.update(client_secret_ciphertext=b"nonsense")
    facts = come_back(acme_bot, ada, acme_login)
    assert (facts["status"], facts["last_error"]) == ("started", "stored_secret_unreadable")
    assert acme_login.token_requests == []


def test_an_openid_answer_without_an_id_token_is_no_sign_in(
    acme_bot: Bot, ada: Browser, acme_server: AuthorizationServer, acme_login: FakeAuthorizationServer
) -> None:
    """OpenID Connect Core section 3.1.3.3."""
    use_openid(acme_server, acme_login)
    challenge = acme_bot.challenge()
    authorization_url = ada.begin(challenge["url"])
    acme_login.openid = False
    ada.come_back(authorization_url, acme_login)
    facts = acme_bot.challenge_facts(challenge)
    assert (facts["status"], facts["last_error"]) == ("started", "invalid_id_token")
    assert not AccessToken.objects.exists()
