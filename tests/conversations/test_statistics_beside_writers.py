"""Counting the audit log while others write to it: PostgreSQL shows rows in another order than it numbers them."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import uuid4

import pytest
from django.db import connections, transaction

from brands.models import Brand
from conversations.models import AuditEvent, Conversation, CountedAuditLog, HourlyCount
from conversations.statistics import count_events

pytestmark = pytest.mark.django_db(transaction=True)

NOW: Final = datetime(2030, 1, 1, 12, tzinfo=UTC)


class Writer:
    """A transaction on a connection of its own."""

    def __init__(self, brand: Brand, thread: ThreadPoolExecutor) -> None:
        self._brand, self._thread = brand, thread

    def begin(self) -> "Writer":
        """Begin as the flow does: with a lock or a row, and so with a number."""
        self._do(lambda: transaction.set_autocommit(False))
        self._do(lambda: Conversation.objects.create(brand=self._brand, external_id=uuid4().hex))
        return self

    def write(self) -> "Writer":
        self._do(lambda: issue(self._brand))
        return self

    def commit(self) -> None:
        self._do(transaction.commit)

    def end(self) -> None:
        self._do(transaction.rollback)
        self._do(connections.close_all)

    def _do(self, what: Callable[[], Any]) -> None:
        self._thread.submit(what).result(30)


@contextmanager
def writer(brand: Brand) -> Iterator[Writer]:
    with ThreadPoolExecutor(max_workers=1) as thread:
        one = Writer(brand, thread).begin()
        try:
            yield one
        finally:
            one.end()


def issue(brand: Brand) -> None:
    values = {"kind": "challenge.changed", "outcome": "issued", "actor": "system", "at": NOW}
    AuditEvent.objects.create(brand_uuid=brand.uuid, challenge_uuid=uuid4(), **values)


def issued() -> int:
    return sum(HourlyCount.objects.values_list("times", flat=True))


def count_until(is_done: Callable[[], bool]) -> None:
    """Count until something is true; other tests on the same server have transactions, too."""
    until = time.monotonic() + 60
    while not is_done():
        assert time.monotonic() < until
        count_events(NOW)
        time.sleep(0.01)


def test_a_row_that_appears_after_a_higher_one_is_counted(acme: Brand) -> None:
    """The bug of a cursor that follows the highest number: such a row was passed and never counted."""
    with writer(acme) as late:
        late.write()
        issue(acme)
        for _ in range(3):
            count_events(NOW)
        assert issued() == 0
        late.commit()
    count_until(lambda: issued() == 2)


def test_a_row_of_a_transaction_that_began_later_and_wrote_first_is_counted(acme: Brand) -> None:
    """The bug: such a transaction is above the end of a snapshot, as if it were not running."""
    count_events(NOW)
    with writer(acme) as early, writer(acme) as late:
        late.write()
        early.write().commit()
        for _ in range(3):
            count_events(NOW)
        assert issued() == 0
        late.commit()
    count_until(lambda: issued() == 2)


def test_rows_are_counted_though_somebody_is_always_writing(acme: Brand) -> None:
    """The transaction that runs now began after those rows: it can bring none below them."""
    with writer(acme) as first:
        first.write()
        issue(acme)
        count_events(NOW)
        with writer(acme):
            first.commit()
            count_until(lambda: issued() == 2)


def test_counts_are_as_old_as_the_last_moment_of_which_everything_is_counted(acme: Brand) -> None:
    """Somebody leaves a transaction open: the page says from when its numbers are."""
    count_until(lambda: CountedAuditLog.objects.filter(counted_at=NOW).exists())
    with writer(acme):
        for minutes in (1, 2, 3):
            count_events(NOW + timedelta(minutes=minutes))
        assert CountedAuditLog.objects.get().counted_at == NOW


def test_rows_are_counted_after_a_backup_was_restored_on_another_server(acme: Brand) -> None:
    """Its transactions have lower numbers than those of the server that the backup was made on."""
    issue(acme)
    newest = AuditEvent.objects.latest("pk").pk
    CountedAuditLog.objects.create(pk=1, mark_id=newest, mark_transaction=10**15)
    with writer(acme) as other:
        count_events(NOW)
        assert issued() == 1
        other.write().commit()
    issue(acme)
    count_until(lambda: issued() == 3)
