"""What a process with a wrong clock has written: a moment in the future stops nothing once the clock is right again."""

from datetime import datetime, timedelta

import pytest
import time_machine
from django.utils import timezone

from brands.models import AuthorizationServer, BotKey
from conversations.flow import read_counts, unusual_rates
from conversations.models import AuditEvent, AuthorizationRequest, Revocation, TokenReadCount
from conversations.outbox import worker
from infrastructure.crypto import key_id_of, key_ring
from infrastructure.leases import LEASE
from tests.cast import Bot, Browser, code_on, heading_of
from tests.fake_authorization_server import FakeAuthorizationServer
from tests.webhook_receiver import Receiver

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)


def use_old_key(bot_key: BotKey, key: str) -> None:
    """Let the key's digest be of the oldest encryption key."""
    digest = key_ring().digests("bot-key", bot_key.brand.uuid.bytes, key)[-1]
    BotKey.objects.filter(pk=bot_key.pk).update(digest=digest)


@pytest.mark.parametrize("last_used", [None, -2 * HOUR, timedelta(0), HOUR, 1000 * HOUR])
@pytest.mark.parametrize("call", ["", "/token"])
def test_a_bot_keys_digest_moves_at_any_use(acme_bot: Bot, last_used: timedelta | None, call: str) -> None:
    """G4, K4. The bug: one last used within the minute, or in the future, kept the old encryption key in the ring."""
    now = timezone.now()
    row = BotKey.objects.get()
    use_old_key(row, acme_bot.key)
    BotKey.objects.update(last_used_at=None if last_used is None else now + last_used)
    with time_machine.travel(now, tick=False):
        assert acme_bot.in_chat("GET", call)[0] == 404
    row.refresh_from_db()
    assert key_id_of(bytes(row.digest)) == key_ring().newest_id
    assert row.last_used_at == now
    assert acme_bot.in_chat("GET")[0] == 404


def test_a_token_read_moves_the_digest_too(acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer) -> None:
    """K4: the read in one query goes another way than every other call."""
    acme_bot.complete(code_on(ada.sign_in(acme_bot.challenge()["url"], acme_login)))
    use_old_key(BotKey.objects.get(), acme_bot.key)
    BotKey.objects.update(last_used_at=timezone.now() + HOUR)
    assert acme_bot.token()[0] == 200
    assert key_id_of(bytes(BotKey.objects.get().digest)) == key_ring().newest_id


@pytest.mark.parametrize("ahead", [2 * LEASE + timedelta(seconds=2), HOUR, 24 * HOUR])
def test_a_lease_of_a_worker_whose_clock_was_ahead_binds_nobody(
    acme_bot: Bot, acme_server: AuthorizationServer, acme_hooks: Receiver, ahead: timedelta
) -> None:
    """The bug: the row, and one of its endpoint's two places, were held until that clock's minute was over."""
    acme_bot.challenge()
    acme_hooks.endpoint.deliveries.update(lease_until=timezone.now() + ahead)
    worker.run_once()
    assert acme_hooks.types == ["challenge.issued"]


def test_a_lease_that_may_be_anothers_is_left_alone(
    acme_bot: Bot, acme_server: AuthorizationServer, acme_hooks: Receiver
) -> None:
    acme_bot.challenge()
    acme_hooks.endpoint.deliveries.update(lease_until=timezone.now() + LEASE)
    worker.run_once()
    assert acme_hooks.types == []


def test_a_revocation_of_the_future_is_not_waited_for(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """K6. The bug: the token lived on at the brand, and its ciphertext here, for as long as that clock was ahead."""
    AuthorizationServer.objects.update(revocation_endpoint=f"{acme_login.issuer}/revoke")
    acme_bot.complete(code_on(ada.sign_in(acme_bot.challenge()["url"], acme_login)))
    acme_bot.in_chat("DELETE", "/token")
    later = timezone.now() + HOUR
    Revocation.objects.update(created_at=later, next_attempt_at=later)
    worker.run_once()
    assert [seen.parameters["token"] for seen in acme_login.revocation_requests] == acme_login.issued_access_tokens


def test_challenges_of_the_future_do_not_use_up_a_conversations_own(
    acme_bot: Bot, acme_server: AuthorizationServer
) -> None:
    """The bug: five that a process with a wrong clock had issued kept the chat without a link for an hour."""
    with time_machine.travel(timezone.now() + HOUR, tick=False):
        for _ in range(5):
            acme_bot.challenge(replace=True)
    assert acme_bot.challenge(replace=True)["status"] == "issued"


@pytest.mark.parametrize("ahead", [timedelta(minutes=1), HOUR])
def test_a_claim_of_the_future_counts_as_failed(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, ahead: timedelta
) -> None:
    """B11. The bug: the page went on waiting for an exchange that had come to nothing."""
    challenge = acme_bot.challenge()
    ada.begin(challenge["url"])
    AuthorizationRequest.objects.update(claimed_at=timezone.now() + ahead)
    page = ada.get(f"{challenge['url']}/done")
    assert heading_of(page) == "Acme is not answering right now"


def read(bot_key: BotKey, at: datetime) -> None:
    read_counts.count_read(bot_key.pk, "", at)


def test_reads_are_added_up_where_the_clock_was_put_back(acme_bot: Bot) -> None:
    """The bug: nothing was added up until the clock had come to where it had been."""
    key, now = BotKey.objects.get(), timezone.now()
    read(key, now + HOUR)
    read(key, now)
    assert sum(TokenReadCount.objects.values_list("times", flat=True)) == 2


def test_a_warning_of_the_future_does_not_silence_the_next(acme_bot: Bot, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bug: a key that read far too much raised nothing until that moment had come."""
    monkeypatch.setattr(unusual_rates, "UNUSUAL_COUNT", 0)
    BotKey.objects.update(reads_unusual_at=timezone.now() + 2 * HOUR)
    read(BotKey.objects.get(), timezone.now())
    read_counts.flush()
    read(BotKey.objects.get(), timezone.now())
    read_counts.flush()
    assert AuditEvent.objects.filter(kind="token.reads_unusual").count() == 1
