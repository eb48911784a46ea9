"""What lies in the database: no plain value, and nothing that can be moved to another conversation."""

from typing import Any

import pytest
from django.apps import apps
from django.core import serializers
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from brands.models import AuthorizationServer, BotKey, Brand, Logo, ServerHealth
from brands.unsaved_secrets import UnsavedSecrets
from conversations.flow import read_counts
from conversations.flow.trial_sign_in import begin_trial
from conversations.models import (
    AccessToken,
    ApiCallCount,
    AuthorizationRequest,
    Challenge,
    CountedAuditLog,
    HourlyCount,
)
from infrastructure.crypto import DecryptionError, Secret
from infrastructure.models import WorkerHeartbeat
from tests.cast import ACME_SECRET, Bot, Browser, code_on, declare_api, declare_operation, make_bot
from tests.fake_authorization_server import PLANTED_REFRESH_TOKEN, FakeAuthorizationServer
from tests.stored import everything_stored
from tests.webhook_receiver import Receiver

pytestmark = pytest.mark.django_db

OURS = ("brands", "conversations", "infrastructure")


@pytest.fixture
def other_bot(acme_server: AuthorizationServer) -> Bot:
    """Return Acme's bot in another chat."""
    return make_bot(acme_server.brand, chat="web:other-chat")


@pytest.fixture
def both_authorized(acme_bot: Bot, other_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer) -> None:
    """Give each of the two chats a token of its own."""
    for bot in (acme_bot, other_bot):
        bot.complete(code_on(ada.sign_in(bot.challenge(context="resume")["url"], acme_login)))


def begin_another(bot: Bot, browser: Browser, login: FakeAuthorizationServer) -> list[str]:
    """Begin one more sign-in; return every secret of this and of the earlier ones."""
    challenge = bot.challenge()
    authorization_url = browser.begin(challenge["url"])
    cookies = [morsel.value for name, morsel in browser.client.cookies.items() if name.startswith("__Host-attempt")]
    planted = [
        *login.issued_access_tokens,
        *(request.parameters["code_verifier"] for request in login.token_requests),
        *(request["state"] for request in login.authorization_requests),
        challenge["url"].rsplit("/", 1)[1],
        authorization_url.split("state=")[1].split("&")[0],
        bot.key.rsplit("_", 1)[1],
        *cookies,
        ACME_SECRET,
        PLANTED_REFRESH_TOKEN,
        "resume",
    ]
    assert len(planted) >= 14
    return planted


@pytest.mark.usefixtures("both_authorized")
def test_no_secret_is_stored_in_plain(acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer) -> None:
    """K1, E15: neither token, verifier, state, link, cookie, key nor client secret; a refresh token not at all."""
    planted = begin_another(acme_bot, ada, acme_login)
    stored = everything_stored()
    assert [value for value in planted if value in stored] == []


@pytest.mark.usefixtures("both_authorized")
def test_no_row_calls_itself_by_a_secret(
    acme_bot: Bot,
    other_bot: Bot,
    ada: Browser,
    acme_login: FakeAuthorizationServer,
    acme_hooks: Receiver,
    acme_admin: Any,
) -> None:
    """K5: tracebacks and log lines print a row by what it says it is."""
    AccessToken.objects.update(revocation_endpoint=f"{acme_login.issuer}/revoke")
    other_bot.token()
    read_counts.flush()
    other_bot.in_chat("DELETE", "/token")
    other_bot.call("POST", f"/conversations/{other_bot.chat}/challenges", {}, **{"Idempotency-Key": "planted-key"})
    Logo.objects.create(brand=Brand.objects.get(), png=b"a picture")
    CountedAuditLog.objects.create()
    WorkerHeartbeat.objects.create(beat_at=timezone.now())
    HourlyCount.objects.create(brand=Brand.objects.get(), hour=timezone.now(), measure="step", detail="left", times=1)
    server, now = AuthorizationServer.objects.get(), timezone.now()
    ServerHealth.objects.create(authorization_server=server, next_attempt_at=now)
    operation = declare_operation(declare_api(server))
    ApiCallCount.objects.create(
        bot_key=BotKey.objects.earliest("pk"),
        operation=operation.name,
        outcome="2xx",
        hour=now,
        times=1,
        milliseconds=9,
    )
    trial = begin_trial(server, acme_admin, "planted-session", now)
    typed = Secret("planted-unsaved-secret")
    UnsavedSecrets(acme_admin.pk, "planted-session").keep(typed, server, {"token_endpoint": server.token_endpoint}, now)
    of_the_admin = ["planted-session", trial.cookie.reveal(), typed.reveal()]
    planted = [*begin_another(acme_bot, ada, acme_login), acme_hooks.secret, "planted-key", *of_the_admin]
    models = [model for name in OURS for model in apps.get_app_config(name).get_models()]
    rows = [row for model in models for row in model._default_manager.all()]
    shown = repr(rows)
    assert {type(row) for row in rows} == set(models)
    assert [value for value in planted if value in shown] == []


@pytest.mark.usefixtures("both_authorized")
@pytest.mark.parametrize("move", ["ciphertext", "conversation", "conversation of a copy"])
def test_a_token_moved_to_another_conversation_by_sql_cannot_be_read_there(
    acme_bot: Bot, other_bot: Bot, move: str
) -> None:
    """K1: unreadable, and not readable by the other bot."""
    mine = AccessToken.objects.get(conversation__external_id=acme_bot.chat)
    theirs = AccessToken.objects.get(conversation__external_id=other_bot.chat)
    with connection.cursor() as cursor:
        if move == "ciphertext":
            cursor.execute(
                "UPDATE conversations_accesstoken SET ciphertext = %s WHERE id = %s",
                [bytes(mine.ciphertext or b""), theirs.pk],
            )
        else:
            cursor.execute("DELETE FROM conversations_accesstoken WHERE id = %s", [theirs.pk])
            cursor.execute(
                "UPDATE conversations_accesstoken SET conversation_id = %s WHERE id = %s",
                [theirs.conversation_id, mine.pk],
            )
        if move == "conversation of a copy":
            cursor.execute(
                "UPDATE conversations_accesstoken SET challenge_id = %s, uuid = %s WHERE id = %s",
                [theirs.challenge_id, _as_stored(theirs.uuid), mine.pk],
            )
    status, problem = other_bot.token()
    assert (status, problem["code"]) == (500, "stored_value_unreadable")
    with pytest.raises(DecryptionError):
        AccessToken.objects.get(conversation__external_id=other_bot.chat).reveal_access_token()


def _as_stored(uuid: Any) -> Any:
    return uuid if connection.vendor == "postgresql" else uuid.hex


@pytest.mark.usefixtures("both_authorized")
def test_a_plain_text_or_a_tampered_ciphertext_in_the_column_is_never_served(acme_bot: Bot) -> None:
    """K2: fail closed, without a word about why."""
    sealed = bytes(AccessToken.objects.latest("id").ciphertext or b"")
    for stored in (b"ya29.a-plain-token", b"", sealed[:-1] + b"\0"):
        AccessToken.objects.filter(conversation__external_id=acme_bot.chat).update(ciphertext=stored)
        status, problem = acme_bot.token()
        assert (status, problem["code"]) == (500, "stored_value_unreadable")
        assert "ya29" not in repr(problem)


@pytest.mark.usefixtures("both_authorized")
def test_fixtures_and_rows_show_no_value(acme_login: FakeAuthorizationServer) -> None:
    """K5: dumpdata, repr and str of every row."""
    rows = [*AccessToken.objects.all(), *Challenge.objects.all(), *AuthorizationServer.objects.all()]
    shown = serializers.serialize("json", rows) + repr(rows) + " ".join(str(vars(row)) for row in rows)
    for token in acme_login.issued_access_tokens:
        assert token not in shown


def test_the_database_refuses_a_second_open_challenge_a_second_pending_and_a_second_live_token(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """A10: constraints, not hope."""
    acme_bot.complete(code_on(ada.sign_in(acme_bot.challenge()["url"], acme_login)))
    ada.sign_in(acme_bot.challenge()["url"], acme_login)
    for row in (
        Challenge.objects.get(status="confirmation_needed"),
        AccessToken.objects.get(confirmed_at=None),
        AccessToken.objects.exclude(confirmed_at=None).get(),
    ):
        _make_a_copy_of(row)
        with pytest.raises(IntegrityError), transaction.atomic():
            row.save(force_insert=True)


def _make_a_copy_of(row: Any) -> None:
    row.pk = None
    row.uuid = AuthorizationRequest().uuid
    if isinstance(row, Challenge):
        row.link_token_digest = b"another"
    else:
        challenge = Challenge.objects.get(pk=row.challenge_id)
        challenge.pk, challenge.uuid, challenge.status = None, AuthorizationRequest().uuid, "completed"
        challenge.link_token_digest, challenge.ended_at = b"of the copy" + row.uuid.bytes, timezone.now()
        challenge.save(force_insert=True)
        row.challenge = challenge


def test_a_token_cannot_be_ended_without_a_reason_nor_be_live_with_one(both_authorized: None) -> None:
    """The bug: one way of reading looked at the moment and the other at the reason, and SQL could make them differ."""
    for changes in ({"end_reason": "revoked"}, {"ended_at": timezone.now()}):
        with pytest.raises(IntegrityError), transaction.atomic():
            AccessToken.objects.update(**changes)
