"""`manage.py prune`: expired tokens are erased now, what ended long ago is deleted, and nothing that still counts."""

import io
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from brands.models import AuthorizationServer
from conversations.flow import retention
from conversations.models import AccessToken, AuditEvent, AuthorizationRequest, Challenge, Conversation
from tests.cast import Bot, Browser, code_on, make_bot, make_server, use_openid
from tests.fake_authorization_server import FakeAuthorizationServer

pytestmark = pytest.mark.django_db


def prune(*arguments: str) -> str:
    printed = io.StringIO()
    call_command("prune", *arguments, stdout=printed)
    return printed.getvalue().strip()


def later(**delta: float) -> Any:
    return time_machine.travel(timezone.now() + timedelta(**delta), tick=False)


def authorize(bot: Bot, browser: Browser, login: FakeAuthorizationServer) -> dict[str, Any]:
    challenge = bot.challenge()
    assert bot.complete(code_on(browser.sign_in(challenge["url"], login)))[0] == 200
    return challenge


def close_five_chats(bot: Bot) -> None:
    for number in range(5):
        bot.chat = f"chat-{number}"
        bot.challenge()
        bot.in_chat("DELETE")


def rows() -> dict[str, int]:
    models = (Conversation, Challenge, AuthorizationRequest, AccessToken)
    return {model.__name__: model.objects.count() for model in models}


def test_the_sweep_erases_what_the_clock_has_ended_and_writes_it_down(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """K6: token, verifier and challenge, whatever nobody asked for since."""
    authorize(acme_bot, ada, acme_login)
    ada.begin(acme_bot.challenge()["url"])
    with later(seconds=3601):
        assert prune() == "swept 1 conversations; deleted 0 challenges, 0 conversations"
        token, challenge = AccessToken.objects.get(), Challenge.objects.get(access_token=None)
        authorization_request = AuthorizationRequest.objects.get(challenge=challenge)
        assert (token.ciphertext, token.end_reason, token.ended_at) == (None, "expired", timezone.now())
        assert (challenge.status, challenge.ended_at) == ("expired", timezone.now())
        assert (authorization_request.code_verifier_ciphertext, authorization_request.nonce_digest) == (None, None)
        events = AuditEvent.objects.filter(actor="system").order_by("id")
        assert [(event.kind, event.outcome) for event in events] == [
            ("challenge.changed", "expired"),
            ("token.ended", "expired"),
        ]
        assert prune().startswith("swept 0 conversations")
        assert acme_bot.status() == ("rechallenge_required", "expired")


def test_the_sweep_erases_a_token_that_waited_for_its_code_in_vain(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """K6, A2."""
    ada.sign_in(acme_bot.challenge()["url"], acme_login)
    with later(seconds=301):
        prune()
        token = AccessToken.objects.get()
        assert (token.ciphertext, token.end_reason, token.confirmed_at) == (None, "unconfirmed", None)


def test_the_sweep_leaves_what_still_lives(acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer) -> None:
    authorize(acme_bot, ada, acme_login)
    challenge = acme_bot.challenge()
    assert prune() == "swept 0 conversations; deleted 0 challenges, 0 conversations"
    assert acme_bot.token()[0] == 200
    assert acme_bot.read_challenge(challenge)["status"] == "issued"


def test_what_ended_long_ago_is_deleted_and_the_audit_is_not(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """A closed conversation keeps its bare row: it never reopens."""
    authorize(acme_bot, ada, acme_login)
    acme_bot.in_chat("DELETE")
    audited = AuditEvent.objects.count()
    with later(days=29):
        prune()
        assert rows() == {"Conversation": 1, "Challenge": 1, "AuthorizationRequest": 1, "AccessToken": 1}
    with later(days=31):
        assert prune() == "swept 0 conversations; deleted 1 challenges, 0 conversations"
        assert rows() == {"Conversation": 1, "Challenge": 0, "AuthorizationRequest": 0, "AccessToken": 0}
        assert acme_bot.in_chat("POST", "/challenges")[1]["code"] == "conversation_closed"
    assert AuditEvent.objects.count() == audited


def test_days_says_how_long_ended_rows_are_kept(acme_bot: Bot, acme_server: AuthorizationServer) -> None:
    acme_bot.challenge()
    acme_bot.in_chat("DELETE")
    with later(days=2):
        assert prune("--days", "3").endswith("deleted 0 challenges, 0 conversations")
        assert prune("--days", "1").endswith("deleted 1 challenges, 0 conversations")
    with pytest.raises(CommandError, match="--days is at least 1"):
        prune("--days", "0")


def test_the_last_token_of_an_open_conversation_stays_without_its_ciphertext(
    acme_bot: Bot, ada: Browser, acme_server: AuthorizationServer, acme_login: FakeAuthorizationServer
) -> None:
    """A7: it says why a new challenge is needed, and who it was; older ones go."""
    use_openid(acme_server, acme_login)
    for _ in range(3):
        authorize(acme_bot, ada, acme_login)
    with later(days=31):
        assert prune() == "swept 1 conversations; deleted 2 challenges, 0 conversations"
        token = AccessToken.objects.get()
        assert (token.ciphertext, token.end_reason) == (None, "expired")
        assert acme_bot.status() == ("rechallenge_required", "expired")
        acme_login.subject = "somebody-else"
        swapped = acme_bot.challenge()
        ada.sign_in(swapped["url"], acme_login)
        assert acme_bot.read_challenge(swapped)["error"] == "subject_mismatch"


def test_each_chats_last_token_at_each_server_stays(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, acme_server: AuthorizationServer
) -> None:
    """A7: what came later in another chat, or at another server, says nothing of this one."""
    other = make_bot(acme_server.brand, chat="web:other-chat")
    for bot in (acme_bot, other):
        authorize(bot, ada, acme_login)
    loyalty = make_server(acme_server.brand, "loyalty")
    acme_login.redirect_uri = loyalty.redirect_uri
    challenge = acme_bot.challenge(authorization_server="loyalty")
    typed = {"code": code_on(ada.sign_in(challenge["url"], acme_login)), "authorization_server": "loyalty"}
    assert acme_bot.in_chat("POST", "/completion", typed)[0] == 200
    with later(days=31):
        assert prune() == "swept 2 conversations; deleted 0 challenges, 0 conversations"
    assert rows() == {"Conversation": 2, "Challenge": 3, "AuthorizationRequest": 3, "AccessToken": 3}


def test_the_first_row_of_a_table_is_pruned_as_every_other(acme_server: AuthorizationServer) -> None:
    Conversation.objects.create(pk=1, brand=acme_server.brand, external_id="web:first")
    with later(days=31):
        assert prune() == "swept 0 conversations; deleted 0 challenges, 1 conversations"


def test_sign_ins_that_nobody_confirmed_leave_nothing_behind(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    for _ in range(2):
        ada.sign_in(acme_bot.challenge(replace=True)["url"], acme_login)
    with later(days=31):
        assert prune() == "swept 1 conversations; deleted 2 challenges, 1 conversations"
    assert rows() == {"Conversation": 0, "Challenge": 0, "AuthorizationRequest": 0, "AccessToken": 0}


def test_a_live_token_is_kept_however_old_its_challenge_is(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    authorize(acme_bot, ada, acme_login)
    AccessToken.objects.update(expires_at=timezone.now() + timedelta(days=60))
    with later(days=31):
        assert prune() == "swept 0 conversations; deleted 0 challenges, 0 conversations"
        assert acme_bot.token()[0] == 200


def test_a_live_token_is_kept_though_the_one_that_it_replaced_looks_newer(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """It was confirmed by a machine whose clock was behind."""
    for _ in range(2):
        authorize(acme_bot, ada, acme_login)
    now = timezone.now()
    live = AccessToken.objects.filter(ended_at=None)
    live.update(confirmed_at=now - timedelta(hours=1), expires_at=now + timedelta(days=60))
    with later(days=31):
        prune()
        assert acme_bot.token()[1]["access_token"] == acme_login.issued_access_tokens[1]


def test_a_live_token_keeps_nothing_old_of_others(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, acme_server: AuthorizationServer
) -> None:
    authorize(acme_bot, ada, acme_login)
    AccessToken.objects.update(expires_at=timezone.now() + timedelta(days=60))
    make_bot(acme_server.brand, chat="web:other-chat").challenge()
    with later(days=31):
        assert prune() == "swept 1 conversations; deleted 1 challenges, 1 conversations"
    assert rows() == {"Conversation": 1, "Challenge": 1, "AuthorizationRequest": 1, "AccessToken": 1}


def test_every_chat_that_was_swept_is_counted(acme_bot: Bot, acme_server: AuthorizationServer) -> None:
    for number in range(3):
        make_bot(acme_server.brand, chat=f"web:{number}").challenge()
    with later(seconds=901):
        assert prune() == "swept 3 conversations; deleted 0 challenges, 0 conversations"


def test_one_conversations_end_deletes_nothing_of_another(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, acme_server: AuthorizationServer, rival_bot: Bot
) -> None:
    other = make_bot(acme_server.brand, chat="web:other-chat")
    for bot in (acme_bot, other):
        authorize(bot, ada, acme_login)
    acme_bot.in_chat("DELETE")
    with later(days=31):
        prune()
        assert other.status() == ("rechallenge_required", "expired")
        assert acme_bot.status() == ("closed", None)


@pytest.mark.django_db(transaction=True)
def test_what_is_old_goes_in_chunks_each_in_a_transaction_of_its_own(
    acme_bot: Bot, acme_server: AuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No statement holds a table for long, and a stopped run loses nothing."""
    monkeypatch.setattr(retention, "CHUNK", 2)
    close_five_chats(acme_bot)
    sizes: list[int] = []

    def count(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith('DELETE FROM "conversations_challenge"'):
            sizes.append(len(params))
        return execute(sql, params, many, context)

    with later(days=31), connection.execute_wrapper(count):
        assert prune() == "swept 0 conversations; deleted 5 challenges, 0 conversations"
    assert sizes == [2, 2, 1]
    assert rows()["Challenge"] == 0


def test_a_purge_that_has_to_stop_ends_after_a_window_and_the_next_one_goes_on(
    acme_bot: Bot, acme_server: AuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A purge of a million conversations takes minutes."""
    monkeypatch.setattr(retention, "CHUNK", 2)
    close_five_chats(acme_bot)
    asked = iter([False, True, True])
    with later(days=31):
        assert retention.prune(timezone.now(), lambda: next(asked)) == (2, 0)
        assert retention.prune(timezone.now()) == (3, 0)
