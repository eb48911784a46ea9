"""Counting the audit log while others write to it: PostgreSQL shows rows in another order than it numbers them."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from threading import Event
from typing import Final
from uuid import uuid4

import pytest
from django.db import connections, transaction

from brands.models import Brand
from conversations.flow.events import ConversationEvent
from conversations.models import AuditEvent, Conversation, CountedAuditLog, HourlyCount
from conversations.statistics import count_events
from infrastructure.audit import record_event

pytestmark = pytest.mark.django_db(transaction=True)

NOW: Final = datetime(2030, 1, 1, 12, tzinfo=UTC)


def issue(brand: Brand) -> None:
    Conversation.objects.create(brand=brand, external_id=uuid4().hex)
    kind = ConversationEvent.CHALLENGE_CHANGED
    record_event(kind, brand_uuid=brand.uuid, actor="system", now=NOW, outcome="issued", challenge_uuid=uuid4())


@contextmanager
def uncommitted(brand: Brand) -> Iterator[Callable[[], None]]:
    """Write a row on another connection; yield what commits it."""
    written, may_commit = Event(), Event()

    def write() -> None:
        try:
            with transaction.atomic():
                issue(brand)
                written.set()
                assert may_commit.wait(30)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(max_workers=1) as thread:
        running = thread.submit(write)
        assert written.wait(30)

        def commit() -> None:
            may_commit.set()
            running.result(30)

        try:
            yield commit
        finally:
            may_commit.set()


def issued() -> int:
    return sum(HourlyCount.objects.values_list("times", flat=True))


def test_a_row_that_appears_after_a_higher_one_is_counted(acme: Brand) -> None:
    """The bug of a cursor that follows the highest number: such a row was passed and never counted."""
    with uncommitted(acme) as commit:
        issue(acme)
        for _ in range(3):
            count_events(NOW)
        assert issued() == 0
        commit()
    count_events(NOW)
    assert issued() == 2


def test_rows_are_counted_though_somebody_is_always_writing(acme: Brand) -> None:
    """The transaction that runs now began after those rows: it can bring none below them."""
    with uncommitted(acme) as commit_first:
        issue(acme)
        count_events(NOW)
        with uncommitted(acme):
            commit_first()
            count_events(NOW)
            assert issued() == 2


def test_rows_are_counted_after_a_backup_was_restored_on_another_server(acme: Brand) -> None:
    """Its transactions have lower numbers than those of the server that the backup was made on."""
    issue(acme)
    newest = AuditEvent.objects.latest("pk").pk
    CountedAuditLog.objects.create(pk=1, mark_id=newest, mark_transaction=10**15)
    with uncommitted(acme) as commit:
        count_events(NOW)
        assert issued() == 1
        issue(acme)
        count_events(NOW)
        assert issued() == 1
        commit()
    count_events(NOW)
    assert issued() == 3
