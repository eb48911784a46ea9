"""Prepared statements on PostgreSQL's connections in transactions, and behind a pooler."""

import logging
from typing import Any

import pytest
from django.db import DatabaseError, OperationalError, ProgrammingError, connection, transaction

from infrastructure.prepared import PreparedStatement
from tests.connections import kill_the_kept_connection

pytestmark = pytest.mark.django_db(transaction=True)


def asked(statement: PreparedStatement, number: int) -> int:
    ((answer,),) = statement.rows([number])
    return int(answer)


def prepared_names() -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT name FROM pg_prepared_statements WHERE statement LIKE '%%+ 1000%%' ORDER BY name")
        return [name for (name,) in cursor.fetchall()]


@pytest.fixture
def statement() -> PreparedStatement:
    connection.close()
    return PreparedStatement("SELECT %s::int + 1000")


def test_a_statement_is_prepared_once_for_each_connection(statement: PreparedStatement) -> None:
    assert [asked(statement, number) for number in (1, 2)] == [1001, 1002]
    first = prepared_names()
    assert len(first) == 1
    connection.close()
    assert prepared_names() == []
    with transaction.atomic():
        assert asked(statement, 3) == 1003
    assert prepared_names() == first


def test_a_connection_keeps_its_cursor_for_the_next_statement(statement: PreparedStatement) -> None:
    """Also after one that failed; a new connection has a new one."""
    asked(statement, 1)
    kept = connection.connection.kept_cursor
    with pytest.raises(DatabaseError):
        PreparedStatement("SELECT %s::int / 0").rows([1])
    assert (asked(statement, 2), connection.connection.kept_cursor is kept, kept.closed) == (1002, True, False)
    kill_the_kept_connection()
    assert asked(statement, 3) == 1003
    assert connection.connection.kept_cursor is not kept


def test_a_transaction_that_meets_a_pooler_is_the_last_one_that_fails(
    statement: PreparedStatement, caplog: pytest.LogCaptureFixture
) -> None:
    """What it did so far is undone with it: a second time on its own would be half of a transaction."""
    asked(statement, 1)
    with connection.cursor() as cursor:
        cursor.execute("DEALLOCATE ALL")  # what another server connection looks like
    with pytest.raises(DatabaseError), transaction.atomic():
        asked(statement, 1)
    with transaction.atomic():
        assert [asked(statement, 2), asked(PreparedStatement("SELECT %s::int + 1000 + 1"), 2)] == [1002, 1003]
    assert prepared_names() == []
    assert [record.levelno for record in caplog.records if "pooler" in record.message] == [logging.WARNING]


def test_two_statements_of_one_text_are_prepared_once(statement: PreparedStatement) -> None:
    """The bug: the second one was told that its name was taken, and took that for a pooler."""
    assert [asked(statement, 1), asked(PreparedStatement(statement.sql), 2)] == [1001, 1002]
    assert len(prepared_names()) == 1


def test_constants_are_written_into_what_is_prepared_each_in_its_place() -> None:
    """A plan for any value whatever could not use an index of some rows alone; and a name belongs to one text."""
    sql = "SELECT %s::int * 100 + %s::int * 10 + %s::int, %s::text"
    statements = [PreparedStatement(sql, {1: digit, 3: "50 % of it's"}) for digit in (5, 6)]
    assert [statement.rows([7, 9]) for statement in statements] == [[(759, "50 % of it's")], [(769, "50 % of it's")]]


def test_a_pooler_that_was_named_beforehand_is_never_sent_a_prepared_statement(
    statement: PreparedStatement, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connection.settings_dict, "DISABLE_SERVER_SIDE_CURSORS", "true")
    assert asked(statement, 1) == 1001
    assert prepared_names() == []


def test_a_column_that_changed_costs_a_process_one_transaction_and_no_restart() -> None:
    """As a migration beside a running process: "cached plan must not change result type".

    The bug: every statement met it on its own, and a sign-in whose code was spent could fail three times over.
    """
    statement, other = PreparedStatement("SELECT wide FROM a_table"), PreparedStatement("SELECT wide, 1 FROM a_table")
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE a_table AS SELECT %s::varchar(16) AS wide", ["value"])
    try:
        assert (statement.rows([]), other.rows([])) == ([("value",)], [("value", 1)])
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE a_table ALTER COLUMN wide TYPE varchar(17)")
        with pytest.raises(DatabaseError, match="cached plan"), transaction.atomic():
            statement.rows([])
        with transaction.atomic():
            assert (statement.rows([]), other.rows([])) == ([("value",)], [("value", 1)])
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP TABLE a_table")


def test_a_broken_transaction_runs_nothing_more() -> None:
    """The driver's own cursor is used past Django's, and Django's refusal goes with it."""
    with transaction.atomic():
        transaction.set_rollback(True)
        with pytest.raises(transaction.TransactionManagementError):
            PreparedStatement("SELECT 1").rows([])


def test_what_runs_too_long_is_no_dead_connection(statement: PreparedStatement) -> None:
    """The bug: a healthy connection was closed, and what had timed out was run a second time."""
    statement.rows([1])
    kept = connection.connection
    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = 100")
    with pytest.raises(OperationalError, match="statement timeout"):
        PreparedStatement("SELECT pg_sleep(%s)").rows([5])
    assert connection.connection is kept
    connection.close()


def test_a_kept_connection_that_died_before_a_write_is_noticed_before_it(statement: PreparedStatement) -> None:
    kill_the_kept_connection()
    kept: Any = connection
    kept.health_check_enabled, kept.health_check_done = True, False  # as at the beginning of a request
    assert statement.run([1], lambda cursor: cursor.fetchone()) == (1001,)


def test_a_percent_sign_in_the_text_is_no_place(statement: PreparedStatement) -> None:
    assert PreparedStatement("SELECT 'x%%sy' || %s::text").rows(["a"]) == [("x%sya",)]


def test_a_statement_that_is_wrong_has_no_other_one_prepared_anew(statement: PreparedStatement) -> None:
    """The bug: each of its calls did, and every name stayed on its connection."""
    asked(statement, 1)
    before = prepared_names()
    wrong = PreparedStatement("SELECT no_such_function(%s)")
    for _ in range(3):
        with pytest.raises(ProgrammingError, match="does not exist"):
            wrong.rows([1])
    assert asked(statement, 2) == 1002
    assert prepared_names() == before
