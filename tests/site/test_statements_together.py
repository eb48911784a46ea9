"""Statements that travel together: their errors, transactions, savepoints, and a wire that is cut between them."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import IntegrityError, OperationalError, connection, transaction
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
    began = wire.trips
    with transaction.atomic():
        pass
    with pytest.raises(ValueError, match="no"), transaction.atomic():
        CHATS.insert_later(chat(brand, "one"))
        raise ValueError("no")
    assert wire.trips == began
    assert stored() == set()


def test_a_refused_insert_is_seen_where_the_transaction_ends(brand: Brand) -> None:
    """And nothing of the transaction is stored, nor is anything done that waited for its commit."""
    done: list[str] = []
    with pytest.raises(IntegrityError) as refused, transaction.atomic():
        transaction.on_commit(lambda: done.append("committed"))
        CHATS.insert_later(chat(brand, "one"))
        CHATS.insert_later(chat(brand, "the first"))
        CHATS.insert_later(chat(brand, "two"))
    assert "one_conversation_per_brand_and_id" in str(refused.value)
    assert (stored(), done) == (set(), [])
    with transaction.atomic():  # the connection goes on
        CHATS.insert_later(chat(brand, "two"))
    assert stored() == {"two"}


def test_a_refused_insert_is_seen_by_the_next_statement(brand: Brand) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        CHATS.insert_later(chat(brand, "the first"))
        with pytest.raises(IntegrityError):
            ONE.rows([])
        CHATS.insert_later(chat(brand, "two"))
        raise IntegrityError
    assert stored() == set()


def test_a_savepoint_takes_back_what_waits_in_it_and_no_more(brand: Brand) -> None:
    with transaction.atomic():
        CHATS.insert_later(chat(brand, "one"))
        with pytest.raises(ValueError, match="no"), transaction.atomic():
            CHATS.insert_later(chat(brand, "two"))
            raise ValueError("no")
        with pytest.raises(IntegrityError), transaction.atomic():
            CHATS.insert_later(chat(brand, "the first"))
        CHATS.insert_later(chat(brand, "three"))
    assert stored() == {"one", "three"}


def test_a_query_sees_what_waited(brand: Brand) -> None:
    with transaction.atomic():
        CHATS.insert_later(chat(brand, "one"))
        assert stored() == {"one"}


@pytest.mark.parametrize("way", ["many", "server-side cursor", "copy"])
def test_what_cannot_travel_with_others_is_in_the_transaction_all_the_same(brand: Brand, way: str) -> None:
    """The driver is in its autocommit mode, in which it would store each of these on its own."""
    with pytest.raises(ValueError, match="no"), transaction.atomic():
        CHATS.insert_later(chat(brand, "one"))
        if way == "many":
            with connection.cursor() as cursor:
                cursor.executemany("UPDATE conversations_conversation SET external_id = external_id || %s", [["x"]])
        elif way == "copy":
            with connection.cursor() as cursor:
                cursor.copy_expert("COPY (SELECT 1) TO STDOUT", _Nowhere())
        else:
            assert len(list(Conversation.objects.iterator())) == 2
        status = connection.connection.get_transaction_status()
        assert status == extensions.TRANSACTION_STATUS_INTRANS
        raise ValueError("no")
    assert list(Conversation.objects.values_list("external_id", flat=True)) == ["the first"]


class _Nowhere:
    def write(self, _: Any) -> None:
        """Drop it."""


def test_a_wire_that_is_cut_before_the_commit_stores_nothing(wire: Wire, brand: Brand) -> None:
    wire.cut_at = b"COMMIT"
    with pytest.raises(OperationalError), transaction.atomic():
        ONE.rows([])
        CHATS.insert_later(chat(brand, "one"))
    assert stored() == set()


def test_a_commit_without_an_answer_is_an_error(wire: Wire, brand: Brand) -> None:
    """Even though it is stored: nobody may be told that it is, before the answer is there."""
    wire.cut_at, wire.cut_after = b"COMMIT", True
    with pytest.raises(OperationalError), transaction.atomic():
        CHATS.insert_later(chat(brand, "one"))


def test_a_pooler_that_is_met_at_the_commit_is_met_once(brand: Brand) -> None:
    with connection.cursor() as cursor:
        cursor.execute("DEALLOCATE ALL")  # what another server connection looks like
    with pytest.raises(OperationalError), transaction.atomic():
        CHATS.insert_later(chat(brand, "one"))
    with transaction.atomic():
        CHATS.insert_later(chat(brand, "two"))
    assert stored() == {"two"}


def test_what_is_logged_is_the_statement_alone(brand: Brand) -> None:
    with CaptureQueriesContext(connection) as queries, transaction.atomic():
        CHATS.insert_later(chat(brand, "one"))
    assert [query["sql"].split()[0] for query in queries] == ["BEGIN", "EXECUTE", "COMMIT"]
