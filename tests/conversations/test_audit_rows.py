"""What an audit row of a chat names: brand, chat, challenge, token, who did it, and when."""

from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlencode, urlsplit
from uuid import UUID

import pytest
import time_machine

from brands.models import AuthorizationServer, BotKey, Brand
from conversations.flow import sign_in
from conversations.flow.retention import sweep
from conversations.models import AccessToken, AuditEvent, AuthorizationRequest, Challenge, Conversation
from conversations.outbox import worker
from tests.cast import Bot, Browser, code_on
from tests.fake_authorization_server import FakeAuthorizationServer

pytestmark = pytest.mark.django_db

START = datetime(2030, 1, 1, 12, 30, tzinfo=UTC)


def test_the_whole_life_of_a_chat_is_written_down_row_by_row(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """Part 5: from its challenge to its end, and what the brand said to the revocation."""
    AuthorizationServer.objects.update(revocation_endpoint=f"{acme_login.issuer}/revoke")
    with time_machine.travel(START, tick=False):
        acme_bot.complete(code_on(ada.sign_in(acme_bot.challenge()["url"], acme_login)))
        acme_bot.in_chat("DELETE", "/token?reason=signed_out")
        worker.run_once()
        acme_bot.in_chat("DELETE")
    bot = f"bot:{BotKey.objects.get().public_id}"
    challenge, token = Challenge.objects.get().uuid, AccessToken.objects.get().uuid
    written = AuditEvent.objects.exclude(conversation_uuid=None).order_by("id")  # the key has a row of its own
    assert list(written.values_list("kind", "outcome", "actor", "challenge_uuid", "access_token_uuid")) == [
        ("challenge.changed", "issued", bot, challenge, None),
        ("challenge.changed", "started", "consumer", challenge, None),
        ("authorization_request.returned", "code", "consumer", challenge, None),
        ("challenge.changed", "confirmation_needed", "consumer", challenge, None),
        ("challenge.changed", "completed", bot, challenge, None),
        ("token.issued", "completion_code", bot, challenge, token),
        ("token.ended", "signed_out", bot, challenge, token),
        ("token.revocation", "revoked", "system", None, token),
        ("conversation.closed", "", bot, None, None),
    ]
    common = (START, Brand.objects.get().uuid, Conversation.objects.get().uuid)
    assert set(written.values_list("at", "brand_uuid", "conversation_uuid")) == {common}


def test_a_row_has_the_moment_of_the_change_that_it_tells_of(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """Part 5: that of the sweep, and not of each writing."""
    AuthorizationServer.objects.update(revocation_endpoint=f"{acme_login.issuer}/revoke")
    with time_machine.travel(START - timedelta(days=1), tick=False):
        acme_bot.complete(code_on(ada.sign_in(acme_bot.challenge()["url"], acme_login)))
        acme_bot.in_chat("DELETE", "/token")
        acme_bot.challenge()
    sweep(START)
    by_the_clock = AuditEvent.objects.filter(actor="system").order_by("id")
    assert list(by_the_clock.values_list("kind", "outcome", "at")) == [
        ("token.revocation", "given_up", START),
        ("challenge.changed", "expired", START),
    ]


def test_what_the_clock_ended_is_audited_with_the_moment_of_the_sweep_its_challenge_and_its_token(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    with time_machine.travel(START, tick=False):
        signed_in = acme_bot.challenge()
        acme_bot.complete(code_on(ada.sign_in(signed_in["url"], acme_login)))
        unanswered = acme_bot.challenge()
    swept_at = START + timedelta(days=1)
    sweep(swept_at)
    events = AuditEvent.objects.filter(actor="system").order_by("id")
    assert list(events.values_list("kind", "outcome", "at", "challenge_uuid", "access_token_uuid")) == [
        ("challenge.changed", "expired", swept_at, UUID(unanswered["challenge_id"]), None),
        ("token.ended", "expired", swept_at, UUID(signed_in["challenge_id"]), AccessToken.objects.get().uuid),
    ]


def test_why_a_challenge_failed_is_audited_with_it(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    challenge = acme_bot.challenge()
    code = code_on(ada.sign_in(challenge["url"], acme_login))
    for _ in range(5):
        acme_bot.complete(f"{(int(code) + 1) % 1_000_000:06d}")
    changes = AuditEvent.objects.filter(kind="challenge.changed").order_by("id")
    assert list(changes.values_list("outcome", flat=True)) == [
        *("issued", "started", "confirmation_needed"),
        "failed:too_many_codes",
    ]


def refused(authorization_url: str, login: FakeAuthorizationServer, error: str) -> str:
    """Return the address that the server sends a browser back to with an error (RFC 6749 section 4.1.2.1)."""
    state = parse_qs(urlsplit(authorization_url).query)["state"][0]
    return f"{login.redirect_uri}?{urlencode({'state': state, 'error': error, 'iss': login.issuer})}"


def rows_of_requests() -> list[tuple[str, str, str]]:
    rows = AuditEvent.objects.filter(kind__startswith="authorization_request.").order_by("id")
    return list(rows.values_list("kind", "outcome", "actor"))


def test_a_failed_authorization_request_is_audited_with_its_code_and_that_the_consumer_came_back(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """Both endpoints of a server may answer with the same code: `returned` says which it was."""
    url = acme_bot.challenge()["url"]
    acme_login.next_token_answer = (400, {"Content-Type": "application/json"}, b'{"error": "invalid_grant"}')
    ada.sign_in(url, acme_login)
    ada.get(refused(ada.begin(url), acme_login, "server_error"))
    assert rows_of_requests() == [
        ("authorization_request.returned", "code", "consumer"),
        ("authorization_request.failed", "invalid_grant", "system"),
        ("authorization_request.returned", "error", "consumer"),
        ("authorization_request.failed", "server_error", "system"),
    ]
    assert set(AuditEvent.objects.exclude(challenge_uuid=None).values_list("challenge_uuid")) == {
        (Challenge.objects.get().uuid,)
    }


def test_a_denial_came_back_and_is_no_failed_request(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    ada.get(refused(ada.begin(acme_bot.challenge()["url"]), acme_login, "access_denied"))
    assert rows_of_requests() == [("authorization_request.returned", "error", "consumer")]


def test_nobody_came_back_from_a_request_that_could_not_be_pushed(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    AuthorizationServer.objects.update(pushed_authorization_request_endpoint=f"{acme_login.issuer}/nowhere")
    ada.press(acme_bot.challenge()["url"])
    assert [kind for kind, _, _ in rows_of_requests()] == ["authorization_request.failed"]


def test_a_callback_that_has_to_wait_for_a_slot_came_back_once(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its claim is given back: only the one that counts is written down, with its own moment."""
    returned = f"{acme_login.redirect_uri}?{acme_login.authorize(ada.begin(acme_bot.challenge()['url']))}"
    with monkeypatch.context() as busy:
        busy.setattr(sign_in, "MAX_EXCHANGES_PER_SERVER", 0)
        ada.get(returned)
    assert rows_of_requests() == []
    ada.get(returned)
    assert rows_of_requests() == [("authorization_request.returned", "code", "consumer")]
    assert (
        AuditEvent.objects.get(kind="authorization_request.returned").at
        == AuthorizationRequest.objects.get().claimed_at
    )
