"""What passes by itself and what is a fault of ours: one table for pages, bots, probes and the worker."""

import sqlite3
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
from django.db import DatabaseError, InterfaceError, InternalError, OperationalError, ProgrammingError, connection
from django.db.transaction import TransactionManagementError

from infrastructure.database_errors import is_unavailable

PASSES = [
    *("08000", "08001", "08003", "08004", "08006", "08P01", "25006", "25P03", "25P04", "26000", "28000", "28P01"),
    *("3D000", "40001", "40003", "40P01", "42P05", "53000", "53100", "53200", "53300", "53400", "55006", "55P03"),
    *("57000", "57014", "57P01", "57P02", "57P03", "57P04", "57P05", "58000", "58030"),
]
IS_OURS = [
    *("0A000", "21000", "22001", "22003", "22021", "23502", "23503", "23505", "23514", "25001", "25P01", "25P02"),
    *("3F000", "40002", "42501", "42601", "42703", "42883", "42P01", "42P07", "54001", "55000", "P0001", "XX000"),
    "XX001",
]


def of_postgresql(state: str) -> BaseException:
    """Return Django's error before the driver's, as a cursor raises it."""

    class WithState(Exception):
        pgcode = state

    error = DatabaseError("of the database")
    error.__cause__ = WithState()
    return error


@pytest.mark.parametrize("state", PASSES)
def test_what_another_try_may_mend_is_unavailable(state: str) -> None:
    assert is_unavailable(of_postgresql(state))


@pytest.mark.parametrize("state", IS_OURS)
def test_what_no_other_try_mends_is_a_fault_of_ours(state: str) -> None:
    assert not is_unavailable(of_postgresql(state))


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (psycopg2.OperationalError("could not connect"), True),
        (psycopg2.InterfaceError("connection already closed"), True),
        (psycopg2.DatabaseError("error with status PGRES_TUPLES_OK and no message from the libpq"), True),
        (psycopg2.ProgrammingError("can't adapt type"), False),
        (OperationalError("away"), True),
        (InterfaceError("closed"), True),
        (InternalError("no code"), False),
        (ProgrammingError("Cannot open a new connection in an atomic block."), False),
        (TransactionManagementError("go on after an error"), False),
        (RuntimeError("ours"), False),
        (KeyboardInterrupt(), False),
    ],
)
def test_an_error_without_a_code_is_judged_by_its_class(error: BaseException, passes: bool) -> None:
    assert is_unavailable(error) is passes


def test_a_transaction_that_went_on_after_an_error_tells_of_that_error() -> None:
    """Django says only that the transaction is broken; what broke it stands behind."""
    error = TransactionManagementError("An error occurred in the current transaction.")
    error.__cause__ = of_postgresql("25006")
    assert is_unavailable(error)


def test_an_error_that_only_followed_one_of_the_database_is_not_the_databases() -> None:
    error = RuntimeError("ours")
    error.__cause__ = of_postgresql("57P01")
    assert not is_unavailable(error)


WRITE = "INSERT INTO one SELECT randomblob(100000)"


@pytest.mark.parametrize(
    ("before", "mode", "statement", "passes"),
    [
        ("BEGIN IMMEDIATE", "rw", WRITE, True),  # database is locked
        ("", "ro", WRITE, True),  # attempt to write a readonly database
        ("", "rw", f"PRAGMA max_page_count = 2; {WRITE}", True),  # database or disk is full
        ("", "rw", "SELECT * FROM absent", False),
        ("", "rw", "SELECT FROM", False),
    ],
)
def test_sqlite_is_judged_by_its_result_code(
    tmp_path: Path, before: str, mode: str, statement: str, passes: bool
) -> None:
    """The bug: a missing table is SQLite's OperationalError too, and was answered with "try again"."""
    file = tmp_path / "one.sqlite3"
    with (
        closing(sqlite3.connect(file)) as other,
        closing(sqlite3.connect(f"file:{file}?mode={mode}", uri=True)) as used,
    ):
        other.executescript(f"CREATE TABLE one (x); {before}")
        used.execute("PRAGMA busy_timeout = 0")
        with pytest.raises(sqlite3.Error) as raised:
            used.executescript(statement)
    assert is_unavailable(raised.value) is passes


@pytest.mark.django_db
def test_a_missing_table_is_a_fault_on_every_database() -> None:
    with connection.cursor() as cursor, pytest.raises(DatabaseError) as raised:
        cursor.execute("SELECT * FROM absent")
    assert not is_unavailable(raised.value)
