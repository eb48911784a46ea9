"""The audit log by month, on PostgreSQL: make months ahead, and drop the oldest one.

Two functions of the database do what only the table's owner may do (the migration `audit_log_by_month` makes them). Who
writes to the log may have months made. Only a role that the operator has allowed may drop one, and never one of the
last `LEAST_KEPT` (H13). A row that no month holds is in the partition `audit_log_rest`, so that a worker that does not
run, or a wrong clock, stops no sign-in.

SQLite has one table and no months.
"""

import logging
from typing import Final

from django.db import connection, transaction
from django.db.models import TextChoices

from infrastructure.audit import OPERATOR

# As in the database's function.
LEAST_KEPT: Final = 6

logger = logging.getLogger("consumer_delegation.audit")


class AuditLogEvent(TextChoices):
    """The database's function records it, with the role's name and the number of rows."""

    MONTH_DROPPED = "audit_log.month_dropped"


def make_months() -> int:
    """Make the partitions of this month and the next three, if they are missing. Return how many were made.

    Raises the database's error, such as one of a lock that was not released within two seconds.
    """
    if connection.vendor != "postgresql":
        return 0
    with connection.cursor() as cursor:
        cursor.execute("SELECT audit_log_make_months()")
        (made,) = cursor.fetchone()
    return int(made)


def drop_month(kept_months: int) -> tuple[str, int] | None:
    """Drop the oldest partition that ended `kept_months` whole months ago or earlier, in one transaction.

    Returns its name and how many rows it had; None if there is none. It leaves an audit row. Raises the database's
    error: `ProgrammingError` if this role may not do that, and `DataError` for less than `LEAST_KEPT` months.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT dropped, number FROM audit_log_drop_month(%s)", [kept_months])
        found: tuple[str, int] | None = cursor.fetchone()
    if found:
        extra = {"outcome": found[0], "actor": OPERATOR, "rows": found[1]}
        logger.info(AuditLogEvent.MONTH_DROPPED.value, extra=extra)
    return found
