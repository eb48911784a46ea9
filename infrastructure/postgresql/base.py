"""The database backend that `DATABASES` names; Django looks for its `DatabaseWrapper` in this module."""

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

# libpq's own words (PostgreSQL's manual, section 34.1.2), in seconds, the last one in milliseconds: of a host that has
# gone without a word TCP by itself would tell after two hours. Without a meaning for sockets of the file system.
_OF_EVERY_CONNECTION: Final = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
# PgBouncer's and RDS Proxy's.
_REFUSED: Final = re.compile("unsupported startup parameter|command-line options", re.IGNORECASE)


class LimitedConnection(extensions.connection):
    """The driver's connection; `has_options` where PostgreSQL has taken our time-outs for all that it does."""

    has_options = False


class LimitedCursor(extensions.cursor):
    """The driver's cursor; sends the time-outs of a transaction along with its first statement."""

    def execute(self, query: Any, vars: Any = None) -> None:  # noqa: A002  # the driver's own name
        """Run a statement. Raises the driver's errors."""
        connection: Any = self.connection
        if self.name is None and connection.get_transaction_status() == extensions.TRANSACTION_STATUS_IDLE:
            before = in_transaction(has_options=connection.has_options)
            query = before + query if before else query
        super().execute(query, vars)


class DatabaseWrapper(base.DatabaseWrapper):
    """Django's, with time-outs; a connection is usable where it can write."""

    def get_connection_params(self) -> dict[str, Any]:
        """Return Django's parameters and ours; what `DATABASE_URL` says goes before ours."""
        params: dict[str, Any] = _OF_EVERY_CONNECTION | super().get_connection_params()
        params |= {"cursor_factory": LimitedCursor, "connection_factory": LimitedConnection}
        pooled = bool(self.settings_dict.get("DISABLE_SERVER_SIDE_CURSORS"))
        ours = start_up_options(is_pooler_named=pooled)
        # The last one of two counts.
        return params | {"options": f"{ours} {params.get('options', '')}".strip()} if ours else params

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """Connect; once more without start-up options where a pooler refuses or forgets them."""
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
        """Tell whether the server answers and takes writes: kept, one that does not is of no use after a switchover."""
        if self.connection is None:
            return False
        try:
            with self.connection.cursor() as cursor:
                # Also on, whatever is set, where the server is a standby.
                cursor.execute("SELECT current_setting('transaction_read_only')")
                return bool(cursor.fetchone() == ("off",))
        except psycopg2.Error:
            return False


def _has_time_outs(connection: Any) -> bool:
    """Tell whether our start-up options arrived; 0 is none."""
    connection.autocommit = True
    with connection.cursor(cursor_factory=extensions.cursor) as cursor:  # ours would set them for this statement
        cursor.execute("SELECT current_setting('lock_timeout') <> '0'")
        (has,) = cursor.fetchone()
    return bool(has)


# In milliseconds. A thread that waits longer than the first one is free again, for probes among others.
LIMITS: Final = {"lock_timeout": 4_000, "statement_timeout": 8_000, "idle_in_transaction_session_timeout": 20_000}
# What stores a token that a brand has issued waits longer: giving up would lose it. The proxy waits 35 seconds.
PATIENT: Final = LIMITS | {"lock_timeout": 20_000, "statement_timeout": 20_000}

START_UP_OPTIONS: Final = " ".join(f"-c {name}={limit}" for name, limit in LIMITS.items())


def _in_transaction(limits: dict[str, int]) -> str:
    return "".join(f"SET LOCAL {name} = {limit}; " for name, limit in limits.items())


_IN_TRANSACTION: Final = _in_transaction(LIMITS)
_PATIENT_IN_TRANSACTION: Final = _in_transaction(PATIENT)

logger = logging.getLogger("consumer_delegation.time_outs")


@dataclass
class _Process:
    """Whether this process has limits, and whether a pooler stands before its PostgreSQL."""

    is_limited: bool = False
    is_pooled: bool = False


_process = _Process()
_is_patient: ContextVar[bool] = ContextVar("is_patient", default=False)


def limit_from_now_on() -> None:
    """Say that this process serves."""
    _process.is_limited = True


def meet_pooler() -> None:
    """Send no start-up options from now on: what stands before PostgreSQL does not pass them on."""
    if not _process.is_pooled:
        _process.is_pooled = True
        logger.warning("a pooler: each transaction sets its own time-outs from now on; see DISABLE_SERVER_SIDE_CURSORS")


def start_up_options(*, is_pooler_named: bool) -> str:
    """Return what a new connection of this process sets for itself; nothing where a pooler would not pass it on."""
    return START_UP_OPTIONS if _process.is_limited and not (_process.is_pooled or is_pooler_named) else ""


def in_transaction(*, has_options: bool) -> str:
    """Return the statements that go before the first one of a transaction, or of none; `""` for none."""
    if not _process.is_limited:
        return ""
    if _is_patient.get():
        return _PATIENT_IN_TRANSACTION
    return "" if has_options else _IN_TRANSACTION


@contextmanager
def patience() -> Iterator[None]:
    """Wait longer for locks in the transactions that begin in this block: what they store cannot be had again."""
    before = _is_patient.set(True)
    try:
        yield
    finally:
        _is_patient.reset(before)
