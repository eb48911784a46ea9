"""The audit log: the one place that writes its rows, and the triggers that refuse to change or delete one.

A row is written in the transaction of the change that it tells of. Its copy as a log line is what is left where
somebody owns the database: standard output is collected elsewhere (ASVS 16.4.3). The line is written once the row is
there for good: what was rolled back has not happened. Where the answer to a commit is lost, a row may stand without its
line.

The triggers stop honest mistakes, SQL injection and stolen application credentials. They do not stop the table's owner:
in production let migrations run under another role than the application, and collect the log lines elsewhere. A later
migration that changes the table's columns has to `remove` first and `install` last: SQLite builds the table anew.
"""

import logging
from collections.abc import Iterable
from datetime import datetime
from typing import Final
from uuid import UUID

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import TextChoices
from django.utils import timezone

from infrastructure.compiled import CompiledInsert
from infrastructure.logs import current_request_id
from infrastructure.models import AuditEvent

# Who did it: one of these, `bot:<public key id>` or `admin:<id>`.
SYSTEM: Final = "system"
CONSUMER: Final = "consumer"
OPERATOR: Final = "operator"

_LOGGED: Final = (
    "uuid",
    "outcome",
    "actor",
    "brand_uuid",
    "conversation_uuid",
    "challenge_uuid",
    "access_token_uuid",
    "object_uuid",
    "changed_fields",
)

_EVENTS: Final = CompiledInsert(AuditEvent)

logger = logging.getLogger("consumer_delegation.audit")


def record_event(
    kind: TextChoices,
    *,
    brand_uuid: UUID,
    actor: str,
    now: datetime | None = None,
    outcome: str = "",
    conversation_uuid: UUID | None = None,
    challenge_uuid: UUID | None = None,
    access_token_uuid: UUID | None = None,
    object_uuid: UUID | None = None,
    changed_fields: Iterable[str] = (),
) -> None:
    """Write one event. Every argument is one of ours: nothing that a person or a server has typed goes in."""
    event = AuditEvent(
        at=now or timezone.now(),
        kind=kind,
        outcome=outcome,
        actor=actor,
        brand_uuid=brand_uuid,
        conversation_uuid=conversation_uuid,
        challenge_uuid=challenge_uuid,
        access_token_uuid=access_token_uuid,
        object_uuid=object_uuid,
        changed_fields=" ".join(changed_fields),
        request_id=current_request_id(),
    )
    _EVENTS.insert(event)
    # Robust: what else waits for the commit, letters to admins among it, takes no line along when it fails.
    transaction.on_commit(lambda: logger.info(kind.value, extra=log_fields(event)), robust=True)


def actor_of_admin(user_pk: object) -> str:
    """Return an admin's name for audit rows; never the e-mail address."""
    return f"admin:{user_pk}"


def log_fields(event: AuditEvent) -> dict[str, str]:
    """Return the event as the fields of its log line."""
    return {name: str(value) for name in _LOGGED if (value := getattr(event, name))}


_REFUSAL: Final = "the audit log is append-only"

_POSTGRESQL: Final = (
    f"""CREATE FUNCTION audit_log_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION '{_REFUSAL}' USING ERRCODE = 'restrict_violation'; END $$""",
    """CREATE TRIGGER audit_rows_stay BEFORE UPDATE OR DELETE ON infrastructure_auditevent
        FOR EACH ROW EXECUTE FUNCTION audit_log_is_append_only()""",
    """CREATE TRIGGER audit_log_stays BEFORE TRUNCATE ON infrastructure_auditevent
        FOR EACH STATEMENT EXECUTE FUNCTION audit_log_is_append_only()""",
)
_POSTGRESQL_REMOVED: Final = (
    "DROP TRIGGER audit_rows_stay ON infrastructure_auditevent",
    "DROP TRIGGER audit_log_stays ON infrastructure_auditevent",
    "DROP FUNCTION audit_log_is_append_only()",
)
_SQLITE: Final = (
    f"""CREATE TRIGGER audit_rows_are_not_updated BEFORE UPDATE ON infrastructure_auditevent
        BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END""",
    f"""CREATE TRIGGER audit_rows_are_not_deleted BEFORE DELETE ON infrastructure_auditevent
        BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END""",
    # INSERT OR REPLACE deletes the old row without asking the trigger above, unless `recursive_triggers` is on.
    """CREATE TRIGGER audit_rows_are_not_replaced BEFORE INSERT ON infrastructure_auditevent
        WHEN EXISTS (SELECT 1 FROM infrastructure_auditevent WHERE id = NEW.id)
        BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END""",
)
_SQLITE_REMOVED: Final = (
    "DROP TRIGGER audit_rows_are_not_updated",
    "DROP TRIGGER audit_rows_are_not_deleted",
    "DROP TRIGGER audit_rows_are_not_replaced",
)


def install(connection: BaseDatabaseWrapper) -> None:
    """Make the audit log append-only."""
    _execute(connection, _POSTGRESQL if connection.vendor == "postgresql" else _SQLITE)


def remove(connection: BaseDatabaseWrapper) -> None:
    """Undo `install`: for the way back of the migration, and for tests that empty the whole database."""
    _execute(connection, _POSTGRESQL_REMOVED if connection.vendor == "postgresql" else _SQLITE_REMOVED)


def _execute(connection: BaseDatabaseWrapper, statements: tuple[str, ...]) -> None:
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
