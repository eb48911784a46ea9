"""What changes between a read and the lock that follows it: the row as it stands under the lock decides."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.utils import timezone

from brands.models import AuthorizationServer
from conversations.flow.authorization_requests import MAX_PENDING_REQUESTS, begin_authorization_request
from conversations.flow.authorization_status import Authorization, AuthorizationStatus, authorization_of
from conversations.flow.challenges import WantedChallenge, cancel_challenge, issue_challenge
from conversations.flow.completion import complete, complete_with_handle, derived_code
from conversations.flow.errors import ConversationClosed
from conversations.flow.readable_tokens import readable_token
from conversations.flow.revocations import finish_revocation, is_value_of_live_token
from conversations.flow.termination import close_conversation, end_live_token
from conversations.flow.transitions import end_access_token
from conversations.models import AccessToken, AuditEvent, AuthorizationRequest, Challenge, Conversation, Revocation
from infrastructure.crypto import Secret
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
    assert begin_authorization_request(read_before, timezone.now()) is None
    assert begin_authorization_request(Challenge.objects.get(), timezone.now()) is None
    assert not AuthorizationRequest.objects.exists()


def test_a_challenge_that_ended_meanwhile_is_not_cancelled(acme_bot: Bot, acme_server: AuthorizationServer) -> None:
    issued = acme_bot.challenge()
    read_before = Challenge.objects.get()
    acme_bot.call("DELETE", f"/challenges/{issued['challenge_id']}")
    assert cancel_challenge(read_before, now=timezone.now()) is False
    assert cancel_challenge(Challenge.objects.get(), now=timezone.now()) is False
    assert Challenge.objects.get().status == "withdrawn"


def test_a_sign_in_that_came_back_meanwhile_is_not_cancelled(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """The page still had its button "this wasn't me". From then on it is `undo`, which ends the token with it."""
    url = acme_bot.challenge()["url"]
    read_before = Challenge.objects.get()
    code = code_on(ada.sign_in(url, acme_login))
    assert cancel_challenge(read_before, now=timezone.now()) is False
    assert acme_bot.complete(code)[0] == 200


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
    assert derived_code(Challenge.objects.get(), "another cookie") is None


def test_a_token_of_a_chat_that_was_closed_between_two_queries_is_not_handed_out(
    acme_server: AuthorizationServer, authorized: AccessToken
) -> None:
    """G6: the conversation was read as open, its token as ended with it."""
    read_before = Conversation.objects.get()
    close_conversation(read_before, actor="bot:x", now=timezone.now())
    read_before.closed_at = None
    now = timezone.now()
    assert authorization_of(read_before, acme_server, now) == Authorization(AuthorizationStatus.CLOSED)
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
    assert warning.getMessage() == "a token that cannot be decrypted was erased, not revoked"
    assert vars(warning)["access_token_uuid"] == str(ended.uuid)


def come_back(bot: Bot, ada: Browser, login: FakeAuthorizationServer) -> dict[str, Any]:
    """Sign in, and return the challenge after the callback."""
    challenge = bot.challenge()
    ada.come_back(ada.begin(challenge["url"]), login)
    return bot.read_challenge(challenge)


def test_a_client_secret_that_cannot_be_read_ends_the_authorization_request_only(
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
    facts = acme_bot.read_challenge(challenge)
    assert (facts["status"], facts["last_error"]) == ("started", "invalid_id_token")
    assert not AccessToken.objects.exists()


def test_a_chat_that_was_closed_meanwhile_gets_no_challenge(acme_bot: Bot, acme_server: AuthorizationServer) -> None:
    """The conversation that a bot was about to use closes before the lock is had."""
    acme_bot.challenge()
    acme_bot.in_chat("DELETE")
    wanted = WantedChallenge(server=acme_server)
    with pytest.raises(ConversationClosed):
        issue_challenge(acme_server.brand, acme_bot.chat, wanted, actor="bot:x", now=timezone.now())
    assert Challenge.objects.count() == 1


def test_a_handle_posted_while_the_chat_was_being_closed_confirms_nothing(
    acme_bot: Bot, ada: Browser, acme_server: AuthorizationServer, acme_login: FakeAuthorizationServer
) -> None:
    """A11: the handle went through the chat's page all right, and came too late."""
    AuthorizationServer.objects.update(same_person_checks=["chat_page"], chat_page_url="https://www.acme.example/chat")
    answer = ada.come_back(ada.begin(acme_bot.challenge()["url"]), acme_login)
    handle = answer["Location"].partition("=")[2]
    digest = Challenge.objects.get().completion_handle_digest
    read_before = Conversation.objects.get()
    acme_bot.in_chat("DELETE")
    Challenge.objects.update(completion_handle_digest=digest)  # as it is read where closing waits for the lock
    with pytest.raises(ConversationClosed):
        complete_with_handle(read_before, handle, actor="bot:x", now=timezone.now())
    assert AccessToken.objects.get().confirmed_at is None


def test_however_often_a_link_is_begun_few_authorization_requests_are_kept(
    acme_bot: Bot, acme_server: AuthorizationServer
) -> None:
    """G9: a scanner that presses the button all day fills no table."""
    acme_bot.challenge()
    for _ in range(MAX_PENDING_REQUESTS * 6 + 5):
        assert begin_authorization_request(Challenge.objects.get(), timezone.now())
    unfinished = AuthorizationRequest.objects.filter(finished_at=None).order_by("id")
    assert unfinished.count() == MAX_PENDING_REQUESTS
    assert AuthorizationRequest.objects.filter(error="dropped").count() == MAX_PENDING_REQUESTS * 5 + 1
    assert unfinished[0].pk > max(AuthorizationRequest.objects.filter(error="dropped").values_list("pk", flat=True))


def test_a_value_that_stands_unreadable_elsewhere_is_revoked_all_the_same(
    acme_server: AuthorizationServer, authorized: AccessToken
) -> None:
    """A13: only a token that is known to be the same one, and in use, keeps the brand from being told."""
    AccessToken.objects.update(ciphertext=b"nonsense")
    used = is_value_of_live_token(Conversation.objects.get(), acme_server.pk, Secret("ya29.another"), UUID(int=1))
    assert used is False


def test_a_revocation_that_two_workers_finish_is_recorded_once(
    acme_server: AuthorizationServer, authorized: AccessToken
) -> None:
    AccessToken.objects.update(revocation_endpoint="https://login.acme.example/revoke")
    end_live_token(
        Conversation.objects.get(), acme_server, AccessToken.EndReason.REJECTED, actor="bot:x", now=timezone.now()
    )
    first, second = Revocation.objects.get(), Revocation.objects.get()
    finish_revocation(first, "revoked", timezone.now())
    finish_revocation(second, "given_up", timezone.now())
    outcomes = AuditEvent.objects.filter(kind="token.revocation").values_list("outcome", flat=True)
    assert list(outcomes) == ["revoked"]
