"""The audit log can be partitioned by month later (PostgreSQL), and still nobody changes a row of it."""

from datetime import UTC, datetime
from uuid import uuid4

import pytest
from django.db import IntegrityError, connection, transaction

from conversations.flow.events import ConversationEvent
from infrastructure import audit
from infrastructure.audit import record_event
from infrastructure.models import AuditEvent

pytestmark = pytest.mark.django_db

MAY, JUNE = datetime(2030, 5, 20, tzinfo=UTC), datetime(2030, 6, 2, tzinfo=UTC)
PARTITION_BY_MONTH = """
ALTER TABLE infrastructure_auditevent RENAME TO audit_log_unpartitioned;
CREATE SEQUENCE audit_log_ids;
CREATE TABLE infrastructure_auditevent (LIKE audit_log_unpartitioned INCLUDING DEFAULTS) PARTITION BY RANGE (at);
ALTER TABLE infrastructure_auditevent ALTER id SET DEFAULT nextval('audit_log_ids'), ADD PRIMARY KEY (at, id);
CREATE TABLE audit_log_2030_05 PARTITION OF infrastructure_auditevent FOR VALUES FROM ('2030-05-01') TO ('2030-06-01');
CREATE TABLE audit_log_2030_06 PARTITION OF infrastructure_auditevent FOR VALUES FROM ('2030-06-01') TO ('2030-07-01');
"""
NO_TRUNCATION = """
CREATE TRIGGER audit_log_stays BEFORE TRUNCATE ON {}
    FOR EACH STATEMENT EXECUTE FUNCTION audit_log_is_append_only()
"""


def run(*statements: str) -> None:
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


@pytest.fixture
def partitioned() -> None:
    """Do what a later migration would do; each partition needs a trigger of its own against TRUNCATE."""
    audit.remove(connection)
    run(PARTITION_BY_MONTH)
    audit.install(connection)
    run(NO_TRUNCATION.format("audit_log_2030_05"), NO_TRUNCATION.format("audit_log_2030_06"))
    for at in (MAY, JUNE):
        record_event(ConversationEvent.CONVERSATION_CLOSED, brand_uuid=uuid4(), actor="system", now=at)


@pytest.mark.usefixtures("partitioned")
def test_the_model_reads_and_writes_a_partitioned_log() -> None:
    assert [event.at for event in AuditEvent.objects.all()] == [JUNE, MAY]


@pytest.mark.usefixtures("partitioned")
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE infrastructure_auditevent SET outcome = 'another'",
        "UPDATE audit_log_2030_05 SET outcome = 'another'",
        "DELETE FROM infrastructure_auditevent",
        "DELETE FROM audit_log_2030_05",
        "TRUNCATE infrastructure_auditevent",
        "TRUNCATE audit_log_2030_05",
    ],
)
def test_no_row_of_a_partition_can_be_changed(statement: str) -> None:
    """Part 5 of the audit rows."""
    with pytest.raises(IntegrityError, match="the audit log is append-only"), transaction.atomic():
        run(statement)
    assert AuditEvent.objects.count() == 2


@pytest.mark.usefixtures("partitioned")
def test_a_whole_month_can_go_by_the_tables_owner() -> None:
    run(
        "ALTER TABLE infrastructure_auditevent DETACH PARTITION audit_log_2030_05",
        "DROP TABLE audit_log_2030_05",
    )
    assert [event.at for event in AuditEvent.objects.all()] == [JUNE]
