"""Write the audit log, and install the database triggers that make it append-only.

A row is written in the transaction of the change it records, with its next statement or its COMMIT. A copy goes to the
log after the commit, never after a rollback. Standard output is collected on another machine, so the copy survives an
attacker who owns the database (ASVS 16.4.3). If the connection breaks during a commit, a row may exist without its log
line.

The triggers stop mistakes, SQL injection and stolen application credentials. They do not stop the table's owner: in
production, run migrations under a different database role than the application. On PostgreSQL the table is partitioned
by month, and a month is dropped as a whole, by a role of its own (`infrastructure.audit_partitions`). SQLite rebuilds a
table to change its columns, so a migration of this table must call `remove` first and `install` last.
"""

import logging
from collections.abc import Iterable
from datetime import datetime
from functools import partial
from typing import Any, Final
from uuid import UUID

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import TextChoices
from django.utils import timezone

from infrastructure import logs, metrics
from infrastructure.compiled import CompiledInsert, unsaved
from infrastructure.models import AuditEvent

# Actors. The others are `bot:<public key id>` and `admin:<id>`.
SYSTEM: Final = "system"
CONSUMER: Final = "consumer"
OPERATOR: Final = "operator"

_LOGGED: Final = (
    "uuid",
    "outcome",
    "actor",
    "brand_uuid",
    "conversation_uuid",
    "session",
    "challenge_uuid",
    "access_token_uuid",
    "object_uuid",
    "changed_fields",
    "changed_values",
)

_EVENTS: Final = CompiledInsert(AuditEvent)
_REFUSAL: Final = "the audit log is append-only"
_FUNCTION: Final = f"""CREATE OR REPLACE FUNCTION audit_log_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE EXCEPTION '{_REFUSAL}' USING ERRCODE = 'restrict_violation'; END $$"""
# A partition gets the first from the table, and has one of its own against TRUNCATE (migrations/0003).
TRIGGERS_OF_POSTGRESQL: Final = (
    """CREATE TRIGGER audit_rows_stay BEFORE UPDATE OR DELETE ON infrastructure_auditevent
        FOR EACH ROW EXECUTE FUNCTION audit_log_is_append_only()""",
    """CREATE TRIGGER audit_log_stays BEFORE TRUNCATE ON infrastructure_auditevent
        FOR EACH STATEMENT EXECUTE FUNCTION audit_log_is_append_only()""",
)
_POSTGRESQL_REMOVED: Final = (
    "DROP TRIGGER audit_rows_stay ON infrastructure_auditevent",
    "DROP TRIGGER audit_log_stays ON infrastructure_auditevent",
)
_SQLITE: Final = (
    f"""CREATE TRIGGER audit_rows_are_not_updated BEFORE UPDATE ON infrastructure_auditevent
        BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END""",
    f"""CREATE TRIGGER audit_rows_are_not_deleted BEFORE DELETE ON infrastructure_auditevent
        BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END""",
    # INSERT OR REPLACE deletes the old row without firing the DELETE trigger, unless `recursive_triggers` is on.
    """CREATE TRIGGER audit_rows_are_not_replaced BEFORE INSERT ON infrastructure_auditevent
        WHEN EXISTS (SELECT 1 FROM infrastructure_auditevent WHERE id = NEW.id)
        BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END""",
)
_SQLITE_REMOVED: Final = (
    "DROP TRIGGER audit_rows_are_not_updated",
    "DROP TRIGGER audit_rows_are_not_deleted",
    "DROP TRIGGER audit_rows_are_not_replaced",
)

logger = logging.getLogger("consumer_delegation.audit")


def record_event(
    kind: TextChoices,
    *,
    brand_uuid: UUID,
    actor: str,
    now: datetime | None = None,
    outcome: str = "",
    conversation_uuid: UUID | None = None,
    session: int | None = None,
    challenge_uuid: UUID | None = None,
    access_token_uuid: UUID | None = None,
    object_uuid: UUID | None = None,
    changed_fields: Iterable[str] = (),
    changed_values: dict[str, list[Any]] | None = None,
) -> None:
    """Write one event. Pass only values that we generate, never text from a person or a remote server.

    The one exception are `changed_values`: the old and the new value of a field, if the caller's list allows it.
    """
    event = unsaved(
        AuditEvent,
        at=now or timezone.now(),
        kind=kind.value,
        outcome=outcome,
        actor=actor,
        brand_uuid=brand_uuid,
        conversation_uuid=conversation_uuid,
        session=session,
        challenge_uuid=challenge_uuid,
        access_token_uuid=access_token_uuid,
        object_uuid=object_uuid,
        changed_fields=" ".join(changed_fields),
        changed_values=changed_values or None,
        request_id=logs.current_request_id(),
    )
    _EVENTS.insert_later(event)
    # robust=True: an error here must not stop the other on_commit callbacks.
    transaction.on_commit(partial(_after_commit, event), robust=True)


def _after_commit(event: AuditEvent) -> None:
    logs.info(logger, event.kind, log_fields(event))
    metrics.count_event(event.kind, event.outcome, event.brand_uuid)


def actor_of_admin(user_pk: object) -> str:
    """Name an admin by id. The e-mail address must not enter the log."""
    return f"admin:{user_pk}"


def log_fields(event: AuditEvent) -> dict[str, str]:
    return {name: str(value) for name in _LOGGED if (value := getattr(event, name))}


def install(connection: BaseDatabaseWrapper) -> None:
    _execute(connection, (_FUNCTION, *TRIGGERS_OF_POSTGRESQL) if connection.vendor == "postgresql" else _SQLITE)


def remove(connection: BaseDatabaseWrapper) -> None:
    """Drop the table's triggers: for the reverse migration, and for tests that empty the database.

    On PostgreSQL the function stays, which the partitions' own triggers use.
    """
    _execute(connection, _POSTGRESQL_REMOVED if connection.vendor == "postgresql" else _SQLITE_REMOVED)


def _execute(connection: BaseDatabaseWrapper, statements: tuple[str, ...]) -> None:
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
