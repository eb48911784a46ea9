"""What an audit event says of a change: its moment, how it came out, and whose challenge and token it was."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
import time_machine

from conversations.flow.retention import sweep
from conversations.models import AccessToken, AuditEvent
from tests.cast import Bot, Browser, code_on
from tests.fake_authorization_server import FakeAuthorizationServer

pytestmark = pytest.mark.django_db

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


def test_what_the_clock_ended_is_audited_with_the_moment_of_the_sweep_its_challenge_and_its_token(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    with time_machine.travel(NOON, tick=False):
        signed_in = acme_bot.challenge()
        acme_bot.complete(code_on(ada.sign_in(signed_in["url"], acme_login)))
        unanswered = acme_bot.challenge()
    swept_at = NOON + timedelta(days=1)
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
