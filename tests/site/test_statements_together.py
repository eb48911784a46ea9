"""Statements that travel together: their errors, transactions, savepoints, and a wire that is cut between them."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from io import BytesIO, StringIO
from typing import Any, NoReturn

import pytest
from django.db import IntegrityError, InternalError, OperationalError, ProgrammingError, connection, transaction
from django.test.utils import CaptureQueriesContext
from psycopg2 import extensions

from brands.models import Brand
from conversations.models import Conversation
from infrastructure.compiled import CompiledInsert
from infrastructure.prepared import PreparedStatement
from tests.wire import Wire, wired

pytestmark = pytest.mark.django_db(transaction=True)

CHATS = CompiledInsert(Conversation)
ONE = PreparedStatement("SELECT 1")


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    with wired(monkeypatch) as found:
        yield found


@pytest.fixture
def brand() -> Brand:
    """Acme, on a connection on which both statements are prepared."""
    brand = Brand.objects.create(name="Acme", slug="acme")
    with transaction.atomic():
        CHATS.insert(chat(brand, "the first"))
        ONE.rows([])
    return brand


def chat(brand: Brand, external_id: str) -> Conversation:
    return Conversation(brand=brand, external_id=external_id)


def stored() -> set[str]:
    return set(Conversation.objects.values_list("external_id", flat=True)) - {"the first"}


def insert_all(*names: str, then: Callable[[], Any] = list) -> None:
    """Insert chats in one transaction, later; and do something at its end."""
    brand = Brand.objects.get()
    with transaction.atomic():
        for name in names:
            CHATS.insert_later(chat(brand, name))
        then()


def fail() -> NoReturn:
    raise ValueError("no")


def test_a_transaction_of_inserts_is_one_round_trip(wire: Wire, brand: Brand) -> None:
    began = wire.trips
    with transaction.atomic():
        CHATS.insert_later(chat(brand, "one"))
        CHATS.insert_later(chat(brand, "two"))
    assert wire.trips - began == 1
    assert stored() == {"one", "two"}


def test_begin_travels_with_the_first_statement(wire: Wire, brand: Brand) -> None:
    began = wire.trips
    with transaction.atomic():
        ONE.rows([])
    assert [query.split()[0] for query in wire.queries[began:]] == [b"BEGIN;", b"COMMIT\0"]


def test_a_transaction_that_says_nothing_sends_nothing(wire: Wire, brand: Brand) -> None:
    with pytest.raises(ValueError, match="no"):
        insert_all("one", then=fail)
    assert not any(b"BEGIN" in query for query in wire.queries[-1:])
    began = wire.trips
    with transaction.atomic():
        pass
    assert wire.trips == began
    assert stored() == set()


def test_a_refused_insert_is_seen_where_the_transaction_ends(brand: Brand) -> None:
    """And nothing of the transaction is stored, nor is anything done that waited for its commit."""
    done: list[str] = []
    with pytest.raises(IntegrityError, match="one_session_per_number"):
        insert_all("one", "the first", "two", then=lambda: transaction.on_commit(lambda: done.append("committed")))
    assert (stored(), done) == (set(), [])
    insert_all("two")  # the connection goes on
    assert stored() == {"two"}


def test_a_refused_insert_is_seen_by_the_next_statement(brand: Brand) -> None:
    """Who catches the error there can do nothing more in this transaction, as after any error of a statement."""

    def ask() -> None:
        with pytest.raises(IntegrityError):
            ONE.rows([])
        ONE.rows([])

    with pytest.raises(InternalError, match="aborted"):
        insert_all("the first", then=ask)
    assert stored() == set()


def test_a_savepoint_takes_back_what_waits_in_it_and_no_more(brand: Brand) -> None:
    with transaction.atomic():
        CHATS.insert_later(chat(brand, "one"))
        with pytest.raises(ValueError, match="no"):
            insert_all("two", then=fail)
        with pytest.raises(IntegrityError):
            insert_all("the first")
        CHATS.insert_later(chat(brand, "three"))
    assert stored() == {"one", "three"}


def test_a_query_sees_what_waited(brand: Brand) -> None:
    with transaction.atomic():
        CHATS.insert_later(chat(brand, "one"))
        assert stored() == {"one"}


def many() -> None:
    with connection.cursor() as cursor:
        cursor.executemany("UPDATE conversations_conversation SET external_id = external_id || %s", [["x"]])


def copied() -> None:
    with connection.cursor() as cursor:
        cursor.copy_expert("COPY (SELECT 1) TO STDOUT", BytesIO())


def in_parts() -> None:
    """Read through a server-side cursor."""
    assert len(list(Conversation.objects.iterator())) == 2


@pytest.mark.parametrize("ask", [many, copied, in_parts])
def test_what_cannot_travel_with_others_is_in_the_transaction_all_the_same(
    brand: Brand, ask: Callable[[], None]
) -> None:
    """The driver is in its autocommit mode, in which it would store each of these on its own."""

    def ask_and_fail() -> None:
        ask()
        assert connection.connection.get_transaction_status() == extensions.TRANSACTION_STATUS_INTRANS
        fail()

    with pytest.raises(ValueError, match="no"):
        insert_all("one", then=ask_and_fail)
    assert list(Conversation.objects.values_list("external_id", flat=True)) == ["the first"]


def test_a_wire_that_is_cut_before_the_commit_stores_nothing(wire: Wire, brand: Brand) -> None:
    wire.cut_at = b"COMMIT"
    with pytest.raises(OperationalError):
        insert_all("one")
    assert stored() == set()


def test_a_commit_without_an_answer_is_an_error(wire: Wire, brand: Brand) -> None:
    """Even though it is stored: nobody may be told that it is, before the answer is there."""
    wire.cut_at, wire.cut_after = b"COMMIT", True
    with pytest.raises(OperationalError):
        insert_all("one")


def test_a_pooler_that_is_met_at_the_commit_is_met_once(brand: Brand) -> None:
    with connection.cursor() as cursor:
        cursor.execute("DEALLOCATE ALL")  # what another server connection looks like
    with pytest.raises(OperationalError):
        insert_all("one")
    insert_all("two")
    assert stored() == {"two"}


def test_what_is_logged_is_the_statement_alone(brand: Brand) -> None:
    with CaptureQueriesContext(connection) as queries, transaction.atomic():
        CHATS.insert_later(chat(brand, "one"))
    assert [query["sql"].split()[0] for query in queries] == ["BEGIN", "EXECUTE", "COMMIT"]


def swallow(error: type[Exception], act: Callable[[], Any]) -> None:
    with suppress(error), transaction.atomic():
        act()


def run(sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)


def test_a_commit_of_a_failed_transaction_is_an_error(brand: Brand) -> None:
    """The bug: a savepoint's block swallowed the error of a row that travelled with it, and COMMIT stored nothing."""
    Conversation.objects.create(brand=brand, external_id="web:1")
    with pytest.raises(InternalError, match="failed"):
        insert_all("web:1", then=lambda: swallow(IntegrityError, lambda: ONE.rows([])))
    assert stored() == {"web:1"}


def test_what_waits_outlives_a_statement_that_the_driver_refuses(brand: Brand) -> None:
    """The bug: it was dropped with a value that cannot be sent."""

    def refuse() -> None:
        with pytest.raises(ValueError, match="NUL"), connection.cursor() as cursor:
            cursor.execute("SELECT %s", ["\x00"])

    insert_all("web:1", then=refuse)
    assert stored() == {"web:1"}


@transaction.atomic
def begin_with_nonsense(brand: Brand) -> None:
    with suppress(ProgrammingError):
        run("SELEKT 1")
    CHATS.insert(chat(brand, "web:1"))


def test_a_transaction_does_not_go_on_after_a_first_message_that_cannot_be_parsed(brand: Brand) -> None:
    """The bug: BEGIN was refused with it, so the rest became a transaction of its own."""
    with pytest.raises(InternalError, match="failed"):
        begin_with_nonsense(brand)
    assert stored() == set()


@transaction.atomic
def copy_and_fail() -> None:
    with connection.cursor() as cursor:
        cursor.copy_from(StringIO("one\n"), "copied")
    fail()


def test_rows_copied_in_are_part_of_the_transaction(brand: Brand) -> None:
    """The bug: BEGIN had not been sent."""
    run("CREATE TEMPORARY TABLE copied (name text)")
    with pytest.raises(ValueError, match="no"):
        copy_and_fail()
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM copied")
        assert cursor.fetchone() == (0,)


def test_autocommit_is_not_set_inside_a_transaction(brand: Brand) -> None:
    """The bug: what was written later became part of the open transaction, and went with it."""
    with transaction.atomic():
        CHATS.insert(chat(brand, "web:1"))
        with pytest.raises(ProgrammingError, match="autocommit"):
            connection._set_autocommit(True)  # type: ignore[attr-defined]


def test_an_error_quotes_no_other_statement(brand: Brand) -> None:
    """H1. The bug: PostgreSQL quotes the line of an error, and all statements were one line."""
    with pytest.raises(ProgrammingError) as refused:
        insert_all("planted-value", then=lambda: run("SELECT nothing_of_this_name"))
    assert "nothing_of_this_name" in str(refused.value)
    assert "planted-value" not in str(refused.value)
