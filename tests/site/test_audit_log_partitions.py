"""The audit log by month, on PostgreSQL: nobody changes a row, months are made ahead, and one role drops old ones."""

import io
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.core.management import CommandError, call_command
from django.db import Error, IntegrityError, ProgrammingError, connection, transaction
from django.utils import timezone

from conversations.flow.events import ConversationEvent
from infrastructure.audit import record_event
from infrastructure.audit_partitions import drop_month, make_months
from infrastructure.models import AuditEvent

pytestmark = pytest.mark.django_db

LONG_AGO = datetime(2020, 5, 20, tzinfo=UTC)
MAY_2020 = "audit_log_2020_05"
# As an installation that is three years old would have it.
AN_OLD_MONTH = f"""
    CREATE TABLE {MAY_2020} (LIKE infrastructure_auditevent INCLUDING DEFAULTS INCLUDING CONSTRAINTS);
    CREATE TRIGGER audit_log_stays BEFORE TRUNCATE ON {MAY_2020}
        FOR EACH STATEMENT EXECUTE FUNCTION audit_log_is_append_only();
    ALTER TABLE infrastructure_auditevent ATTACH PARTITION {MAY_2020} FOR VALUES FROM ('2020-05-01') TO ('2020-06-01')
"""
ROLES = """
    CREATE ROLE delegation_app_of_test;
    CREATE ROLE delegation_audit_of_test;
    GRANT SELECT, INSERT, UPDATE, DELETE ON infrastructure_auditevent TO delegation_app_of_test;
    GRANT USAGE ON SEQUENCE infrastructure_auditevent_id_seq TO delegation_app_of_test;
    GRANT EXECUTE ON FUNCTION audit_log_drop_month(integer) TO delegation_audit_of_test
"""
APP, KEEPER = "delegation_app_of_test", "delegation_audit_of_test"


def run(*statements: str) -> list[Any]:
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


def partitions() -> list[str]:
    asked = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'infrastructure_auditevent'::regclass"
    return sorted(name for (name,) in run(asked))


def month(ahead: int) -> str:
    now = timezone.now()
    years, number = divmod(now.month - 1 + ahead, 12)
    return f"audit_log_{now.year + years}_{number + 1:02}"


def record(at: datetime) -> None:
    record_event(ConversationEvent.CONVERSATION_CLOSED, brand_uuid=uuid4(), actor="system", now=at)
    AuditEvent.objects.count()  # the row travels with the next statement


@pytest.fixture
def old_month() -> None:
    run(AN_OLD_MONTH)
    record(LONG_AGO)
    record(timezone.now())


@pytest.fixture
def signed_in_as() -> Iterator[Any]:
    run(ROLES)
    yield lambda role: run(f"SET SESSION AUTHORIZATION {role}")
    run("RESET SESSION AUTHORIZATION")


def test_months_are_made_ahead_once() -> None:
    assert partitions() == sorted([*map(month, range(4)), "audit_log_rest"])
    run(f"DROP TABLE {month(3)}")
    assert (make_months(), make_months()) == (1, 0)
    assert partitions() == sorted([*map(month, range(4)), "audit_log_rest"])


def test_a_row_of_a_month_that_nobody_made_is_kept_and_the_month_left_out() -> None:
    """A worker that did not run for months must stop no sign-in."""
    run(f"DROP TABLE {month(0)}")
    record(timezone.now())
    assert run("SELECT count(*) FROM audit_log_rest") == [(1,)]
    assert make_months() == 0
    assert AuditEvent.objects.count() == 1


@pytest.mark.usefixtures("old_month")
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE infrastructure_auditevent SET outcome = 'another'",
        f"UPDATE {MAY_2020} SET outcome = 'another'",  # noqa: S608
        "DELETE FROM infrastructure_auditevent",
        f"DELETE FROM {MAY_2020}",  # noqa: S608
        "TRUNCATE infrastructure_auditevent",
        f"TRUNCATE {MAY_2020}",
        f"TRUNCATE {month(1)}",
        "TRUNCATE audit_log_rest",
    ],
)
def test_no_row_of_a_partition_can_be_changed(statement: str) -> None:
    """Part 5 of the audit rows."""
    with pytest.raises(IntegrityError, match="the audit log is append-only"), transaction.atomic():
        run(statement)
    assert AuditEvent.objects.count() == 2


@pytest.mark.usefixtures("old_month")
def test_the_role_that_may_drops_old_months_and_leaves_a_row(signed_in_as: Any) -> None:
    """H13."""
    signed_in_as(KEEPER)
    call_command("drop_audit_months", "--keep-months=24", stdout=(said := io.StringIO()))
    run("RESET SESSION AUTHORIZATION")
    assert said.getvalue() == f"dropped {MAY_2020}, 1 rows\n"
    assert MAY_2020 not in partitions()
    newest, closed = AuditEvent.objects.all()
    assert (newest.kind, newest.outcome, newest.actor, newest.brand_uuid, newest.changed_values) == (
        "audit_log.month_dropped", MAY_2020, f"operator:{KEEPER}", UUID(int=0), {"rows": [1, 0]},
    )  # fmt: skip
    assert closed.kind == "conversation.closed"


@pytest.mark.usefixtures("old_month")
@pytest.mark.parametrize("role", [APP, None])
def test_neither_the_application_nor_the_owner_drops_a_month(signed_in_as: Any, role: str | None) -> None:
    """H13. The attack: stolen credentials of the application remove what was done with them."""
    if role:
        signed_in_as(role)
    with pytest.raises(ProgrammingError), transaction.atomic():
        drop_month(24)
    with pytest.raises(CommandError, match=r"operator\.md"), transaction.atomic():
        call_command("drop_audit_months", "--keep-months=24")
    run("RESET SESSION AUTHORIZATION")
    assert MAY_2020 in partitions()


@pytest.mark.usefixtures("old_month")
@pytest.mark.parametrize(
    "statement",
    [
        "SELECT audit_log_drop_month(5)",
        "SELECT audit_log_drop_month(-12)",
        "SELECT audit_log_drop_month(NULL)",
        "SELECT 1 FROM infrastructure_auditevent",
        f"DROP TABLE {MAY_2020}",
        f"ALTER TABLE infrastructure_auditevent DETACH PARTITION {MAY_2020}",
    ],
)
def test_the_role_that_drops_months_can_do_nothing_else(signed_in_as: Any, statement: str) -> None:
    """H13. The attack: with its password the last months go, too, or rows are read."""
    signed_in_as(KEEPER)
    with pytest.raises(Error), transaction.atomic():
        run(statement)
    run("RESET SESSION AUTHORIZATION")
    assert AuditEvent.objects.count() == 2


@pytest.mark.usefixtures("old_month")
def test_what_is_younger_stays(signed_in_as: Any) -> None:
    """H13."""
    signed_in_as(KEEPER)
    assert drop_month(6) == (MAY_2020, 1)
    assert drop_month(6) is None


def test_a_callers_own_table_is_not_used_with_the_owners_rights(signed_in_as: Any) -> None:
    """H13. The attack: a temporary table of the same name, whose trigger would run as the owner."""
    signed_in_as(APP)
    run("CREATE TEMPORARY TABLE infrastructure_auditevent (id integer)")
    assert run("SELECT audit_log_make_months()") == [(0,)]


def test_a_callers_own_function_is_not_run_with_the_owners_rights(signed_in_as: Any) -> None:
    """H13. The attack: up to PostgreSQL 14 all may create functions in `public`, and one fits better."""
    run(
        "GRANT CREATE ON SCHEMA public TO delegation_app_of_test",
        f"DROP TABLE {month(3)}",
    )
    signed_in_as(APP)
    run(
        "CREATE FUNCTION public.format(text, text) RETURNS text LANGUAGE sql"
        " AS $$ SELECT 'DROP TABLE audit_log_rest' $$",
    )
    run("SELECT audit_log_make_months()")
    assert partitions() == sorted([*map(month, range(4)), "audit_log_rest"])
