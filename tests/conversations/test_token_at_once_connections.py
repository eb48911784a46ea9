"""The token in one query on PostgreSQL's connections: kept ones that died, and ones that a pooler hands around."""

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tests.cast import Bot, Browser, code_on
from tests.connections import kill_the_kept_connection
from tests.fake_authorization_server import FakeAuthorizationServer

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def ready(acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer) -> Any:
    """Return acme-bot where the next read is answered with the token, on a connection that has just read one."""
    connection.close()
    acme_bot.complete(code_on(ada.sign_in(acme_bot.challenge()["url"], acme_login)))
    acme_bot.token()
    yield acme_bot
    connection.close()


def statements_of(bot: Bot) -> list[str]:
    """Read the token; return the statements that took."""
    with CaptureQueriesContext(connection) as queries:
        assert bot.token()[0] == 200
    return [query["sql"] for query in queries]


def kinds_of(bot: Bot) -> list[str]:
    return [sql.split()[0] for sql in statements_of(bot)]


def test_a_kept_connection_that_died_costs_no_read(ready: Bot) -> None:
    """Nobody asks beforehand whether it still works: the read does, and is repeated on a new one, prepared there."""
    old = connection.connection
    kill_the_kept_connection()
    assert ready.token()[0] == 200
    assert connection.connection is not old
    assert kinds_of(ready) == ["EXECUTE"]
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_prepared_statements")
        assert cursor.fetchone() == (1,)


def test_behind_a_pooler_the_query_is_sent_as_it_is(ready: Bot) -> None:
    """Another connection than the one that it was prepared on knows nothing of it; no read fails for that."""
    assert kinds_of(ready) == ["EXECUTE"]
    with connection.cursor() as cursor:
        cursor.execute("DEALLOCATE ALL")
    assert ready.token()[0] == 200
    assert kinds_of(ready) == ["SELECT"]


def test_a_statement_that_somebody_else_prepared_there_is_not_prepared_again(ready: Bot) -> None:
    """The other face of a pooler: the name is taken on the connection that we were given."""
    _, name, *_ = statements_of(ready)[0].split()
    connection.close()
    with connection.cursor() as cursor:
        cursor.execute(f"PREPARE {name} AS SELECT 1")
    assert ready.token()[0] == 200
    assert kinds_of(ready) == ["SELECT"]


def test_a_column_that_a_migration_changed_costs_no_read(ready: Bot) -> None:
    """The bug: "cached plan must not change result type" was a 500 for every read of every process until a restart."""
    column = 'ALTER TABLE conversations_accesstoken ALTER COLUMN "token_type" TYPE varchar(%s)'
    with connection.cursor() as cursor:
        cursor.execute(column % 17)
    try:
        assert ready.token()[0] == 200
        assert kinds_of(ready) == ["EXECUTE"]
    finally:
        with connection.cursor() as cursor:
            cursor.execute(column % 16)
