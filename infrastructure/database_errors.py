"""Tell temporary database errors from permanent ones, by SQLSTATE or SQLite result code.

Temporary errors give a 503 with `Retry-After`, and workers retry. All others (a missing table, a wrong statement, a
refused value, damaged data) give a 500, because a retry cannot help.
"""

import sqlite3
from typing import Final

from django.db import Error, InterfaceError, OperationalError

READ_ONLY: Final = "25006"

# SQLSTATE classes (PostgreSQL's manual, appendix A), by their first two characters.
_CLASSES: Final = {
    "08",  # connection exception; poolers use it for most of their errors
    "28",  # invalid authorization; a pooler may report it instead of a result when it reconnects
    "53",  # insufficient resources: disk full, out of memory, too many connections
    "57",  # operator intervention: cancelled, shutting down, crashed, starting up, dropped
    "58",  # system error outside of PostgreSQL: input, output
}
_STATES: Final = {
    READ_ONLY,  # a standby, or `default_transaction_read_only`
    "25P03",  # idle-in-transaction time-out
    "25P04",  # transaction time-out
    "26000",  # unknown prepared statement, so there is a pooler: infrastructure/prepared.py stops preparing
    "3D000",  # unknown database: renamed or being restored; a pooler may report it instead of a result
    "40001",  # serialization failure, on a standby also a conflict with recovery
    "40003",  # statement completion unknown
    "40P01",  # deadlock
    "42P05",  # duplicate prepared statement: as 26000
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
# Exceptions without a code: the connection could not be made, was lost, or is closed.
_WITHOUT_CODE: Final = {"OperationalError", "InterfaceError", "DatabaseError"}


def is_unavailable(error: BaseException) -> bool:
    """Whether this Django or driver error is temporary: the database is down, read-only, locked, full or busy."""
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
    """PostgreSQL's error code, from the driver's error or Django's."""
    return getattr(_of_driver(error), "pgcode", None)


def is_refusal(error: BaseException) -> bool:
    """Whether PostgreSQL itself refused, so that nothing of the transaction is stored, even if this was its COMMIT."""
    state = sqlstate(error)
    return state is not None and state[:2] != "08" and state[:3] != "57P" and state != "40003"


def sqlite_code(error: BaseException) -> int | None:
    """SQLite's primary result code, from the driver's error or Django's."""
    code: int | None = getattr(_of_driver(error), "sqlite_errorcode", None)
    return None if code is None else code & _PRIMARY


def _of_driver(error: BaseException) -> BaseException | None:
    """Return the driver's error behind Django's, or None. In a failed transaction it is the first failure's."""
    while isinstance(error, Error) and error.__cause__ is not None:
        error = error.__cause__
    is_drivers = isinstance(error, sqlite3.Error) or hasattr(error, "pgcode")
    return error if is_drivers else None


def in_one_line(error: Exception) -> str:
    """Describe a database error. PostgreSQL quotes row values below the first line, so only that line is used."""
    said = next(iter(str(error).splitlines()), "")
    if is_unavailable(error):
        return f"The database cannot be used: {said.rstrip('.')}. Nothing is lost; run it again when it can."
    return f"The database refused a statement: {said}"
