"""Declared members of the token answer: beside the token, for whoever may read it, and nowhere else (E15, K1, K6)."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import User
from django.core import serializers
from django.db import connection
from django.utils import timezone

from brands.configuration_file import ConfigurationRefused, apply_configuration, read_configuration
from brands.models import AuthorizationServer, Brand
from conversations.api import fast_token_read
from conversations.models import AccessToken, AuditEvent
from conversations.outbox import worker
from infrastructure.columns import encrypted_columns, reencrypt, stored_in
from infrastructure.crypto import DecryptionError
from tests.admin_pages import AdminBrowser, address
from tests.cast import ACME_SECRET, CHAT, Bot, Browser, code_on, heading_of, make_bot
from tests.fake_authorization_server import PLANTED_REFRESH_TOKEN, FakeAuthorizationServer
from tests.stored import everything_stored
from tests.webhook_receiver import Receiver

pytestmark = pytest.mark.django_db

INSTANCE = "https://planted-instance.acme.example"
MEMBERS = {"instance_url": INSTANCE, "patient": "planted-patient-7", "athlete": {"id": 7, "firstname": "Ad\u00e9"}}


@pytest.fixture
def login(acme_server: AuthorizationServer, acme_login: FakeAuthorizationServer) -> FakeAuthorizationServer:
    """Return a server that sends these members and more, of which Acme has declared four."""
    declare("instance_url", "patient", "athlete", "encounter")
    acme_login.further_members = MEMBERS | {"user_id": "planted-undeclared"}
    return acme_login


@pytest.fixture
def ready(acme_bot: Bot, ada: Browser, login: FakeAuthorizationServer) -> Bot:
    """Return acme-bot where Ada has signed in and her code was posted."""
    authorize(acme_bot, ada, login)
    return acme_bot


def declare(*names: str) -> None:
    AuthorizationServer.objects.update(token_response_members=list(names))


def authorize(bot: Bot, ada: Browser, login: FakeAuthorizationServer) -> dict[str, Any]:
    challenge = bot.challenge()
    assert bot.complete(code_on(ada.sign_in(challenge["url"], login)))[0] == 200
    return challenge


def members_of(bot: Bot) -> dict[str, Any] | None:
    status, answer = bot.token()
    assert status == 200, answer
    return answer.get("token_response_members")


def planted_in(text: str) -> list[str]:
    return [value for value in (INSTANCE, "planted-patient-7", "Ad\u00e9", "planted-undeclared") if value in text]


def test_a_bot_that_reads_the_token_gets_the_declared_members(ready: Bot) -> None:
    """E15: Salesforce's instance_url and SMART's patient; of the others nothing, and no refresh token."""
    assert members_of(ready) == MEMBERS
    status, answer = ready.in_chat("POST", "/authorize", {})
    assert (status, answer["token_response_members"]) == (200, MEMBERS)
    assert PLANTED_REFRESH_TOKEN not in json.dumps(answer)


@pytest.mark.parametrize("what", ["/token", "/token?authorization_server=orders&min_ttl=60"])
def test_both_ways_of_reading_give_the_same_bytes(
    ready: Bot, what: str, monkeypatch: pytest.MonkeyPatch, django_assert_num_queries: Any
) -> None:
    """G6: and the fast one needs no further query."""
    path = f"/conversations/{CHAT}{what}"
    ready.send("GET", path)  # PostgreSQL plans the read
    with time_machine.travel(timezone.now(), tick=False):
        with django_assert_num_queries(1):
            at_once = ready.send("GET", path)
        monkeypatch.setattr(fast_token_read, "token_by_one_query", lambda *_: None)
        step_by_step = ready.send("GET", path)
    assert (at_once.content, at_once.status_code) == (step_by_step.content, 200)
    assert json.loads(at_once.content)["token_response_members"] == MEMBERS


def test_without_declared_or_sent_members_the_answer_is_as_it_was(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    acme_login.further_members = MEMBERS
    authorize(acme_bot, ada, acme_login)
    assert "token_response_members" not in acme_bot.token()[1]
    declare("encounter")
    authorize(acme_bot, ada, acme_login)
    assert "token_response_members" not in acme_bot.token()[1]
    assert set(AccessToken.objects.values_list("response_members_ciphertext", flat=True)) == {None}


def test_a_large_member_is_left_out_and_an_admin_sees_which(
    acme_bot: Bot, ada: Browser, login: FakeAuthorizationServer, operator: AdminBrowser
) -> None:
    """H8, J9: the sign-in is not failed for it; the name is shown, and no value."""
    login.further_members = MEMBERS | {"athlete": {"bio": "planted" * 1000}}
    authorize(acme_bot, ada, login)
    assert members_of(acme_bot) == {"instance_url": INSTANCE, "patient": "planted-patient-7"}
    page = operator.get(address(AccessToken, "change", AccessToken.objects.get())).content.decode()
    assert '<div class="readonly">athlete</div>' in page
    assert "planted" not in page


def test_numbers_are_passed_on_as_they_came(acme_bot: Bot, ada: Browser, login: FakeAuthorizationServer) -> None:
    """The encoder of our answers takes no number beyond 64 bits: the read would have been a fault of ours."""
    login.further_members = {"athlete": {"id": 2**80, "weight": 61.5}}
    authorize(acme_bot, ada, login)
    assert members_of(acme_bot) == {"athlete": {"id": 2**80, "weight": 61.5}}


def test_an_answer_with_nothing_but_trouble_in_its_members_is_still_a_sign_in(
    acme_bot: Bot, ada: Browser, login: FakeAuthorizationServer
) -> None:
    """E15, H8."""
    body = f'{{"access_token":"x-access-1","token_type":"Bearer","refresh_token":"{PLANTED_REFRESH_TOKEN}",'
    body += f'"patient":"{PLANTED_REFRESH_TOKEN}","athlete":1e999,"instance_url":{"[" * 200 + "]" * 200}}}'
    login.next_token_answer = (200, {"Content-Type": "application/json"}, body.encode())
    authorize(acme_bot, ada, login)
    assert members_of(acme_bot) is None
    assert AccessToken.objects.get().response_members_left_out == "instance_url patient athlete"


def test_a_list_that_was_changed_meanwhile_is_another_configuration(
    acme_bot: Bot, ada: Browser, login: FakeAuthorizationServer
) -> None:
    """C4."""
    url = ada.begin(acme_bot.challenge()["url"])
    declare("user_id")
    page = ada.get(ada.come_back(url, login)["Location"])
    assert heading_of(page) == "That sign-in did not work"
    assert AccessToken.objects.count() == 0


# Nowhere else.


def test_members_stand_in_no_status_webhook_log_audit_row_or_admin_page(
    acme_bot: Bot,
    ada: Browser,
    login: FakeAuthorizationServer,
    acme_hooks: Receiver,
    operator: AdminBrowser,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """H1, J9, G5."""
    caplog.set_level(0)
    challenge = authorize(acme_bot, ada, login)
    answers = [acme_bot.in_chat("GET"), acme_bot.read_challenge(challenge)]
    assert members_of(acme_bot) == MEMBERS
    token = AccessToken.objects.get()
    pages = [operator.get(address(AccessToken, page, token)) for page in ("change", "history")]
    pages.append(operator.get(address(AccessToken, "changelist")))
    answers.append(acme_bot.in_chat("DELETE", "/token"))
    worker.run_once()
    assert planted_in(repr(answers)) == []
    assert acme_hooks.messages
    assert planted_in(repr([message.body for message in acme_hooks.messages])) == []
    assert planted_in(repr(list(AuditEvent.objects.values()))) == []
    assert planted_in("".join(page.content.decode() for page in pages)) == []
    assert planted_in(caplog.text + repr([vars(record) for record in caplog.records])) == []


@pytest.mark.usefixtures("ready")
def test_members_are_stored_as_ciphertext_alone() -> None:
    """K1, K5: neither a cell, a row's name nor a fixture shows them."""
    rows = list(AccessToken.objects.all())
    assert planted_in(everything_stored()) == []
    assert planted_in(repr(rows) + repr([vars(row) for row in rows]) + serializers.serialize("json", rows)) == []


def test_a_key_without_token_read_and_another_brands_bot_get_none(ready: Bot, rival_bot: Bot) -> None:
    """G3."""
    reader = make_bot(Brand.objects.get(slug="acme"), "challenge:create", "challenge:read")
    for bot in (reader, rival_bot):
        status, answer = bot.token()
        assert status in {403, 404}
        assert planted_in(repr(answer)) == []


def test_members_of_a_pending_token_are_read_by_nobody(
    acme_bot: Bot, ada: Browser, login: FakeAuthorizationServer
) -> None:
    """A1."""
    ada.sign_in(acme_bot.challenge()["url"], login)
    status, answer = acme_bot.token()
    assert (status, planted_in(repr(answer))) == (409, [])


# At rest.


@pytest.mark.parametrize("source", ["another chat", "the token's own column"])
def test_members_that_were_moved_by_sql_cannot_be_read_either_way(
    ready: Bot, ada: Browser, login: FakeAuthorizationServer, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """K1, K2: another person's patient is never handed out, nor the token as a member."""
    other = make_bot(Brand.objects.get(slug="acme"), chat="web:other-chat")
    authorize(other, ada, login)
    mine = AccessToken.objects.get(conversation__external_id=CHAT)
    theirs = AccessToken.objects.get(conversation__external_id="web:other-chat")
    moved = {"another chat": theirs.response_members_ciphertext, "the token's own column": mine.ciphertext}[source]
    with connection.cursor() as cursor:
        statement = "UPDATE conversations_accesstoken SET response_members_ciphertext = %s WHERE id = %s"
        cursor.execute(statement, [bytes(moved or b""), mine.pk])
    with pytest.raises(DecryptionError):
        AccessToken.objects.get(pk=mine.pk).reveal_response_members()
    problems = [ready.token()]
    monkeypatch.setattr(fast_token_read, "token_by_one_query", lambda *_: None)
    problems.append(ready.token())
    assert [(status, problem["code"]) for status, problem in problems] == [(500, "stored_value_unreadable")] * 2
    assert planted_in(repr(problems)) == []


def test_members_move_to_the_newest_encryption_key(ready: Bot, settings: Any) -> None:
    """K4."""
    (column,) = [column for column in encrypted_columns() if column.name == "response_members_ciphertext"]
    settings.ENCRYPTION_KEYS = f"third:8l8GIbXrL3uWnxkKcEgT1nKk1jC1s0pNqQv3y0m0c5A=,{settings.ENCRYPTION_KEYS}"
    assert reencrypt(stored_in(column)) == (1, 0)
    assert members_of(ready) == MEMBERS


def replaced(bot: Bot, ada: Browser, login: FakeAuthorizationServer, _: dict[str, Any]) -> None:
    login.further_members = {}
    authorize(bot, ada, login)


def expired(*_: Any) -> None:
    AccessToken.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    worker.run_once()


def revoked_by_an_admin(*_: Any) -> None:
    operator = AdminBrowser(User.objects.create_superuser("operator", password="operator"))
    operator.run(AccessToken, "revoke_tokens", AccessToken.objects.get())


Ending = Callable[[Bot, Browser, FakeAuthorizationServer, dict[str, Any]], Any]
ENDINGS: dict[str, Ending] = {
    "rejected": lambda bot, *_: bot.in_chat("DELETE", "/token?reason=rejected"),
    "signed out": lambda bot, *_: bot.in_chat("DELETE", "/token?reason=signed_out"),
    "closed": lambda bot, *_: bot.in_chat("DELETE"),
    "undone": lambda _bot, ada, _login, challenge: ada.press(f"{challenge['url']}/done", "/undo"),
    "replaced": replaced,
    "expired": expired,
    "revoked by an admin": revoked_by_an_admin,
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_members_are_erased_with_the_token_at_every_ending(
    ending: str, acme_bot: Bot, ada: Browser, login: FakeAuthorizationServer
) -> None:
    """K6."""
    challenge = authorize(acme_bot, ada, login)
    assert AccessToken.objects.get().response_members_ciphertext is not None
    ENDINGS[ending](acme_bot, ada, login, challenge)
    ended = AccessToken.objects.order_by("id")[0]
    assert ended.ended_at is not None
    assert (ended.ciphertext, ended.response_members_ciphertext) == (None, None)


def test_members_of_a_token_that_nobody_confirmed_are_erased_with_it(
    acme_bot: Bot, ada: Browser, login: FakeAuthorizationServer
) -> None:
    """K6, A2."""
    ada.sign_in(acme_bot.challenge()["url"], login)
    for _ in range(5):
        acme_bot.complete("000000")
    ended = AccessToken.objects.get()
    assert (ended.end_reason, ended.response_members_ciphertext) == ("unconfirmed", None)


# How they are declared.


def test_an_admin_declares_them_by_name(acme_server: AuthorizationServer, acme_admin: Any) -> None:
    change, admin = address(AuthorizationServer, "change", acme_server), AdminBrowser(acme_admin)
    for typed, names in (("instance_url, id  patient", ["instance_url", "id", "patient"]), ("", [])):
        assert admin.send_changed(change, token_response_members=typed).status_code == 302
        assert AuthorizationServer.objects.get().token_response_members == names
    refused = admin.send_changed(change, token_response_members="patient refreshToken")
    said = ["refreshToken could hold a secret, so it is never passed on."]
    assert dict(refused.context["adminform"].form.errors) == {"token_response_members": said}
    assert 'value="patient refreshToken"' in refused.content.decode()


def test_a_file_declares_them_by_name(db: None) -> None:
    text = f"""
        [brand]
        slug = "acme"
        name = "Acme"
        [[authorization_servers]]
        key = "orders"
        client_id = "acme-client"
        client_secret = "{ACME_SECRET}"
        authorization_endpoint = "https://login.acme.example/authorize"
        token_endpoint = "https://login.acme.example/token"
        token_response_members = """
    apply_configuration(read_configuration(f'{text} ["instance_url"]'))
    assert AuthorizationServer.objects.get().token_response_members == ["instance_url"]
    with pytest.raises(ConfigurationRefused) as refused:
        apply_configuration(read_configuration(f'{text} ["refresh_token"]'))
    where = "authorization_servers.orders.token_response_members"
    assert refused.value.problems == [f"{where}: refresh_token could hold a secret, so it is never passed on."]
