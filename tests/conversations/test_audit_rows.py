"""What an audit row of a chat names: brand, chat, challenge, token, who did it, and when."""

from datetime import UTC, datetime

import pytest
import time_machine

from brands.models import AuthorizationServer, BotKey, Brand
from conversations.flow.retention import sweep
from conversations.models import AccessToken, AuditEvent, Challenge, Conversation
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
    acme_bot.complete(code_on(ada.sign_in(acme_bot.challenge()["url"], acme_login)))
    acme_bot.in_chat("DELETE", "/token")
    acme_bot.challenge()
    sweep(START)
    by_the_clock = AuditEvent.objects.filter(actor="system").order_by("id")
    assert list(by_the_clock.values_list("kind", "outcome", "at")) == [
        ("token.revocation", "given_up", START),
        ("challenge.changed", "expired", START),
    ]
