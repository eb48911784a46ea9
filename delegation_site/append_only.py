"""The database's own guard of the audit log: triggers that refuse to change or delete a row (part 5 of the audit rows).

They stop honest mistakes, SQL injection and stolen application credentials. They do not stop the table's owner: in
production let migrations run under another role than the application, and collect the log lines elsewhere. A later
migration that changes the table's columns has to `remove` first and `install` last: SQLite builds the table anew.
"""

from typing import Final

from django.db.backends.base.base import BaseDatabaseWrapper

_REFUSAL: Final = "the audit log is append-only"

_POSTGRESQL: Final = (
    f"""CREATE FUNCTION audit_log_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION '{_REFUSAL}' USING ERRCODE = 'restrict_violation'; END $$""",
    """CREATE TRIGGER audit_rows_stay BEFORE UPDATE OR DELETE ON delegation_site_auditevent
        FOR EACH ROW EXECUTE FUNCTION audit_log_is_append_only()""",
    """CREATE TRIGGER audit_log_stays BEFORE TRUNCATE ON delegation_site_auditevent
        FOR EACH STATEMENT EXECUTE FUNCTION audit_log_is_append_only()""",
)
_POSTGRESQL_REMOVED: Final = (
    "DROP TRIGGER audit_rows_stay ON delegation_site_auditevent",
    "DROP TRIGGER audit_log_stays ON delegation_site_auditevent",
    "DROP FUNCTION audit_log_is_append_only()",
)
_SQLITE: Final = (
    f"""CREATE TRIGGER audit_rows_are_not_updated BEFORE UPDATE ON delegation_site_auditevent
        BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END""",
    f"""CREATE TRIGGER audit_rows_are_not_deleted BEFORE DELETE ON delegation_site_auditevent
        BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END""",
    # INSERT OR REPLACE deletes the old row without asking the trigger above, unless `recursive_triggers` is on.
    """CREATE TRIGGER audit_rows_are_not_replaced BEFORE INSERT ON delegation_site_auditevent
        WHEN EXISTS (SELECT 1 FROM delegation_site_auditevent WHERE id = NEW.id OR uuid = NEW.uuid)
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
