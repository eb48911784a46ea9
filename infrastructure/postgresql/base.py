"""Set lock and statement timeouts on every PostgreSQL connection. Django loads `DatabaseWrapper` from here."""

import logging
import re
from collections.abc import Iterator
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
    """The driver's connection. `has_options` is true if PostgreSQL accepted our timeouts for the whole session.

    `kept_cursor` is for `infrastructure.prepared`, which runs one statement after the other.
    """

    has_options = False
    kept_cursor: Any = None


class LimitedCursor(extensions.cursor):
    """The driver's cursor. It sends the timeouts of a transaction with its first statement, in one round trip."""

    def execute(self, query: Any, vars: Any = None) -> None:  # noqa: A002  # the driver's own name
        connection: Any = self.connection
        if self.name is None and connection.get_transaction_status() == extensions.TRANSACTION_STATUS_IDLE:
            before = in_transaction(has_options=connection.has_options)
            query = before + query if before else query
        super().execute(query, vars)


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
