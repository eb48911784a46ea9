"""PostgreSQL connections with timeouts, and statements that travel together. Django loads `DatabaseWrapper` from here.

A round trip costs a statement more than its work. So BEGIN is sent with a transaction's first statement, and statements
whose result nobody reads (`send_later`) with the next one, at the latest with COMMIT: as one simple query (PostgreSQL's
manual, section 55.2.2.1). PostgreSQL runs them in order and stops at the first error. The driver raises that error from
the statement that they travelled with. So a COMMIT that returns has stored all of them.
"""

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final

import psycopg2
from django.db.backends.postgresql import base
from psycopg2 import extensions

# libpq's connection parameters (PostgreSQL's manual, section 34.1.2), in seconds; the last one in milliseconds. By
# default TCP notices a dead host only after two hours. Unix sockets ignore these parameters.
_OF_EVERY_CONNECTION: Final = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
# Error messages of PgBouncer and RDS Proxy.
_REFUSED: Final = re.compile("unsupported startup parameter|command-line options", re.IGNORECASE)
# In milliseconds. They free a blocked thread, so that health probes are answered, too.
LIMITS: Final = {"lock_timeout": 4_000, "statement_timeout": 8_000, "idle_in_transaction_session_timeout": 20_000}
# For storing a token that a brand has issued: giving up would lose it. The proxy's timeout is 35 seconds.
PATIENT: Final = LIMITS | {"lock_timeout": 20_000, "statement_timeout": 20_000}
START_UP_OPTIONS: Final = " ".join(f"-c {name}={limit}" for name, limit in LIMITS.items())


class LimitedConnection(extensions.connection):
    """The driver's connection, in its autocommit mode: we send BEGIN, COMMIT and ROLLBACK.

    `has_options` is true if PostgreSQL accepted our timeouts for the whole session. `in_transactions` is true while
    each statement outside of a transaction begins one. `kept_cursor` is for `infrastructure.prepared`, which runs one
    statement after the other.
    """

    has_options = False
    kept_cursor: Any = None
    in_transactions = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._later: list[tuple[bytes, Callable[[Exception], None]]] = []
        # The error with which a transaction ended before its COMMIT, until it is rolled back.
        self._lost: Exception | None = None

    @property
    def has_begun(self) -> bool:
        """Whether a transaction has begun, or something waits for one."""
        return bool(self._later) or self.get_transaction_status() != extensions.TRANSACTION_STATUS_IDLE

    def sends_nothing_before(self) -> bool:
        """Whether the next statement travels alone: nothing waits, failed, begins with it, or needs timeouts."""
        return not (self._later or self._lost or self.in_transactions or in_transaction(has_options=self.has_options))

    def send_later(self, statement: bytes, failed: Callable[[Exception], None]) -> None:
        """Send a complete statement with the next one. If that message fails, `failed` is called with the error."""
        self._later.append((statement, failed))

    def send_now(self) -> None:
        """Send what waits, for what cannot travel with other statements."""
        is_idle = self.get_transaction_status() == extensions.TRANSACTION_STATUS_IDLE
        if self._later or (self.in_transactions and is_idle):
            self._send(b"SELECT")

    def forget_later(self) -> None:
        """Drop what waits, because the transaction or savepoint that it belongs to is rolled back."""
        self._later.clear()

    def taken(self) -> tuple[bytes, list[Callable[[Exception], None]]]:
        """Return the statements to send before the next one, and whom to tell if the message fails.

        Each is on a line of its own, because PostgreSQL quotes the line of an error.
        """
        self._refuse_lost()
        later, self._later = self._later, []
        sent = b"".join(statement + b";\n" for statement, _ in later)
        if self.get_transaction_status() == extensions.TRANSACTION_STATUS_IDLE:
            begin = "BEGIN;\n" if self.in_transactions else ""
            sent = f"{begin}{in_transaction(has_options=self.has_options)}".encode() + sent
        return sent, [failed for _, failed in later]

    def lost(self, error: Exception) -> None:
        """Remember an error that left no failed transaction, because its message was refused with BEGIN in it."""
        if self.in_transactions and self.get_transaction_status() == extensions.TRANSACTION_STATUS_IDLE:
            self._lost = error

    def _refuse_lost(self) -> None:
        if self._lost is not None:
            raise psycopg2.InternalError("the transaction has failed") from self._lost

    def commit(self) -> None:
        """Commit. Raises an error if the transaction has failed: PostgreSQL would answer COMMIT with ROLLBACK."""
        if not self.autocommit:  # a new connection that Django still prepares
            super().commit()
            return
        self._refuse_lost()
        if self.get_transaction_status() == extensions.TRANSACTION_STATUS_INERROR:
            raise psycopg2.InternalError("the transaction has failed")
        if self.has_begun:
            self._send(b"COMMIT")

    def rollback(self) -> None:
        self.forget_later()
        self._lost = None
        if not self.autocommit:
            super().rollback()
        elif self.get_transaction_status() != extensions.TRANSACTION_STATUS_IDLE:
            self._send(b"ROLLBACK")

    def _send(self, statement: bytes) -> None:
        with self.cursor() as cursor:
            cursor.execute(statement)


class LimitedCursor(extensions.cursor):
    """The driver's cursor. One round trip takes BEGIN, the transaction's timeouts, what waits, and the statement."""

    _length_before = 0

    def execute(self, query: Any, vars: Any = None) -> None:  # noqa: A002  # the driver's own name
        connection: Any = self.connection
        # A server-side cursor, which the driver declares around the query. In its autocommit mode the driver only takes
        # one that outlives the transaction, so `select_for_update().iterator()` is refused.
        if self.name is not None:
            connection.send_now()
            super().execute(query, vars)
            return
        if connection.sends_nothing_before():
            self._length_before = 0
            super().execute(query, vars)
            return
        # Complete: the driver would look for placeholders in what goes before, too. First, because it may fail.
        statement = self.mogrify(query, vars)
        before, told = connection.taken()
        self._length_before = len(before)
        try:
            super().execute(before + statement)
        except Exception as error:
            connection.lost(error)
            for failed in told:
                failed(error)
            raise

    def executemany(self, query: Any, vars_list: Any) -> None:
        self.connection.send_now()  # type: ignore[attr-defined]  # ours
        super().executemany(query, vars_list)

    def callproc(self, *args: Any) -> Any:
        self.connection.send_now()  # type: ignore[attr-defined]  # ours
        return super().callproc(*args)

    def copy_expert(self, *args: Any, **options: Any) -> None:
        self.connection.send_now()  # type: ignore[attr-defined]  # ours
        super().copy_expert(*args, **options)

    def copy_from(self, *args: Any, **options: Any) -> None:
        self.connection.send_now()  # type: ignore[attr-defined]  # ours
        super().copy_from(*args, **options)

    def copy_to(self, *args: Any, **options: Any) -> None:
        self.connection.send_now()  # type: ignore[attr-defined]  # ours
        super().copy_to(*args, **options)

    @property
    def query(self) -> bytes | None:
        """The statement without what was sent before it: Django logs this text."""
        sent: bytes | None = super().query
        return sent and sent[self._length_before :]


class DatabaseWrapper(base.DatabaseWrapper):
    """Django's wrapper with timeouts. A read-only connection counts as unusable."""

    def get_connection_params(self) -> dict[str, Any]:
        """Add our parameters to Django's. Values in `DATABASE_URL` take precedence."""
        params: dict[str, Any] = _OF_EVERY_CONNECTION | super().get_connection_params()
        params |= {"cursor_factory": LimitedCursor, "connection_factory": LimitedConnection}
        pooled = bool(self.settings_dict.get("DISABLE_SERVER_SIDE_CURSORS"))
        ours = start_up_options(is_pooler_named=pooled)
        # If an option occurs twice, the last one wins.
        return params | {"options": f"{ours} {params.get('options', '')}".strip()} if ours else params

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """Connect. Reconnect without start-up options if a pooler refuses or drops them."""
        ours = conn_params.get("options", "").startswith(START_UP_OPTIONS)
        try:
            connection = super().get_new_connection(conn_params)
        except psycopg2.OperationalError as error:
            if not ours or not _REFUSED.search(str(error)):
                raise
        else:
            connection.has_options = ours and _has_time_outs(connection)
            if connection.has_options or not ours:
                return connection
            connection.close()
        meet_pooler()
        return super().get_new_connection(self.get_connection_params())

    def _set_autocommit(self, autocommit: bool) -> None:
        """Leave the driver in its autocommit mode, in which it sends no BEGIN of its own (`LimitedConnection`).

        As the driver does, refuse it while a transaction is open: later statements would become part of it.
        """
        with self.wrap_database_errors:
            if autocommit and self.connection.autocommit and self.connection.has_begun:
                raise psycopg2.ProgrammingError("autocommit cannot be set inside a transaction")
            if not self.connection.autocommit:
                self.connection.autocommit = True
            self.connection.in_transactions = not autocommit

    def _savepoint_rollback(self, sid: str) -> None:
        self.connection.forget_later()
        super()._savepoint_rollback(sid)  # type: ignore[misc]  # django-stubs lack this method

    def is_usable(self) -> bool:
        """Whether the server answers and accepts writes: after a switchover, a kept connection may be read-only."""
        if self.connection is None:
            return False
        try:
            with self.connection.cursor() as cursor:
                # A standby always reports "on", whatever is set.
                cursor.execute("SELECT current_setting('transaction_read_only')")
                return bool(cursor.fetchone() == ("off",))
        except psycopg2.Error:
            return False


def _has_time_outs(connection: Any) -> bool:
    connection.autocommit = True
    with connection.cursor(cursor_factory=extensions.cursor) as cursor:  # our cursor class would set them itself
        cursor.execute("SELECT current_setting('lock_timeout') <> '0'")
        (has,) = cursor.fetchone()
    return bool(has)


def _in_transaction(limits: dict[str, int]) -> str:
    return "".join(f"SET LOCAL {name} = {limit}; " for name, limit in limits.items())


_IN_TRANSACTION: Final = _in_transaction(LIMITS)
_PATIENT_IN_TRANSACTION: Final = _in_transaction(PATIENT)

logger = logging.getLogger("consumer_delegation.time_outs")


@dataclass
class _Process:
    """Whether timeouts are on in this process, and whether a pooler was detected."""

    is_limited: bool = False
    is_pooled: bool = False


_process = _Process()
_is_patient: ContextVar[bool] = ContextVar("is_patient", default=False)


def limit_from_now_on() -> None:
    """Use timeouts in this process. A server process calls it at the start."""
    _process.is_limited = True


def meet_pooler() -> None:
    """Stop sending start-up options: the pooler does not pass them on."""
    if not _process.is_pooled:
        _process.is_pooled = True
        logger.warning(
            "a pooler was detected: each transaction now sets its own timeouts; see DISABLE_SERVER_SIDE_CURSORS"
        )


def start_up_options(*, is_pooler_named: bool) -> str:
    """Return the start-up options of a new connection; "" if timeouts are off or there is a pooler."""
    return START_UP_OPTIONS if _process.is_limited and not (_process.is_pooled or is_pooler_named) else ""


def in_transaction(*, has_options: bool) -> str:
    """Return the statements to send before a transaction's first one; "" if none are needed."""
    if not _process.is_limited:
        return ""
    if _is_patient.get():
        return _PATIENT_IN_TRANSACTION
    return "" if has_options else _IN_TRANSACTION


@contextmanager
def patience() -> Iterator[None]:
    """Use longer timeouts for transactions in this block, which store what cannot be fetched again."""
    before = _is_patient.set(True)
    try:
        yield
    finally:
        _is_patient.reset(before)
