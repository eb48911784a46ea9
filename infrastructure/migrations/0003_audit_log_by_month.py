"""Partition the audit log by month on PostgreSQL, while processes of the version before go on writing to it.

Earlier rows become the first partition. Only the last step locks out readers and writers, and it reads no rows: what it
needs is proven and indexed before. If the migration is stopped, it can be run again. Back, every row is copied under a
lock.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import migrations, transaction
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from infrastructure import audit

# Every name of ours has its schema, and only PostgreSQL's own are looked for: with the owner's rights, a caller's
# temporary table, or a function that a caller made in our schema, would otherwise be used (PostgreSQL's manual, CREATE
# FUNCTION, "Writing SECURITY DEFINER Functions Safely").
OWNERS_RIGHTS = """LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp SET TimeZone = 'UTC' SET lock_timeout = '2s'"""
# A month is made beside the log and then attached: CREATE TABLE ... PARTITION OF would lock out all writers.
MAKE_MONTHS = rf"""
CREATE FUNCTION {{schema}}.audit_log_make_months() RETURNS integer {OWNERS_RIGHTS} AS $$
DECLARE
    made integer := 0;
    begins timestamptz;
    ends timestamptz;
    month text;
BEGIN
    -- A month that is being dropped, which counts its rows, must not let a sweep wait.
    IF NOT pg_try_advisory_xact_lock(7010) THEN
        RETURN 0;
    END IF;
    FOR ahead IN 0..3 LOOP
        begins := date_trunc('month', now()) + make_interval(months => ahead);
        ends := begins + interval '1 month';
        month := to_char(begins, 'YYYY_MM');
        -- The name of the partition of earlier rows says where it ends.
        CONTINUE WHEN EXISTS (
            SELECT FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
            WHERE inhparent = '{{schema}}.infrastructure_auditevent'::regclass
                AND (relname = 'audit_log_' || month
                     OR (relname ~ '^audit_log_before_' AND right(relname, 7) > month)));
        -- Rows of that month are in the rest already, and stay there.
        CONTINUE WHEN EXISTS (SELECT FROM {{schema}}.audit_log_rest WHERE at >= begins AND at < ends);
        EXECUTE format('CREATE TABLE {{schema}}.%I (LIKE {{schema}}.infrastructure_auditevent INCLUDING DEFAULTS'
            ' INCLUDING CONSTRAINTS)', 'audit_log_' || month);
        EXECUTE format('CREATE TRIGGER audit_log_stays BEFORE TRUNCATE ON {{schema}}.%I'
            ' FOR EACH STATEMENT EXECUTE FUNCTION {{schema}}.audit_log_is_append_only()', 'audit_log_' || month);
        EXECUTE format('ALTER TABLE {{schema}}.infrastructure_auditevent ATTACH PARTITION {{schema}}.%I'
            ' FOR VALUES FROM (%L) TO (%L)', 'audit_log_' || month, begins, ends);
        made := made + 1;
    END LOOP;
    RETURN made;
END $$
"""
DROP_MONTH = rf"""
CREATE FUNCTION {{schema}}.audit_log_drop_month(kept_months integer) RETURNS TABLE (dropped text, number bigint)
{OWNERS_RIGHTS} AS $$
DECLARE
    first_kept text := to_char(now() - make_interval(months => kept_months), 'YYYY_MM');
BEGIN
    IF session_user = (SELECT pg_get_userbyid(relowner) FROM pg_class
                       WHERE oid = '{{schema}}.infrastructure_auditevent'::regclass) THEN
        RAISE 'the owner of the audit log drops no month of it' USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF kept_months IS NULL OR kept_months < 6 THEN
        RAISE 'the last 6 months of the audit log are not dropped' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM pg_advisory_xact_lock(7010);
    SELECT relname INTO dropped FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
    WHERE inhparent = '{{schema}}.infrastructure_auditevent'::regclass
        AND ((relname ~ '^audit_log_\d{{4}}_\d\d$' AND right(relname, 7) < first_kept)
             OR (relname ~ '^audit_log_before_\d{{4}}_\d\d$' AND right(relname, 7) <= first_kept))
    ORDER BY right(relname, 7), relname DESC LIMIT 1;
    IF dropped IS NULL THEN
        RETURN;
    END IF;
    EXECUTE format('SELECT count(*) FROM {{schema}}.%I', dropped) INTO number;
    INSERT INTO {{schema}}.infrastructure_auditevent
        (uuid, at, kind, outcome, actor, brand_uuid, changed_fields, changed_values, request_id)
    VALUES (gen_random_uuid(), now(), 'audit_log.month_dropped', dropped, left('operator:' || session_user, 64),
        '00000000-0000-0000-0000-000000000000', 'rows',
        jsonb_build_object('rows', jsonb_build_array(number, 0)), '');
    EXECUTE format('DROP TABLE {{schema}}.%I', dropped);
    RETURN NEXT;
END $$
"""
INDEXES = """
    SELECT relname, pg_get_indexdef(indexrelid) FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
    WHERE indrelid = 'infrastructure_auditevent'::regclass AND NOT indisunique ORDER BY relname
"""
# To take a number from a sequence takes a right, which an identity column does not ask for.
SAME_PRIVILEGES = """DO $$
DECLARE
    allowed record;
BEGIN
    FOR allowed IN
        SELECT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END AS who, privilege_type
        FROM pg_class, aclexplode(relacl) WHERE oid = '{old}'::regclass AND grantee <> relowner
    LOOP
        EXECUTE format('GRANT %s ON infrastructure_auditevent TO %s', allowed.privilege_type, allowed.who);
        IF allowed.privilege_type = 'INSERT' THEN
            EXECUTE format('GRANT USAGE ON SEQUENCE infrastructure_auditevent_id_seq TO %s', allowed.who);
        END IF;
    END LOOP;
END $$"""
NO_TRUNCATION = """CREATE TRIGGER audit_log_stays BEFORE TRUNCATE ON {}
    FOR EACH STATEMENT EXECUTE FUNCTION audit_log_is_append_only()"""


def partition(_apps: object, schema_editor: BaseDatabaseSchemaEditor) -> None:
    database = schema_editor.connection
    if database.vendor != "postgresql":
        return
    with database.cursor() as cursor:
        (has_rows,) = answer(cursor, "SELECT EXISTS (SELECT FROM infrastructure_auditevent)")
        try:
            before = prepare(cursor) if has_rows else None
            with short_lock(cursor):
                convert(cursor, before)
                cursor.execute("SELECT audit_log_make_months()")
        except BaseException:
            # Left behind, it would refuse the rows of a later month.
            with short_lock(cursor):
                cursor.execute("ALTER TABLE infrastructure_auditevent DROP CONSTRAINT IF EXISTS audit_log_before")
            raise


@contextmanager
def short_lock(cursor: Any) -> Iterator[None]:
    """Lock the log in a transaction. Give up after four seconds: writers queue behind who waits for this lock."""
    with transaction.atomic(using=cursor.db.alias):
        cursor.execute("SET LOCAL lock_timeout = '4s'")
        cursor.execute("LOCK TABLE infrastructure_auditevent IN ACCESS EXCLUSIVE MODE")
        yield


def answer(cursor: Any, question: str) -> Any:
    cursor.execute(question)
    return cursor.fetchone()


def prepare(cursor: Any) -> tuple[str, str]:
    """Prove that all rows are before the month after the next, and make the index. Return its name and beginning."""
    name, ends = answer(
        cursor,
        "SELECT to_char(ends, 'YYYY_MM'), to_char(ends, 'YYYY-MM-01 00:00:00+00') FROM (SELECT date_trunc('month',"
        " greatest(now() + interval '1 month', max(at)) AT TIME ZONE 'UTC') + interval '1 month' AS ends"
        " FROM infrastructure_auditevent) AS log",
    )
    with short_lock(cursor):
        cursor.execute(
            "ALTER TABLE infrastructure_auditevent DROP CONSTRAINT IF EXISTS audit_log_before,"
            f" ADD CONSTRAINT audit_log_before CHECK (at < '{ends}') NOT VALID"
        )
    for statement in (
        "ALTER TABLE infrastructure_auditevent VALIDATE CONSTRAINT audit_log_before",
        "DROP INDEX CONCURRENTLY IF EXISTS audit_log_before_key",
        "CREATE UNIQUE INDEX CONCURRENTLY audit_log_before_key ON infrastructure_auditevent (id, at)",
    ):
        cursor.execute(statement)
    return f"audit_log_before_{name}", ends


def convert(cursor: Any, before: tuple[str, str] | None) -> None:
    """Put a partitioned table in the place of the table, which becomes its first partition: `before`, name and end."""
    old, ends = before or ("audit_log_unpartitioned", "")
    (has_rows,) = answer(cursor, "SELECT EXISTS (SELECT FROM infrastructure_auditevent)")
    if has_rows and not before:
        raise RuntimeError("The audit log got its first row in this moment. Run migrate again.")
    cursor.execute(INDEXES)
    indexes = cursor.fetchall()
    (first,) = answer(cursor, "SELECT nextval(pg_get_serial_sequence('infrastructure_auditevent', 'id'))")
    (schema,) = answer(cursor, "SELECT quote_ident(current_schema())")
    for statement in (
        "DROP TRIGGER audit_rows_stay ON infrastructure_auditevent",
        "DROP TRIGGER audit_log_stays ON infrastructure_auditevent",
        f"ALTER TABLE infrastructure_auditevent RENAME TO {old}",
        f"ALTER TABLE {old} DROP CONSTRAINT infrastructure_auditevent_pkey, ALTER id DROP IDENTITY",
        *(f'ALTER INDEX "{name}" RENAME TO "old_{name[:58]}"' for name, _ in indexes),
        f"CREATE TABLE infrastructure_auditevent (LIKE {old} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)"
        " PARTITION BY RANGE (at)",
        "ALTER TABLE infrastructure_auditevent DROP CONSTRAINT IF EXISTS audit_log_before",
        *(definition for _, definition in indexes),
        # The number comes first: the log is read in the order of its numbers.
        "ALTER TABLE infrastructure_auditevent ADD PRIMARY KEY (id, at)",
        f"CREATE SEQUENCE infrastructure_auditevent_id_seq START {first} OWNED BY infrastructure_auditevent.id",
        "ALTER TABLE infrastructure_auditevent ALTER id SET DEFAULT nextval('infrastructure_auditevent_id_seq')",
        SAME_PRIVILEGES.replace("{old}", old),
        *(attach(old, ends) if before else [f"DROP TABLE {old}"]),
        "CREATE TABLE audit_log_rest PARTITION OF infrastructure_auditevent DEFAULT",
        NO_TRUNCATION.format("audit_log_rest"),
        *audit.TRIGGERS_OF_POSTGRESQL,
        MAKE_MONTHS.replace("{schema}", schema),
        DROP_MONTH.replace("{schema}", schema),
        "REVOKE ALL ON FUNCTION audit_log_drop_month(integer) FROM PUBLIC",
    ):
        cursor.execute(statement)


def attach(old: str, ends: str) -> list[str]:
    return [
        f"ALTER TABLE {old} ADD PRIMARY KEY USING INDEX audit_log_before_key",
        f"ALTER TABLE infrastructure_auditevent ATTACH PARTITION {old} FOR VALUES FROM (MINVALUE) TO ('{ends}')",
        f"ALTER TABLE {old} DROP CONSTRAINT audit_log_before",
        NO_TRUNCATION.format(old),
    ]


def unite(_apps: object, schema_editor: BaseDatabaseSchemaEditor) -> None:
    database = schema_editor.connection
    if database.vendor != "postgresql":
        return
    with transaction.atomic(using=database.alias), database.cursor() as cursor:
        cursor.execute("LOCK TABLE infrastructure_auditevent IN ACCESS EXCLUSIVE MODE")
        cursor.execute(INDEXES)
        indexes = [definition.replace(" ON ONLY ", " ON ") for _, definition in cursor.fetchall()]
        (first,) = answer(cursor, "SELECT nextval('infrastructure_auditevent_id_seq')")
        for statement in (
            "DROP FUNCTION audit_log_make_months(), audit_log_drop_month(integer)",
            "ALTER TABLE infrastructure_auditevent RENAME TO audit_log_partitioned",
            "CREATE TABLE infrastructure_auditevent (LIKE audit_log_partitioned INCLUDING CONSTRAINTS)",
            "INSERT INTO infrastructure_auditevent SELECT * FROM audit_log_partitioned",
            SAME_PRIVILEGES.replace("{old}", "audit_log_partitioned"),
            "DROP TABLE audit_log_partitioned",
            "ALTER TABLE infrastructure_auditevent ADD PRIMARY KEY (id)",
            "ALTER TABLE infrastructure_auditevent ALTER id"
            f" ADD GENERATED BY DEFAULT AS IDENTITY (SEQUENCE NAME infrastructure_auditevent_id_seq START {first})",
            *indexes,
            *audit.TRIGGERS_OF_POSTGRESQL,
        ):
            cursor.execute(statement)


class Migration(migrations.Migration):
    # CREATE INDEX CONCURRENTLY runs outside of a transaction.
    atomic = False
    dependencies = [("infrastructure", "0002_workerheartbeat_sweep_due_at")]
    operations = [migrations.RunPython(partition, unite)]
