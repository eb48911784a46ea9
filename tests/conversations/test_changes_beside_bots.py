"""What an admin or the operator saves while a bot writes: neither waits for the other, so there is no deadlock."""

from collections.abc import Callable

import pytest
from django.db import connection, transaction
from django.utils import timezone

from brands.changes import save_audited
from brands.models import AuthorizationServer, Brand, WebhookEndpoint
from brands.webhooks import rotate_secret
from conversations.flow.events import publish_test
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
