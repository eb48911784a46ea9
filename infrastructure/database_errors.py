"""Which database errors pass by themselves: the one table of SQLSTATEs and of SQLite's result codes.

An error of the table is answered with 503 and `Retry-After`, and is a reason to wait and ask again. Every other one (a
missing table, a wrong statement, a refused value, damaged data) is a fault that another try cannot mend, so a 500.
"""

import sqlite3
from typing import Final

from django.db import Error, InterfaceError, OperationalError

READ_ONLY: Final = "25006"

# Whole classes of SQLSTATE (PostgreSQL's manual, appendix A), by their first two characters.
_CLASSES: Final = {
    "08",  # connection exception; a pooler says most of what it has to say with one of these, too
    "28",  # invalid authorization: a pooler reports it in place of an answer when it logs in anew
    "53",  # insufficient resources: disk full, out of memory, too many connections
    "57",  # operator intervention: cancelled, shutting down, crashed, starting up, dropped
    "58",  # system error outside of PostgreSQL: input, output
}
_STATES: Final = {
    READ_ONLY,  # a standby, or `default_transaction_read_only`
    "25P03",  # idle-in-transaction time-out
    "25P04",  # transaction time-out
    "26000",  # a prepared statement is not there, so a pooler is: infrastructure/prepared.py prepares no more
    "3D000",  # the database is not there: renamed or being restored; a pooler reports it in place of an answer
    "40001",  # serialization failure, on a standby also a conflict with recovery
    "40003",  # statement completion unknown
    "40P01",  # deadlock
    "42P05",  # a prepared statement is there already: as 26000
    "55006",  # object in use
    "55P03",  # lock not available: lock time-out
}
# SQLite's primary result codes (https://www.sqlite.org/rescode.html).
_SQLITE_CODES: Final = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL,
}
_PRIMARY: Final = 0xFF
# How the drivers call errors without a code: the connection could not be made, broke, or is closed.
_WITHOUT_CODE: Final = {"OperationalError", "InterfaceError", "DatabaseError"}


def is_unavailable(error: BaseException) -> bool:
    """Tell whether the database is away, read-only, locked, full or busy: the same call works once it is not.

    Takes Django's errors and the drivers' own. Anything else is False.
    """
    driver = _of_driver(error)
    if driver is None:
        return type(error) in {OperationalError, InterfaceError}
    if isinstance(driver, sqlite3.Error):
        return sqlite_code(error) in _SQLITE_CODES
    state: str | None = getattr(driver, "pgcode", None)
    if state is None:
        return type(driver).__name__ in _WITHOUT_CODE
    return state in _STATES or state[:2] in _CLASSES


def sqlstate(error: BaseException) -> str | None:
    """Return PostgreSQL's code of the driver's error, whether or not Django's stands before it."""
    return getattr(_of_driver(error), "pgcode", None)


def sqlite_code(error: BaseException) -> int | None:
    """Return SQLite's primary result code of the driver's error, whether or not Django's stands before it."""
    code: int | None = getattr(_of_driver(error), "sqlite_errorcode", None)
    return None if code is None else code & _PRIMARY


def _of_driver(error: BaseException) -> BaseException | None:
    """Return the driver's error: itself, or what Django's stands before.

    A transaction that somebody used after its error tells of that one: of what failed first.
    """
    while isinstance(error, Error) and error.__cause__ is not None:
        error = error.__cause__
    is_drivers = isinstance(error, sqlite3.Error) or hasattr(error, "pgcode")
    return error if is_drivers else None


def in_one_line(error: Exception) -> str:
    """Return the line; without the rows that PostgreSQL quotes below its own."""
    said = next(iter(str(error).splitlines()), "")
    if is_unavailable(error):
        return f"The database cannot be used: {said} Nothing is lost; run it again when it can."
    return f"The database refused a statement: {said}"
