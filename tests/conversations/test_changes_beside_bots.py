"""What an admin or the operator saves while a bot writes: neither waits for the other, so there is no deadlock."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone

from brands.audited_changes import save_audited
from brands.models import AuthorizationServer, BotKey, Brand, WebhookEndpoint
from brands.webhooks import rotate_secret
from conversations.flow.events import publish_test
from conversations.flow.retention import sweep
from conversations.models import READ_COUNT_RETENTION, Conversation, TokenReadCount
from infrastructure import prepared
from tests.cast import Bot
from tests.concurrency import at_once
from tests.webhook_receiver import make_endpoint

pytestmark = [
    pytest.mark.django_db(transaction=True),
]


def come_to_the_locks() -> None:
    """Have foreign keys looked up, and with that locked, now; otherwise they are at the commit, one after the other."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")


def without_waiting(change: Callable[[], object]) -> None:
    """Run a change in a transaction of its own, beside the one that is open. Raises where it would wait."""

    def run(_: int) -> None:
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("SET LOCAL lock_timeout = '1s'")
            change()

    at_once(1, run)


def test_a_server_is_saved_while_a_bot_asks_for_a_challenge_of_it(
    acme_bot: Bot, acme_server: AuthorizationServer
) -> None:
    """The bug: `replace` held the endpoint and wanted the server, `apply_config` the other way round: a 500."""
    acme_server.scope = "another"
    with transaction.atomic():
        acme_bot.challenge()
        come_to_the_locks()
        without_waiting(lambda: save_audited(acme_server))
    assert AuthorizationServer.objects.get().scope == "another"


def test_an_empty_chat_that_is_pruned_between_two_statements_is_made_again(
    acme_bot: Bot, acme_server: AuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its row kept the new one out, and was gone when it was to be locked."""
    monkeypatch.setattr(prepared, "_process", prepared._Process(prepares=False))  # so that statements show their text
    row = Conversation.objects.create(brand=acme_server.brand, external_id=acme_bot.chat)

    def prune_before_the_lock(execute: Any, sql: str, *arguments: Any) -> Any:
        if sql.startswith("SELECT") and "FOR UPDATE" in sql:
            at_once(1, lambda _: Conversation.objects.filter(pk=row.pk).delete())
        return execute(sql, *arguments)

    with connection.execute_wrapper(prune_before_the_lock):
        assert acme_bot.challenge()["status"] == "issued"
    assert Conversation.objects.get().pk != row.pk


def test_an_endpoint_is_saved_while_an_event_is_written_for_it(acme: Brand) -> None:
    """The other half of the circle."""
    endpoint, secret = make_endpoint(acme)
    endpoint.label = "production"
    with transaction.atomic():
        publish_test(endpoint, timezone.now())
        come_to_the_locks()
        without_waiting(lambda: save_audited(endpoint))
        without_waiting(lambda: rotate_secret(endpoint, now=timezone.now()))
    saved = WebhookEndpoint.objects.select_related("brand").get()
    assert saved.label == "production"
    assert saved.reveal_secret().reveal() != secret


def test_the_sweep_leaves_what_somebody_is_writing_to_the_next_one(acme_bot: Bot) -> None:
    long_ago = timezone.now() - READ_COUNT_RETENTION - timedelta(days=1)
    count = TokenReadCount.objects.create(bot_key=BotKey.objects.get(), hour=long_ago, times=1)
    with transaction.atomic():
        TokenReadCount.objects.filter(pk=count.pk).update(times=2)
        without_waiting(lambda: sweep(timezone.now()))
    assert TokenReadCount.objects.get().times == 2
    sweep(timezone.now())
    assert not TokenReadCount.objects.exists()
