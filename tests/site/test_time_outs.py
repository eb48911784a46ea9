"""How long a web process waits for PostgreSQL: directly, behind a real PgBouncer, and after a brand issued a token."""

from collections.abc import Iterator
from contextlib import ExitStack
from threading import Timer
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction

from infrastructure import prepared
from infrastructure.database_errors import is_unavailable, sqlstate
from infrastructure.postgresql import base
from tests.cast import Bot, Browser
from tests.connections import locked_elsewhere
from tests.fake_authorization_server import FakeAuthorizationServer
from tests.own_postgresql import pgbouncer

pytestmark = pytest.mark.django_db(transaction=True)

ASKED = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")
NONE = {"lock_timeout": "0", "statement_timeout": "0", "idle_in_transaction_session_timeout": "0"}
LIMITED = {"lock_timeout": "4s", "statement_timeout": "8s", "idle_in_transaction_session_timeout": "20s"}
PATIENT = {"lock_timeout": "20s", "statement_timeout": "20s", "idle_in_transaction_session_timeout": "20s"}


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Be a process that serves, with connections made anew."""
    monkeypatch.setattr(base, "_process", base._Process(is_limited=True))
    connection.close()
    yield
    connection.close()


def in_force(database: Any = connection) -> dict[str, str]:
    with database.cursor() as cursor:
        cursor.execute("SELECT " + ", ".join(f"current_setting('{name}')" for name in ASKED))
        return dict(zip(ASKED, cursor.fetchone(), strict=True))


def test_a_command_has_no_time_outs() -> None:
    connection.close()
    assert in_force() == NONE
    with transaction.atomic():
        assert in_force() == NONE


def test_a_web_process_has_them_in_every_statement(serving: None) -> None:
    assert in_force() == LIMITED
    with transaction.atomic():
        assert in_force() == LIMITED


def test_what_the_operator_sets_in_the_address_counts(serving: None, monkeypatch: pytest.MonkeyPatch) -> None:
    options = connection.settings_dict["OPTIONS"] | {"options": "-c statement_timeout=3000"}
    monkeypatch.setitem(connection.settings_dict, "OPTIONS", options)
    assert in_force() == LIMITED | {"statement_timeout": "3s"}


def test_patience_is_for_the_transactions_that_begin_in_it(serving: None) -> None:
    with base.patience():
        assert in_force() == PATIENT
        with transaction.atomic():
            assert [in_force(), in_force()] == [PATIENT, PATIENT]
    assert in_force() == LIMITED
    with transaction.atomic():
        assert in_force() == LIMITED


def test_a_prepared_statement_is_patient_too(serving: None) -> None:
    asked = prepared.PreparedStatement("SELECT current_setting('lock_timeout'), %s::int")
    with base.patience():
        assert [asked.rows([number]) for number in (1, 2)] == [[("20s", 1)], [("20s", 2)]]
    assert asked.rows([3]) == [("4s", 3)]


def test_a_lock_and_a_long_statement_end_as_unavailable(serving: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "START_UP_OPTIONS", "-c lock_timeout=100 -c statement_timeout=2000")
    with locked_elsewhere("brands_brand"), connection.cursor() as cursor, pytest.raises(OperationalError) as locked:
        cursor.execute("SELECT * FROM brands_brand")
    with connection.cursor() as cursor, pytest.raises(OperationalError) as long:
        cursor.execute("SELECT pg_sleep(10)")
    assert [(sqlstate(error.value), is_unavailable(error.value)) for error in (locked, long)] == [
        ("55P03", True),
        ("57014", True),
    ]
    assert in_force()["lock_timeout"] == "100ms"


def test_a_token_that_was_issued_is_not_lost_to_a_lock(
    serving: None,
    monkeypatch: pytest.MonkeyPatch,
    acme_bot: Bot,
    ada: Browser,
    acme_login: FakeAuthorizationServer,
) -> None:
    """The lock is held longer than a web process waits otherwise, and taken while the brand is asked."""
    monkeypatch.setattr(base, "START_UP_OPTIONS", "-c lock_timeout=200")
    connection.close()  # the cast's own
    url = acme_bot.challenge()["url"]
    returned = ada.begin(url)
    lock = ExitStack()

    def take_lock(_: Any) -> None:
        lock.enter_context(locked_elsewhere("conversations_accesstoken"))
        Timer(1.5, lock.close).start()

    acme_login.on_token_request = take_lock
    page = ada.come_back(returned, acme_login)
    assert page.status_code == 303
    assert acme_bot.complete(ada.read_code(url))[0] == 200
    assert acme_bot.token()[0] == 200


def test_a_kept_connection_that_turned_read_only_costs_no_request(serving: None) -> None:
    """25006: the primary moved, and a new connection leads to it."""
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE a_table (number int)")
        cursor.execute("SET default_transaction_read_only = on")
    kept = connection.connection
    try:
        assert prepared.PreparedStatement("INSERT INTO a_table VALUES (%s) RETURNING number").rows([1]) == [(1,)]
        assert connection.connection is not kept
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP TABLE a_table")


@pytest.fixture(params=["extra_float_digits", "extra_float_digits, options"], ids=["refuses options", "drops options"])
def pooled(request: Any, serving: None) -> Iterator[Any]:
    """Return a connection through a real PgBouncer."""
    settings = connection.settings_dict
    with pgbouncer(f"host={settings['OPTIONS']['host']} user=postgres", request.param) as port:
        pooled = connection.copy()
        pooled.settings_dict |= {"HOST": "127.0.0.1", "PORT": port, "USER": "postgres", "OPTIONS": {}}
        yield pooled
        pooled.close()


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if "pooler" in record.message]


def test_a_pooler_is_recognised_and_each_transaction_has_its_time_outs(
    pooled: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert in_force(pooled) == LIMITED
    pooled.set_autocommit(False)
    assert [in_force(pooled), in_force(pooled)] == [LIMITED, LIMITED]
    pooled.commit()
    with base.patience():
        assert [in_force(pooled), in_force(pooled)] == [PATIENT, PATIENT]
        pooled.rollback()
    assert len(warnings_of(caplog)) == 1
    pooled.close()
    pooled.set_autocommit(True)
    assert in_force(pooled) == LIMITED
    assert len(warnings_of(caplog)) == 1


def test_behind_a_pooler_no_time_out_stays_for_somebody_elses_migration(
    pooled: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its two connections to PostgreSQL are everybody's: what one session sets for good, another one finds."""
    assert in_force(pooled) == LIMITED
    monkeypatch.setattr(base, "_process", base._Process())
    command = pooled.copy()
    found = [in_force(command) for _ in range(4)]
    command.close()
    assert found == [NONE] * 4


def test_a_pooler_that_was_named_is_sent_no_options_and_warned_of_nothing(
    pooled: Any, caplog: pytest.LogCaptureFixture
) -> None:
    pooled.settings_dict["DISABLE_SERVER_SIDE_CURSORS"] = True
    assert in_force(pooled) == LIMITED
    assert warnings_of(caplog) == []


def test_a_lock_behind_a_pooler_ends_as_unavailable(pooled: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_IN_TRANSACTION", "SET LOCAL lock_timeout = 100; ")
    with locked_elsewhere("brands_brand"), pooled.cursor() as cursor, pytest.raises(OperationalError) as locked:
        cursor.execute("SELECT * FROM brands_brand")
    assert is_unavailable(locked.value)
