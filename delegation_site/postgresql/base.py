"""The database backend that `DATABASES` names; Django looks for its `DatabaseWrapper` in this module."""

import re
from typing import Any, Final

import psycopg2
from django.db.backends.postgresql import base
from psycopg2 import extensions

from delegation_site import time_outs

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
            before = time_outs.in_transaction(has_options=connection.has_options)
            query = before + query if before else query
        super().execute(query, vars)


class DatabaseWrapper(base.DatabaseWrapper):
    """Django's, with time-outs; a connection is usable where it can write."""

    def get_connection_params(self) -> dict[str, Any]:
        """Return Django's parameters and ours; what `DATABASE_URL` says goes before ours."""
        params: dict[str, Any] = _OF_EVERY_CONNECTION | super().get_connection_params()
        params |= {"cursor_factory": LimitedCursor, "connection_factory": LimitedConnection}
        pooled = bool(self.settings_dict.get("DISABLE_SERVER_SIDE_CURSORS"))
        ours = time_outs.start_up_options(is_pooler_named=pooled)
        # The last one of two counts.
        return params | {"options": f"{ours} {params.get('options', '')}".strip()} if ours else params

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """Connect; once more without start-up options where a pooler refuses or forgets them."""
        ours = conn_params.get("options", "").startswith(time_outs.START_UP_OPTIONS)
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
        time_outs.meet_pooler()
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
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('lock_timeout') <> '0'")
        (has,) = cursor.fetchone()
    return bool(has)
